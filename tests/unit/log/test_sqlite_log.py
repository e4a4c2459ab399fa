"""The log in a SQLite file, with both drivers."""

# apsw's stubs name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from nodedb_ring import EventBatch, WriteEvent, WriteOp, create_event_bus
from nodedb_ring.errors import ArgumentError, ClosedError, CorruptLogError, ForkError, LogConflictError, LogError
from nodedb_ring.log import MAX_BATCH_EVENTS, EventLog
from nodedb_ring.log.sqlite import (
    BUSY_SECONDS,
    CHECKPOINT_BYTES,
    CREATE_TABLES,
    LOG_TABLES,
    PAGE_BYTES,
    SqliteEventLog,
    append,
    append_statements,
    event_log,
)
from nodedb_ring.log.sqlite.drivers import DRIVERS, Bindings

Driver = Literal["sqlite3", "apsw"]
Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture(params=["sqlite3", "apsw"])
def driver(request: pytest.FixtureRequest) -> Driver:
    return "apsw" if request.param == "apsw" else "sqlite3"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@pytest.fixture
def log(path: Path, driver: Driver) -> Iterator[SqliteEventLog]:
    with SqliteEventLog(path, driver=driver) as opened:
        yield opened


@pytest.fixture
def sql(path: Path, driver: Driver) -> Sql:
    """Runs a statement on a connection of its own, of the same library: two in one process drop each other's locks."""

    def run(statement: str, *bindings: object) -> list[tuple[Any, ...]]:
        connection = DRIVERS[driver](str(path), BUSY_SECONDS)
        try:
            return connection.query(statement, bindings)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        finally:
            connection.close()

    return run


def event(sequence: int, value: bytes | None = None) -> WriteEvent:
    return WriteEvent(
        sequence=sequence, collection="t", op=WriteOp.INSERT, row_id=str(sequence), lsn=sequence, new_value=value
    )


def batch_of(*sequences: int, value: bytes | None = None) -> EventBatch:
    return EventBatch.from_events([event(sequence, value) for sequence in sequences])


def run_of(first: int, count: int) -> EventBatch:
    return EventBatch.from_columns(
        sequence=np.arange(first, first + count, dtype=np.uint64),
        collection="t",
        op=int(WriteOp.INSERT),
        row_id="r",
        lsn=np.arange(count, dtype=np.uint64),
    )


def numbers(log: EventLog, core_id: int = 0, first: int = 0, last: int = 2**64 - 1) -> list[int]:
    return [int(number) for batch in log.read(core_id, first, last) for number in batch.sequence]


def test_it_is_an_event_log(log: SqliteEventLog) -> None:
    assert isinstance(log, EventLog)


@pytest.mark.parametrize("name", [":memory:", "", "file:x", "file:x?mode=ro", "file::memory:?cache=shared"])
def test_paths_that_sqlite_does_not_take_for_a_file(
    name: str, driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError, match=r"^path '.*': .*(name one|pass the path alone)"):
        SqliteEventLog(name, driver=driver)
    assert os.listdir() == []


