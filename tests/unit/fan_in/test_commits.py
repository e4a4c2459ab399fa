"""merge(by="lsn"): the commits of a database, whole and in order, from several connections and processes."""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import asyncio
import multiprocessing
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from nodedb_ring import (
    ArgumentError,
    CommitMerger,
    EventBatch,
    EventProducer,
    Follower,
    GapError,
    LogError,
    WriteEvent,
    create_event_bus,
    follow,
    logged,
    merge,
    wait,
)
from nodedb_ring.capture import SqliteCapture
from nodedb_ring.log.sqlite import SqliteEventLog
from nodedb_ring.log.sqlite.append import append_statements
from nodedb_ring.recovery import state
from tests.unit.builders import batch, event, sequences
from tests.unit.recovery.memory_log import MemoryLog

from .database import Database, commit_at_random, opened, rebuilt
from .many import taken_over


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "orders.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    made = Database(path, 2)
    yield made
    made.log.close()


def commits(merged: CommitMerger, count: int | None = None) -> list[tuple[int, list[int]]]:
    """The core of each batch and its numbers, of so many batches or to the end."""
    found: list[tuple[int, list[int]]] = []
    while len(found) != count:
        try:
            core_id, each = next(merged)
        except StopIteration:
            break
        found.append((core_id, each.lsn.tolist()))
    return found


def emit_all(producer: EventProducer, events: list[WriteEvent]) -> None:
    for each in events:
        assert producer.emit(each)


def flat(found: list[tuple[int, list[int]]]) -> list[int]:
    return [number for _, numbers in found for number in numbers]


def test_two_connections_in_turn(database: Database) -> None:
    for key in range(6):
        database.sql(key % 2, f"INSERT INTO t VALUES ({key}, 1)")
    database.end()
    assert commits(database.merged()) == [(key % 2, [key + 1]) for key in range(6)]


def test_a_run_of_one_core_is_one_batch(database: Database) -> None:
    for key in range(6):
        database.sql(key // 4, f"INSERT INTO t VALUES ({key}, 1)")
    database.end()
    assert commits(database.merged()) == [(0, [1, 2, 3, 4]), (1, [5, 6])]


def test_max_events_bounds_batches_of_several_commits(database: Database) -> None:
    for key in range(4):
        database.sql(0, f"INSERT INTO t VALUES ({2 * key}, 1), ({2 * key + 1}, 1)")
    database.end()
    followers = database.followers()
    assert commits(merge(followers, 5, by="lsn")) == [(0, [1, 1, 2, 2]), (0, [3, 3, 4, 4])]


@pytest.mark.parametrize("most", [1, 3, 1024])
@pytest.mark.parametrize("ring", [True, False])
def test_a_commit_of_many_batches_is_whole(database: Database, most: int, ring: bool) -> None:
    rows = ", ".join(f"({key}, 1)" for key in range(2000))
    database.sql(0, "INSERT INTO t VALUES (-1, 1)")
    database.sql(1, f"INSERT INTO t VALUES {rows}")
    database.sql(0, "INSERT INTO t VALUES (-2, 1)")
    database.end()
    merged = database.merged(ring=ring, max_events=most)
    assert commits(merged, 3) == [(0, [1]), (1, [2] * 2000), (0, [3])]


def test_a_commit_of_several_rows_of_the_log_is_whole(database: Database) -> None:
    database.sql(
        0,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 140000)"
        " INSERT INTO t SELECT i, 1 FROM n",
    )
    database.sql(1, "DELETE FROM t WHERE a = 1")
    assert len(list(database.log.read(0, 0, 10**6))) == 3
    database.end()
    found = commits(database.merged())
    assert [(core, len(numbers), set(numbers)) for core, numbers in found] == [(0, 140000, {1}), (1, 1, {2})]