@pytest.mark.parametrize("name", ["./:memory:", "./file:x?mode=ro", "file", "memory"])
def test_files_of_such_names(name: str, driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with SqliteEventLog(name, driver=driver) as log:
        log.append(0, batch_of(1))
        assert Path(name).name in os.listdir()
        assert log.path == str(tmp_path / name)
    for given in (Path(":memory:"), b"x"):
        # A Path has lost the "./" that distinguished them, and every message would show bytes as such.
        with pytest.raises((ArgumentError, TypeError), match=r"^path "):
            SqliteEventLog(given, driver=driver)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_beside_a_process_that_holds_a_read_lock_and_copies_the_wal(
    log: SqliteEventLog, path: Path, driver: Driver
) -> None:
    """As Litestream does: a read transaction that keeps others from a checkpoint, and short write locks."""
    log.append(0, batch_of(1))
    other = DRIVERS[driver](str(path), BUSY_SECONDS)
    try:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM nodedb_ring_log")
        # Several times what an append may find to copy.
        for first in range(2, 42):
            log.append(0, batch_of(first, value=bytes(300_000)))
        assert os.path.getsize(f"{path}-wal") > 2 * CHECKPOINT_BYTES
        log.trim(0, 10)
        other.execute("COMMIT")
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert os.path.getsize(f"{path}-wal") == 0
        log.append(0, batch_of(42))
        assert numbers(log) == list(range(11, 43))
        log.close()
        # Who is not the last to close the file leaves the write-ahead log to the others.
        assert os.path.exists(f"{path}-wal")
    finally:
        other.close()
    with SqliteEventLog(path, driver=driver) as again:
        assert numbers(again) == list(range(11, 43))


def test_an_appended_batch_is_read(log: SqliteEventLog) -> None:
    batches = [batch_of(1, 2, 3, value=b"one"), batch_of(7, 9), batch_of(10, value=b"")]
    for batch in batches:
        log.append(4, batch)
    assert [list(batch) for batch in log.read(4, 0, 100)] == [list(batch) for batch in batches]
    assert log.last_sequence(4) == 10
    assert log.last_sequence(5) is None
    assert numbers(log, 5) == []


@pytest.mark.parametrize("first", range(14))
def test_a_read_is_cut_to_its_range(log: SqliteEventLog, first: int) -> None:
    there = [1, 2, 3, 7, 9, 10]
    for batch in (batch_of(1, 2, 3), batch_of(7, 9), batch_of(10)):
        log.append(0, batch)
    log.append(1, batch_of(5, 6))
    for last in range(14):
        assert numbers(log, 0, first, last) == [n for n in there if first <= n <= last]


def test_it_is_there_after_it_was_opened_again(path: Path, driver: Driver) -> None:
    with SqliteEventLog(path, driver=driver) as log:
        log.append(0, batch_of(1, 2, value=b"x" * 100))
        log.save_watermark("group", 0, 1)
    other: Driver = "sqlite3" if driver == "apsw" else "apsw"
    with SqliteEventLog(path, driver=other) as log:
        assert [list(batch) for batch in log.read(0, 0, 9)] == [[event(1, b"x" * 100), event(2, b"x" * 100)]]
        assert log.load_watermark("group", 0) == 1
        assert log.last_sequence(0) == 2


def test_an_empty_batch_does_nothing(log: SqliteEventLog, path: Path, sql: Sql) -> None:
    log.append(0, batch_of())
    assert log.last_sequence(0) is None
    assert sql("SELECT * FROM nodedb_ring_log") == []


@pytest.mark.parametrize("again", [(5,), (4,), (5, 6), (1, 9), (0,)])
def test_a_number_that_it_has_is_a_conflict(log: SqliteEventLog, again: tuple[int, ...]) -> None:
    log.append(0, batch_of(4, 5))
    with pytest.raises(LogConflictError, match=f"sequence {again[0]}: the log has 5 already; number events from 6 on"):
        log.append(0, batch_of(*again))
    assert numbers(log) == [4, 5]
    log.append(1, batch_of(*again))
    log.append(0, batch_of(6))
    assert numbers(log) == [4, 5, 6]


def test_numbers_must_rise_within_a_batch(log: SqliteEventLog) -> None:
    with pytest.raises(LogConflictError, match="sequence 2 of event 2 follows 3"):
        log.append(0, batch_of(1, 3, 2))
    assert log.last_sequence(0) is None


def test_number_zero(log: SqliteEventLog) -> None:
    log.append(0, batch_of(0, 1))
    assert log.last_sequence(0) == 1
    assert numbers(log) == [0, 1]
    with pytest.raises(LogConflictError):
        log.append(0, batch_of(0))


def test_the_highest_number(log: SqliteEventLog) -> None:
    log.append(0, batch_of(2**63 - 1))
    assert numbers(log) == [2**63 - 1]
    assert numbers(log, 0, 2**63, 2**64 - 1) == []
    with pytest.raises(LogError, match=f"sequence {2**63}: SQLite stores numbers up to"):
        log.append(1, batch_of(1, 2**63))
    assert log.last_sequence(1) is None


def test_a_large_batch_is_split_in_one_transaction(log: SqliteEventLog) -> None:
    count = 2 * MAX_BATCH_EVENTS + 10
    log.append(0, run_of(1, count))
    sizes = [len(batch) for batch in log.read(0, 0, count)]
    assert sizes == [MAX_BATCH_EVENTS, MAX_BATCH_EVENTS, 10]
    assert numbers(log) == list(range(1, count + 1))
    log.append(0, batch_of(3 * count))
    with pytest.raises(LogConflictError):
        log.append(0, run_of(2 * count, 2 * count))
    assert log.last_sequence(0) == 3 * count


def test_a_conflict_in_a_later_part_undoes_the_earlier(log: SqliteEventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    appended = append_statements

    def second_twice(core_id: int, batch: EventBatch) -> list[tuple[str, Bindings]]:
        statements = appended(core_id, batch)
        return [*statements, statements[0]]

    monkeypatch.setattr(event_log, "append_statements", second_twice)
    with pytest.raises(LogError):
        log.append(0, batch_of(1, 2))
    monkeypatch.undo()
    assert log.last_sequence(0) is None
    log.append(0, batch_of(1, 2))


def test_large_payloads_are_split(log: SqliteEventLog, path: Path, monkeypatch: pytest.MonkeyPatch, sql: Sql) -> None:
    monkeypatch.setattr(append, "PART_BYTES", 1000)
    batch = EventBatch.from_events([event(n, bytes(300)) for n in range(1, 20)])
    log.append(0, batch)
    assert [item for part in log.read(0, 0, 100) for item in part] == list(batch)
    sizes = [int(size) for (size,) in sql("SELECT length(payload) FROM nodedb_ring_log")]
    assert len(sizes) > 5
    assert max(sizes) <= 1000
    log.append(0, batch_of(20, value=bytes(5000)))
    log.append(0, EventBatch.from_events([event(n, bytes(300)) for n in range(1, 40)])[20:22])
    assert numbers(log) == list(range(1, 23))


def test_an_event_larger_than_sqlite_stores(log: SqliteEventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append, "MOST_BYTES", 1000)
    with pytest.raises(LogError, match="sequence 1: an event of 2002 bytes; at most 1000 fit"):
        log.append(0, batch_of(1, value=bytes(2000)))
    assert log.last_sequence(0) is None


def test_a_slice_and_a_lease(log: SqliteEventLog, path: Path, sql: Sql) -> None:
    [producer], [consumer] = create_event_bus(1, 64)
    for n in range(1, 41):
        producer.emit(event(n, bytes(500)))
    first = consumer.drain(20)
    log.append(0, first[3:5])
    with consumer.lease(10) as batch:
        log.append(0, batch)
    assert [item for part in log.read(0, 0, 100) for item in part] == [
        event(n, bytes(500)) for n in (4, 5, *range(21, 31))
    ]
    assert max(int(size) for (size,) in sql("SELECT length(payload) FROM nodedb_ring_log")) < 5200


COLUMNS = ("core_id", "first_sequence", "last_sequence", "count", "checksum")


@pytest.mark.parametrize("column", COLUMNS)
def test_a_changed_number_is_found(log: SqliteEventLog, path: Path, column: str, sql: Sql) -> None:
    log.append(8, batch_of(1, 2, 3))
    log.append(8, batch_of(10, 12, 14))
    sql(f"UPDATE nodedb_ring_log SET {column} = {column} + 1 WHERE first_sequence = 10")
    damaged = log.read(9 if column == "core_id" else 8, 0, 100)
    if column != "core_id":
        assert list(next(damaged).sequence) == [1, 2, 3]
    core = 9 if column == "core_id" else 8
    with pytest.raises(CorruptLogError, match=rf"core {core}, events 1[01] to 1[45]"):
        next(damaged)


@pytest.mark.parametrize("column", ["rows", "payload"])
@pytest.mark.parametrize("damage", ["cut", "empty", "flip", "text"])
def test_a_torn_batch_is_found(log: SqliteEventLog, path: Path, column: str, damage: str, sql: Sql) -> None:
    log.append(0, batch_of(1, 2, 3, value=b"before"))
    log.append(0, batch_of(10, 12, 14, value=b"value"))
    log.append(0, batch_of(20, value=b"after"))
    [(stored,)] = sql(f"SELECT {column} FROM nodedb_ring_log WHERE first_sequence = 10")
    assert isinstance(stored, bytes)
    flipped = bytearray(stored)
    flipped[len(stored) // 2] ^= 0x10
    torn = {"cut": stored[:-1], "empty": b"", "flip": bytes(flipped), "text": "text"}[damage]
    sql(f"UPDATE nodedb_ring_log SET {column} = ? WHERE first_sequence = 10", torn)
    assert numbers(log, 0, 0, 3) == [1, 2, 3]
    assert numbers(log, 0, 20, 30) == [20]
    with pytest.raises(CorruptLogError, match=r"core 0, events 10 to 14: .* restore the log from a copy"):
        numbers(log, 0, 12, 12)
    with pytest.raises(CorruptLogError, match="core 0, events 10 to 14"):
        numbers(log)


def test_a_damaged_page_is_found(path: Path, driver: Driver) -> None:
    with SqliteEventLog(path, driver=driver) as log:
        for n in range(1, 40):
            log.append(0, batch_of(n, value=bytes([n]) * 20_000))
    content = bytearray(path.read_bytes())
    page = len(content) // 2 // PAGE_BYTES * PAGE_BYTES
    content[page : page + 10_000] = bytes(10_000)
    path.write_bytes(content)
    with SqliteEventLog(path, driver=driver) as log, pytest.raises(CorruptLogError):
        numbers(log)


def test_trim_forgets_whole_batches(log: SqliteEventLog) -> None:
    for first in range(1, 100, 3):
        log.append(0, batch_of(first, first + 1, first + 2))
    log.append(1, batch_of(1))
    log.trim(0, 10)
    assert numbers(log)[0] == 10
    log.trim(0, 9)
    assert numbers(log)[0] == 10
    log.trim(0, 92)
    assert numbers(log)[0] == 91
    assert numbers(log, 1) == [1]
    log.trim(0, 2**64 - 1)
    assert numbers(log) == []


def test_the_last_number_survives_a_trim(path: Path, driver: Driver) -> None:
    with SqliteEventLog(path, driver=driver) as log:
        log.append(0, batch_of(1, 2))
        log.append(0, batch_of(3, 4))
        log.trim(0, 4)
        assert log.last_sequence(0) == 4
    with SqliteEventLog(path, driver=driver) as log:
        assert log.last_sequence(0) == 4
        with pytest.raises(LogConflictError, match="the log has 4 already"):
            log.append(0, batch_of(4, 5))
        log.append(0, batch_of(5))
        assert log.last_sequence(0) == 5
        log.trim(0, 3)
        assert log.last_sequence(0) == 5


def test_trim_of_nothing_writes_nothing(log: SqliteEventLog, path: Path, sql: Sql) -> None:
    log.trim(0, 100)
    log.append(0, batch_of(5, 6))
    log.trim(0, 5)
    assert log.last_sequence(1) is None
    assert sql("SELECT * FROM nodedb_ring_core") == []


def test_trim_takes_small_steps(log: SqliteEventLog, path: Path, sql: Sql) -> None:
    """Another connection, which takes its turn while a trim runs, sees every step."""
    rows = 5 * event_log.TRIM_ROWS + 3
    for n in range(1, rows + 1):
        log.append(0, batch_of(n))
    left: list[int] = []
    step = log._trim_some  # pyright: ignore[reportPrivateUsage]

    def watched(undone: str, core_id: int, upto: int) -> bool:
        more = step(undone, core_id, upto)
        [(count,)] = sql("SELECT count(*) FROM nodedb_ring_log")
        left.append(int(count))
        return more

    log._trim_some = watched  # type: ignore[method-assign]  # pyright: ignore[reportPrivateUsage]
    log.trim(0, rows)
    taken = [before - after for before, after in zip([rows, *left], left, strict=False)]
    assert left[-1] == 0
    assert max(taken) == event_log.TRIM_ROWS


def test_a_batch_appended_during_a_trim_stays(log: SqliteEventLog, path: Path, driver: Driver) -> None:
    """Whatever the trim was asked for: its number would be forgotten with it, and given to another event."""
    log.append(0, batch_of(1, 2))
    step = log._trim_some  # pyright: ignore[reportPrivateUsage]
    with SqliteEventLog(path, driver=driver) as other:

        def after_an_append(undone: str, core_id: int, upto: int) -> bool:
            other.append(0, batch_of(3))
            return step(undone, core_id, upto)

        log._trim_some = after_an_append  # type: ignore[method-assign]  # pyright: ignore[reportPrivateUsage]
        log.trim(0, 2**64 - 1)
    assert numbers(log) == [3]
    assert log.last_sequence(0) == 3


def test_space_that_was_trimmed_is_used_again(path: Path, driver: Driver) -> None:
    with SqliteEventLog(path, driver=driver) as log:
        for n in range(1, 400):
            log.append(0, batch_of(n, value=bytes(100_000)))
            if n % 20 == 0:
                log.trim(0, n - 10)
    assert path.stat().st_size < 12 * 1024 * 1024


def test_the_write_ahead_log_stays_small(path: Path, driver: Driver) -> None:
    most = 0
    with SqliteEventLog(path, driver=driver) as log:
        for n in range(1, 300):
            log.append(0, batch_of(n, value=bytes(250_000)))
            most = max(most, Path(f"{path}-wal").stat().st_size)
    assert CHECKPOINT_BYTES / 2 < most < 2 * CHECKPOINT_BYTES


def test_an_open_read_does_not_delay_a_checkpoint(log: SqliteEventLog, path: Path) -> None:
    log.append(0, batch_of(1))
    log.append(0, batch_of(2))
    reading = log.read(0, 0, 10_000)
    next(reading)
    for n in range(3, 200):
        log.append(0, batch_of(n, value=bytes(250_000)))
    assert Path(f"{path}-wal").stat().st_size < 2 * CHECKPOINT_BYTES
    assert [int(batch.sequence[0]) for batch in reading] == list(range(2, 200))


def test_a_read_that_is_dropped_holds_nothing(log: SqliteEventLog, path: Path, sql: Sql) -> None:
    for n in range(1, 5):
        log.append(0, batch_of(n))
    reading = log.read(0, 0, 10)
    next(reading)
    del reading
    assert sql("PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 0


def test_events_trimmed_during_a_read_are_not_returned(log: SqliteEventLog) -> None:
    for n in range(1, 5):
        log.append(0, batch_of(n))
    reading = log.read(0, 0, 10)
    assert list(next(reading).sequence) == [1]
    log.trim(0, 3)
    assert [int(batch.sequence[0]) for batch in reading] == [4]


def test_watermarks(log: SqliteEventLog) -> None:
    assert log.load_watermark("a", 0) is None
    log.save_watermark("a", 0, 10)
    log.save_watermark("a", 1, 20)
    log.save_watermark("ü", 0, 30)
    log.save_watermark("", 0, 0)
    assert [log.load_watermark("a", 0), log.load_watermark("a", 1)] == [10, 20]
    assert [log.load_watermark("ü", 0), log.load_watermark("", 0), log.load_watermark("b", 0)] == [30, 0, None]
    log.save_watermark("a", 0, 3)
    assert log.load_watermark("a", 0) == 3


@pytest.mark.parametrize("sequence", [-1, 2**63])
def test_a_watermark_out_of_range(log: SqliteEventLog, sequence: int) -> None:
    with pytest.raises(LogError, match=f"sequence {sequence}: SQLite stores numbers from 0"):
        log.save_watermark("a", 0, sequence)


def test_arguments_of_another_kind(log: SqliteEventLog, path: Path) -> None:
    with pytest.raises(TypeError):
        log.append("0", batch_of(1))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(LogError, match="core_id -1"):
        log.append(-1, batch_of(1))
    with pytest.raises(TypeError):
        log.read(0, 1.5, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="group b'a': must be a str"):
        log.save_watermark(b"a", 0, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="synchronous 'OFF'"):
        SqliteEventLog(path, synchronous="OFF")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="driver 'odbc'"):
        SqliteEventLog(path, driver="odbc")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_after_close(path: Path, driver: Driver) -> None:
    log = SqliteEventLog(path, driver=driver)
    log.append(0, batch_of(1))
    log.append(0, batch_of(2))
    reading = log.read(0, 0, 10)
    next(reading)
    log.close()
    log.close()
    assert log.closed
    calls: list[Callable[[], object]] = [
        lambda: log.append(0, batch_of(3)),
        lambda: log.append(0, batch_of()),
        lambda: log.read(0, 0, 1),
        lambda: next(reading),
        lambda: log.last_sequence(0),
        lambda: log.trim(0, 1),
        lambda: log.load_watermark("a", 0),
        lambda: log.save_watermark("a", 0, 1),
        log.__enter__,
    ]
    for call in calls:
        with pytest.raises(ClosedError, match="this log is closed; open a new SqliteEventLog"):
            call()


def in_child(work: Callable[[], None]) -> int:
    """The exit code of a forked child that ran `work`."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_in_a_forked_child(log: SqliteEventLog, path: Path, driver: Driver) -> None:
    log.append(0, batch_of(1))
    reading = log.read(0, 0, 10)

    def work() -> None:
        calls: list[Callable[[], object]] = [
            lambda: log.append(0, batch_of(2)),
            lambda: log.read(0, 0, 1),
            lambda: next(reading),
            lambda: log.last_sequence(0),
            lambda: log.trim(0, 1),
            lambda: log.load_watermark("a", 0),
            lambda: log.save_watermark("a", 0, 1),
        ]
        for call in calls:
            with pytest.raises(ForkError, match="inherited by fork"):
                call()
        log.close()

    # As another thread may hold it at that moment: nobody releases it in the child.
    assert log._calls.run(in_child, work) == 0  # pyright: ignore[reportPrivateUsage]
    log.append(0, batch_of(2))
    assert numbers(log) == [1, 2]


@pytest.mark.parametrize("end", ["del log", "pass"])
def test_a_forked_child_that_ends_takes_nothing_from_those_who_opened_the_file_since(
    path: Path, driver: Driver, end: str
) -> None:
    """What Python collects SQLite closes: the child would take itself for the last user, and delete the WAL."""
    script = f"""if True:
        import os, signal
        from nodedb_ring import EventBatch, WriteOp
        from nodedb_ring.log.sqlite import SqliteEventLog

        def batch(n):
            return EventBatch.from_columns(sequence=[n], lsn=[n], op=WriteOp.INSERT, collection="t", row_id="r")

        log = SqliteEventLog({str(path)!r}, driver={driver!r})
        log.append(0, batch(1))
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(write_end)
            os.read(read_end, 1)
            {end}
        else:
            log.close()
            writer = os.fork()
            if writer == 0:
                SqliteEventLog({str(path)!r}, driver={driver!r}).append(0, batch(2))
                os.kill(os.getpid(), signal.SIGKILL)
            os.waitpid(writer, 0)
            os.close(write_end)
            os.waitpid(child, 0)
            print(SqliteEventLog({str(path)!r}, driver={driver!r}).last_sequence(0))
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "2\n", done.stderr


def test_a_new_file_is_made_for_batches(log: SqliteEventLog, path: Path, sql: Sql) -> None:
    log.append(0, batch_of(1))
    assert sql("PRAGMA page_size") == [(32 * 1024,)]
    assert sql("PRAGMA journal_mode") == [("wal",)]
    tables = {str(name) for (name,) in sql("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables == LOG_TABLES


@pytest.mark.parametrize(("synchronous", "level"), [("NORMAL", 1), ("FULL", 2)])
def test_synchronous(path: Path, driver: Driver, synchronous: Literal["NORMAL", "FULL"], level: int) -> None:
    with SqliteEventLog(path, driver=driver, synchronous=synchronous) as log:
        log.append(0, batch_of(1))
        assert log._query("", "PRAGMA synchronous") == [(level,)]  # pyright: ignore[reportPrivateUsage]
        assert log.driver == driver
        assert log.path == str(path)


def test_a_database_with_tables_of_its_own_is_left_as_it_is(path: Path, driver: Driver, sql: Sql) -> None:
    sql("CREATE TABLE mine(x)")
    sql("INSERT INTO mine VALUES (42)")
    with SqliteEventLog(path, driver=driver) as log:
        log.append(0, batch_of(1, 2, value=bytes(100_000)))
        assert numbers(log) == [1, 2]
    assert sql("PRAGMA journal_mode") == [("delete",)]
    assert sql("PRAGMA page_size") == [(4096,)]
    assert sql("SELECT x FROM mine") == [(42,)]
    with SqliteEventLog(path, driver=driver) as log:
        assert numbers(log) == [1, 2]


def test_a_file_that_is_not_a_database(path: Path, driver: Driver) -> None:
    path.write_bytes(b"this is a text, and a long one at that\n" * 100)
    with pytest.raises(LogError, match=r"events\.db: the log was not opened: it is not a SQLite database; name"):
        SqliteEventLog(path, driver=driver)
    assert path.read_bytes().startswith(b"this is a text")


def test_a_directory_that_is_not_there(tmp_path: Path, driver: Driver) -> None:
    with pytest.raises(LogError, match=r"cannot be opened.*directory must exist"):
        SqliteEventLog(tmp_path / "none" / "events.db", driver=driver)


def test_a_log_of_another_version(path: Path, driver: Driver, sql: Sql) -> None:
    SqliteEventLog(path, driver=driver).close()
    sql("UPDATE nodedb_ring_log_version SET version = 2")
    with pytest.raises(LogError, match=r"events\.db: its log is of version 2, and this is version 1; open it with"):
        SqliteEventLog(path, driver=driver)


def test_a_table_of_something_else(path: Path, driver: Driver, sql: Sql) -> None:
    sql("CREATE TABLE nodedb_ring_log(message)")
    with pytest.raises(LogError, match=r"has tables nodedb_ring_log of something else; keep the log in another file"):
        SqliteEventLog(path, driver=driver)
    assert sql("SELECT name FROM sqlite_master") == [("nodedb_ring_log",)]


def test_the_statements_append_in_the_transaction_of_another(path: Path, driver: Driver) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(CREATE_TABLES)
    connection.execute("BEGIN")
    for statement, bindings in append_statements(3, batch_of(1, 2)):
        connection.execute(statement, bindings)
    connection.execute("ROLLBACK")
    connection.execute("BEGIN")
    for statement, bindings in append_statements(3, batch_of(1, 2, 3)):
        connection.execute(statement, bindings)
    connection.execute("COMMIT")
    [(statement, bindings)] = append_statements(3, batch_of(3, 4))
    with pytest.raises(sqlite3.IntegrityError, match=r"nodedb_ring_log\.first_sequence"):
        connection.execute(statement, bindings)
    connection.close()
    assert append_statements(3, batch_of()) == []
    with SqliteEventLog(path, driver=driver) as log:
        assert numbers(log, 3) == [1, 2, 3]


def test_a_full_disk_leaves_the_log_as_it_was(log: SqliteEventLog) -> None:
    log.append(0, batch_of(1))
    log._query("", "PRAGMA max_page_count = 12")  # pyright: ignore[reportPrivateUsage]
    appended = 1
    refused: OSError | None = None
    while refused is None:
        try:
            log.append(0, batch_of(appended + 1, value=bytes(60_000)))
            appended += 1
        except OSError as error:
            refused = error
    assert refused.errno == errno.ENOSPC
    assert "no space" in str(refused)
    assert refused.filename == log.path
    # Several rows: the first ones fit, and are undone.
    with pytest.raises(OSError, match="no space"):
        log.append(0, run_of(appended + 1, 3 * MAX_BATCH_EVENTS))
    assert numbers(log) == list(range(1, appended + 1))
    assert log.last_sequence(0) == appended
    log._query("", "PRAGMA max_page_count = 10000")  # pyright: ignore[reportPrivateUsage]
    log.append(0, run_of(appended + 1, 3 * MAX_BATCH_EVENTS))
    assert log.last_sequence(0) == appended + 3 * MAX_BATCH_EVENTS


def test_a_locked_database(log: SqliteEventLog, path: Path, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "BUSY_SECONDS", 0.05)
    with SqliteEventLog(path, driver=driver) as other:
        log._query("", "BEGIN IMMEDIATE")  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(LogError, match=r"another connection kept it locked for 0\.05 s"):
            other.append(0, batch_of(1))
        log._query("", "ROLLBACK")  # pyright: ignore[reportPrivateUsage]
        other.append(0, batch_of(1))


def refused_with(code: int, driver: Driver) -> Exception:
    """An error as the driver raises it for a result code of SQLite's."""
    if driver == "sqlite3":
        error: Exception = sqlite3.OperationalError("as SQLite says")
    else:
        import apsw

        error = apsw.Error("as SQLite says")
    error.sqlite_errorcode = error.extendedresult = code  # type: ignore[attr-defined]  # pyright: ignore
    return error


UNDONE: dict[str, tuple[Callable[[SqliteEventLog], object], str]] = {
    "append": (lambda log: log.append(0, batch_of(5, 6, 9)), "events 5 to 9 of core 0 were not appended"),
    "trim": (lambda log: log.trim(0, 4), "core 0 was not trimmed to 4, or only in part"),
    "save_watermark": (lambda log: log.save_watermark("g", 3, 8), "watermark 8 of group 'g', core 3, was not saved"),
    "load_watermark": (lambda log: log.load_watermark("g", 3), "watermark of group 'g', core 3, was not read"),
    "read": (lambda log: numbers(log, 2, 5, 9), "events 5 to 9 of core 2 were not read, or not all of them"),
    "last_sequence": (lambda log: log.last_sequence(2), "the last number of core 2 was not read"),
    "open": (lambda log: SqliteEventLog(log.path, driver=log.driver), "the log was not opened"),
}
CODES = {5: "locked", 10: "the event log: as", 11: "damaged", 13: "no space", 26: "name another file", 1: "as SQLite"}


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("call", UNDONE)
def test_an_error_says_what_was_not_done(
    log: SqliteEventLog, driver: Driver, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    log.append(0, batch_of(1, 2, 3, 4))
    work, undone = UNDONE[call]

    def refuse(*_: object) -> None:
        raise refused_with(code, driver)

    name = "query" if call in {"read", "load_watermark", "last_sequence", "open"} else "execute"
    monkeypatch.setattr(DRIVERS[driver], name, refuse)
    with pytest.raises((LogError, OSError)) as raised:
        work(log)
    assert undone in str(raised.value)
    assert CODES[code] in str(raised.value)
    assert log.path in str(raised.value)
    monkeypatch.undo()
    log.append(0, batch_of(5))
    assert numbers(log) == [1, 2, 3, 4, 5]


def test_threads_take_turns(log: SqliteEventLog) -> None:
    def work(core_id: int) -> None:
        for n in range(1, 51):
            log.append(core_id, batch_of(n))
            assert numbers(log, core_id) == list(range(1, n + 1))

    threads = [threading.Thread(target=work, args=(core_id,)) for core_id in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [log.last_sequence(core_id) for core_id in range(4)] == [50] * 4


APPENDER = """
import sys
from nodedb_ring import EventBatch, WriteEvent, WriteOp
from nodedb_ring.errors import LogConflictError
from nodedb_ring.log.sqlite import SqliteEventLog

path, driver, first, last, size = sys.argv[1:]
refused = 0
print("ready", flush=True)
sys.stdin.readline()
with SqliteEventLog(path, driver=driver) as log:
    for n in range(int(first), int(last)):
        value = bytes(int(size))
        event = WriteEvent(sequence=n, collection="t", op=WriteOp.INSERT, row_id=str(n), lsn=n, new_value=value)
        try:
            log.append(0, EventBatch.from_events([event]))
            if int(size):
                print(n, flush=True)
        except LogConflictError:
            refused += 1
print(refused)
"""


def appender(path: Path, driver: str, first: int, last: int, size: int = 0) -> subprocess.Popen[str]:
    """A process that appends numbers one by one, once a line is written to it."""
    arguments = [sys.executable, "-c", APPENDER, str(path), driver, str(first), str(last), str(size)]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_of_two_processes_that_append_the_same_number_one_does(path: Path, driver: Driver) -> None:
    """They also make the file at the same moment, with a library each."""
    count = 300
    processes = [appender(path, which, 1, count + 1) for which in (driver, "sqlite3")]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    refused = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    with SqliteEventLog(path, driver=driver) as log:
        there = numbers(log)
    assert there == list(range(1, count + 1))
    assert sum(refused) == count


def test_a_process_killed_while_it_appends_leaves_a_prefix(path: Path, driver: Driver) -> None:
    appended = 0
    for _ in range(3):
        with appender(path, driver, appended + 1, 10**6, size=20_000) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("go\n")
            process.stdin.flush()
            for _ in range(20):
                appended = int(process.stdout.readline())
            time.sleep(0.03)
            process.send_signal(signal.SIGKILL)
            # Not communicate(): it leaves out what readline() has read ahead.
            lines = process.stdout.read().splitlines(keepends=True)
        assert process.returncode == -signal.SIGKILL
        reported = [int(line) for line in lines if line.endswith("\n")]
        appended = reported[-1] if reported else appended
        with SqliteEventLog(path, driver=driver) as log:
            last = log.last_sequence(0)
            # It may have been killed between an append and saying so.
            assert last in {appended, appended + 1}
            appended = last or 0
            assert numbers(log) == list(range(1, appended + 1))


def test_it_may_be_used_beside_a_capture_of_the_same_library(path: Path) -> None:
    """Two connections of apsw's in one process, one with a transaction of the user's."""
    import apsw

    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE mine(x)")
    with SqliteEventLog(path, driver="apsw") as log:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO mine VALUES (1)")
        for statement, bindings in append_statements(0, batch_of(1, 2)):
            connection.execute(statement, bindings)
        assert numbers(log) == []
        connection.execute("COMMIT")
        assert numbers(log) == [1, 2]
        [(statement, bindings)] = append_statements(0, batch_of(2))
        with pytest.raises(apsw.ConstraintError):
            connection.execute(statement, bindings)
    connection.close()