def test_a_commit_of_which_the_ring_has_a_part_is_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer is between two events of a commit, all of which the log has already."""
    # The follower knows of the others by the ring alone.
    monkeypatch.setattr(state, "LAST_SECONDS", 3600.0)
    [producer], [consumer] = create_event_bus(1, 64)
    with SqliteEventLog(path) as log, follow(consumer, log, group="g") as follower:

        def stored(number: int, first: int, last: int) -> list[WriteEvent]:
            events = [event(sequence, lsn=number) for sequence in range(first, last + 1)]
            for sql, bindings in append_statements(0, EventBatch.from_events(events), number):
                log._execute("", sql, bindings)  # pyright: ignore[reportPrivateUsage]
            return events

        merged = merge([follower], by="lsn")
        emit_all(producer, stored(1, 1, 1))
        assert commits(merged, 1) == [(0, [1])]
        # It asks the log for its last number before the first wait.
        assert wait([follower], 0.01) == []
        events = stored(2, 2, 7)
        emit_all(producer, events[:3])

        waiter = taken_over([consumer], lambda: commits(merged, 1))
        waiter.until_asleep()
        emit_all(producer, events[3:])
        assert waiter.result() == [(0, [2] * 6)]


def test_a_core_without_events_delays_nobody(path: Path) -> None:
    database = Database(path, 3)
    merged = database.merged()
    for key in range(4):
        database.sql(2 * (key % 2), f"INSERT INTO t VALUES ({key}, 1)")
        assert commits(merged, 1) == [(2 * (key % 2), [key + 1])]
    database.end()
    assert commits(merged) == []


def test_a_core_that_lags_is_waited_for(database: Database) -> None:
    """Its number is in the log alone, and its ring says nothing of it."""
    merged = database.merged()
    database.sql(0, "INSERT INTO t VALUES (1, 1)")
    assert commits(merged, 1) == [(0, [1])]
    # Core 1 is a process that dies between its commit and its emit.
    producer, consumer = create_event_bus(2)[0][1], database.consumers[1]
    assert consumer.core_id == producer.core_id
    other = opened(database.path)
    with SqliteCapture(other, producer, log=database.log):
        other.execute("INSERT INTO t VALUES (2, 1)")
    database.sql(0, "INSERT INTO t VALUES (3, 1)")
    assert commits(merged, 2) == [(1, [2]), (0, [3])]


def test_a_number_that_no_core_has(path: Path) -> None:
    database = Database(path, 3)
    for core in (0, 1, 2, 1, 0):
        database.sql(core, f"INSERT OR REPLACE INTO t VALUES ({core}, 1)")
    followers = [each for each in database.followers() if each.core_id != 1]
    merged = merge(followers, by="lsn")
    assert commits(merged, 1) == [(0, [1])]
    with pytest.raises(GapError, match=r"^commit 2: none of the cores 0, 2 has it, and 3 is there") as caught:
        next(merged)
    assert (caught.value.core_id, caught.value.first, caught.value.last) == (-1, 2, 2)
    with pytest.raises(GapError, match=r"^commit 2: none of the cores 0, 2 has it, and 3 is there") as again:
        next(merged)
    assert (again.value.core_id, again.value.first, again.value.last) == (-1, 2, 2)
    with pytest.raises(ValueError, match="is none of this merge's, at commit 2"):
        merged.skip(GapError("", 0, 2, 2))
    merged.skip(caught.value)
    assert commits(merged, 1) == [(2, [3])]
    with pytest.raises(GapError, match=r"^commit 4:"):
        next(merged)


def test_a_number_that_no_core_has_while_one_is_silent(path: Path) -> None:
    """Core 2 has nothing: the log says that it will not come from there."""
    database = Database(path, 3)
    followers = [each for each in database.followers() if each.core_id != 1]
    merged = merge(followers, by="lsn")
    database.sql(0, "INSERT INTO t VALUES (1, 1)")
    assert commits(merged, 1) == [(0, [1])]
    database.sql(1, "INSERT INTO t VALUES (2, 1)")
    database.sql(1, "INSERT INTO t VALUES (3, 1)")
    database.sql(0, "INSERT INTO t VALUES (4, 1)")
    with pytest.raises(GapError, match=r"^commits 2 to 3: none of the cores 0, 2 has it, and 4 is there"):
        next(merged)


def test_commit_covers_what_was_yielded(database: Database) -> None:
    for key in range(10):
        database.sql(key % 2, f"INSERT INTO t VALUES ({key}, 1)")
    followers = database.followers()
    merged = merge(followers, by="lsn")
    assert flat(commits(merged, 5)) == [1, 2, 3, 4, 5]
    for follower in followers:
        follower.commit()
        assert follower.stats().delivered == 3 - follower.core_id
    assert [database.log.load_watermark("g", core) for core in (0, 1)] == [3, 2]
    assert [follower.position for follower in followers] == [3, 2]
    assert [follower.stats().lag for follower in followers] == [2, 3]
    # What it has taken and not yielded comes next, whoever asks.
    assert sequences(followers[1].next_batch(0)) == [3, 4, 5]
    assert followers[1].position == 5


def test_another_merge_goes_on(database: Database) -> None:
    for key in range(10):
        database.sql(key % 2, f"INSERT INTO t VALUES ({key}, 1)")
    followers = database.followers()
    assert flat(commits(merge(followers, by="lsn"), 5)) == [1, 2, 3, 4, 5]
    assert flat(commits(merge(followers, by="lsn"), 5)) == [6, 7, 8, 9, 10]


@pytest.mark.parametrize("trimmed", [False, True])
@pytest.mark.parametrize("committed", [(0,), (1,), (0, 1), ()])
def test_a_restart_with_groups(database: Database, committed: tuple[int, ...], trimmed: bool) -> None:
    """A crash comes between the commits of two cores: what one has committed is not missing."""
    for key in range(12):
        database.sql(key % 2, f"INSERT INTO t VALUES ({key}, 1)")
    followers = database.followers()
    merged = merge(followers, by="lsn")
    assert flat(commits(merged, 2)) == [1, 2]
    for follower in followers:
        follower.commit()
    assert flat(commits(merged, 4)) == [3, 4, 5, 6]
    for core in committed:
        followers[core].commit()
    for follower in followers:
        follower.close()
    if trimmed:
        database.log.trim_committed()
    expected = [number for number in range(3, 13) if number > 6 or (number - 1) % 2 not in committed]
    assert flat(commits(database.merged(), len(expected))) == expected


def test_numbers_continue_after_a_restart(path: Path) -> None:
    first = Database(path, 2)
    first.sql(0, "INSERT INTO t VALUES (1, 1)")
    first.sql(1, "INSERT INTO t VALUES (2, 1)")
    first.end()
    first.log.close()
    second = Database(path, 2)
    second.sql(1, "INSERT INTO t VALUES (3, 1)")
    second.sql(0, "INSERT INTO t VALUES (4, 1)")
    assert flat(commits(second.merged(), 4)) == [1, 2, 3, 4]


def test_a_new_group_after_a_trim(database: Database) -> None:
    for key in range(8):
        database.sql(key % 2, f"INSERT INTO t VALUES ({key}, 1)")
    database.log.trim(0, 2)
    merged = database.merged(ring=False)
    # Core 1 has 2 and 4 still, core 0 lost 1 and 3.
    assert flat(commits(merged, 6)) == [2, 4, 5, 6, 7, 8]


def test_it_ends_when_all_have_ended(database: Database) -> None:
    database.sql(0, "INSERT INTO t VALUES (1, 1)")
    merged = database.merged()
    assert len(commits(merged, 1)) == 1
    database.end()
    assert commits(merged) == []
    assert commits(merged) == []
    assert commits(merge([], by="lsn")) == []


def test_a_producer_that_numbers_for_itself(path: Path) -> None:
    database = Database(path, 1)
    database.sql(0, "INSERT INTO t VALUES (1, 1)")
    producers, _ = create_event_bus(2)
    with logged(producers[1], database.log) as core:
        core.emit_batch(batch(1, 3))
    followers = [follow(None, database.log, core_id=core_id, group="g") for core_id in (0, 1)]
    with pytest.raises(LogError, match=r"core 1: no capture has stored the events after 0, .*without by='lsn'"):
        next(merge(followers, by="lsn"))
    # The numbers of captures are not disturbed by it.
    database.sql(0, "INSERT INTO t VALUES (2, 1)")
    assert flat(commits(merge(followers[:1], by="lsn"), 1)) == [1, 2]


@pytest.mark.parametrize(
    ("lsn", "message"),
    [
        (1, "has an event of lsn 1, and commit 2 is due"),
        (2, "the log does not have event 2 as one of commit 2"),
        (7, "has an event of lsn 7, and the log has not come so far"),
    ],
)
def test_an_lsn_that_is_no_commit_number(database: Database, lsn: int, message: str) -> None:
    database.sql(0, "INSERT INTO t VALUES (1, 1)")
    merged = database.merged()
    assert flat(commits(merged, 1)) == [1]
    database.producers[0].emit_batch(EventBatch.from_events([event(2, lsn=lsn)]))
    with pytest.raises(LogError, match=f"core 0: {message}"):
        next(merged)


def test_what_is_refused(database: Database, tmp_path: Path) -> None:
    followers = database.followers()
    with pytest.raises(TypeError, match="by='lsn' merges followers"):
        merge(cast("list[Follower]", create_event_bus(1)[1]), by="lsn")
    with pytest.raises(ArgumentError, match="by 'time': must be 'lsn'"):
        merge(followers, by=cast("Any", "time"))
    with pytest.raises(ArgumentError, match="the same core"):
        merge([*followers, *database.followers(ring=False, group="h")], by="lsn")
    with SqliteEventLog(tmp_path / "other.log") as log, pytest.raises(ArgumentError, match="have 2 logs"):
        merge([followers[0], follow(None, log, core_id=5, group="g")], by="lsn")
    with pytest.raises(LogError, match="needs a log that numbers commits"):
        merge([follow(None, MemoryLog(), core_id=0, group="g")], by="lsn")


@pytest.mark.parametrize("on_loop", [False, True])
@pytest.mark.parametrize("capacity", [4, 1024])
def test_random_traffic_of_connections(path: Path, on_loop: bool, capacity: int) -> None:
    """Threads that write the same rows: in the order of the numbers every old value fits."""
    database = Database(path, 3, capacity=capacity)
    followers = database.followers()
    for capture, connection in zip(database.captures, database.connections, strict=True):
        capture.close()
        connection.close()

    def write(core: int) -> None:
        connection = opened(path)
        database.producers[core].bind()
        draw = random.Random(core)
        with SqliteCapture(connection, database.producers[core], log=database.log):
            for _ in range(150):
                commit_at_random(connection, draw)
        database.producers[core].close()
        connection.close()

    writers = [threading.Thread(target=write, args=(core,)) for core in range(3)]
    for writer in writers:
        writer.start()
    merged = merge(followers, by="lsn")

    async def collect() -> list[EventBatch]:
        return [each async for _, each in merged]

    batches = asyncio.run(collect()) if on_loop else [each for _, each in merged]
    for writer in writers:
        writer.join()
    assert rebuilt(batches) == database.rows()
    numbers = [number for each in batches for number in sorted(set(each.lsn.tolist()))]
    assert numbers == list(range(1, database.log.commits.last() + 1))


def write_in_process(path: str, core: int, count: int) -> None:
    connection = opened(Path(path))
    producers, _ = create_event_bus(core + 1, 4)
    draw = random.Random(core)
    with (
        SqliteEventLog(path, driver="apsw") as log,
        SqliteCapture(connection, producers[core], log=log),
    ):
        for _ in range(count):
            commit_at_random(connection, draw)


def test_random_traffic_of_processes(path: Path) -> None:
    database = Database(path, 2)
    database.end()
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_in_process, args=(str(path), core, 150)) for core in range(2)]
    merged = database.merged(ring=False)
    for writer in writers:
        writer.start()
    batches: list[EventBatch] = []
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    last = database.log.commits.last()
    while not batches or int(batches[-1].lsn[-1]) < last:
        batches.append(next(merged)[1])
    assert rebuilt(batches) == database.rows()
    assert last > 200
