"""The log in a SQLite file, for those who run it: what it has, who reads it, trims, checks, backups, read-only."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from nodedb_ring import CorruptLogError, LogError, follow
from nodedb_ring.log.sqlite import CoreRange, SqliteEventLog
from nodedb_ring.log.sqlite.reserve import reserve_path

from .numbered import Driver, Sql, batch_of, numbers, run_of


def filled(log: SqliteEventLog, last: int = 100, core_id: int = 0) -> None:
    for first in range(1, last + 1, 10):
        log.append(core_id, run_of(first, 10))


def test_cores_and_groups(log: SqliteEventLog) -> None:
    assert log.cores() == []
    assert log.groups() == []
    filled(log)
    log.append(3, batch_of(5, 6))
    log.append(7, batch_of(1))
    log.trim(0, 50)
    log.trim(7, 1)
    found = {each.core_id: each for each in log.cores()}
    assert [each[:5] for each in found.values()] == [(0, 51, 100, 50, 5), (3, 5, 6, 2, 1), (7, None, 1, 0, 0)]
    assert found[7] == CoreRange(7, None, 1, 0, 0, 0)
    assert found[3].size > 2 * 128
    log.save_watermark("a", 0, 60)
    log.save_watermark("b", 0, 100)
    with follow(None, log, core_id=3, group="a") as follower:
        [one, two, three] = log.groups()
        assert one[:4] == ("a", 0, 60, 40)
        assert two[:4] == ("a", 3, None, 2)
        assert three[:4] == ("b", 0, 100, 0)
        assert one.holder is three.holder is None
        assert two.holder is not None
        assert f"process {os.getpid()} on " in two.holder
        follower.next_batch(0)
        follower.commit()
    assert log.groups()[1] == ("a", 3, 6, 0, None)


def test_what_all_groups_have_committed_is_trimmed(log: SqliteEventLog) -> None:
    for core_id in (0, 1, 2):
        filled(log, core_id=core_id)
    log.save_watermark("fast", 0, 90)
    log.save_watermark("slow", 0, 35)
    log.save_watermark("fast", 1, 90)
    # It has begun to follow core 1, and needs what is there.
    with follow(None, log, core_id=1, group="slow"):
        pass
    assert log.trim_committed() == {0: 35}
    assert [each.first_sequence for each in log.cores()] == [31, 1, 1]
    log.drop_group("slow")
    assert log.trim_committed() == {0: 90, 1: 90}
    assert [each.first_sequence for each in log.cores()] == [91, 91, 1]


def test_a_group_that_follows_is_not_dropped(log: SqliteEventLog) -> None:
    filled(log)
    log.save_watermark("a", 0, 60)
    with follow(None, log, core_id=0, group="a"), pytest.raises(LogError, match=r"core 0 is followed by process"):
        log.drop_group("a")
    assert log.load_watermark("a", 0) == 60
    log.drop_group("a")
    assert log.load_watermark("a", 0) is None
    assert log.groups() == []


def test_damage_is_found_wherever_it_is(log: SqliteEventLog, sql: Sql) -> None:
    filled(log)
    assert list(log.damage()) == [None] * 10
    sql("UPDATE nodedb_ring_log SET checksum = checksum + 1 WHERE first_sequence IN (11, 71)")
    said = [str(each) for each in log.damage() if each is not None]
    assert len(said) == 2
    assert "core 0, events 11 to 20: checksum" in said[0]
    assert "core 0, events 71 to 80: checksum" in said[1]


DAMAGE = {
    "size": "rows = zeroblob(5)",
    "type": "payload = 'text'",
    "count": "count = count + 1",
    "checksum": "checksum = checksum + 1",
    "payload": "payload = zeroblob(length(payload))",
    "rows": "rows = zeroblob(length(rows))",
    "last": "last_sequence = last_sequence + 1",
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("max_events", [1, 25, 1000])
def test_what_is_intact_comes_before_damage(log: SqliteEventLog, sql: Sql, max_events: int, damage: str) -> None:
    filled(log)
    sql(f"UPDATE nodedb_ring_log SET {DAMAGE[damage]} WHERE first_sequence = 61")
    reading = log.read_joined(0, 3, 95, max_events)
    found: list[int] = []
    while len(found) < 58:
        each = next(reading)
        assert len(each) <= max_events
        found += [int(number) for number in each.sequence]
    assert found == list(range(3, 61))
    with pytest.raises(CorruptLogError, match=r"core 0, events 61 to 7[01]: "):
        next(reading)


@pytest.mark.parametrize("max_events", [1, 7, 10, 64, 1000])
def test_joined_batches_have_the_size_that_was_asked_for(log: SqliteEventLog, max_events: int) -> None:
    filled(log)
    log.append(0, batch_of(200, 300, value=bytes(5000)))
    batches = list(log.read_joined(0, 5, 250, max_events))
    assert [int(number) for each in batches for number in each.sequence] == [*range(5, 101), 200]
    assert all(len(each) == max_events for each in batches[:-1])
    [whole] = log.read_joined(0, 0, 1000, 1000)
    assert list(whole) == [each for stored in log.read(0, 0, 1000) for each in stored]


def test_a_backup_is_a_log_with_the_same_history(log: SqliteEventLog, tmp_path: Path, driver: Driver) -> None:
    filled(log)
    log.save_watermark("g", 0, 60)
    token = log.token(0, 95)
    log.backup(tmp_path / "copy.db")
    log.append(0, run_of(101, 10))
    with SqliteEventLog(tmp_path / "copy.db", driver=driver) as copy:
        assert (numbers(copy), copy.log_id) == (list(range(1, 101)), log.log_id)
        assert copy.sequence_of(0, token) == 95
        assert copy.load_watermark("g", 0) == 60
        assert list(copy.damage()) == [None] * 10
    assert [each.name for each in tmp_path.glob("*unfinished*")] == []
    with pytest.raises(FileExistsError, match=r"copy\.db: is there already"):
        log.backup(tmp_path / "copy.db")


def test_a_backup_while_others_append_is_a_prefix(
    log: SqliteEventLog, tmp_path: Path, driver: Driver, path: Path
) -> None:
    filled(log, 1000)
    stop = threading.Event()

    def append() -> None:
        with SqliteEventLog(path, driver=driver) as other:
            first = 1001
            while not stop.is_set():
                other.append(0, run_of(first, 10))
                first += 10

    writer = threading.Thread(target=append)
    writer.start()
    try:
        for number in range(5):
            log.backup(tmp_path / f"copy{number}.db")
    finally:
        stop.set()
        writer.join()
    for number in range(5):
        with SqliteEventLog(tmp_path / f"copy{number}.db", driver=driver, read_only=True) as copy:
            found = numbers(copy)
            assert found == list(range(1, len(found) + 1))
            assert len(found) >= 1000


def test_a_read_only_log_is_read_while_others_append(log: SqliteEventLog, path: Path, driver: Driver) -> None:
    filled(log)
    with SqliteEventLog(path, driver=driver, read_only=True) as reader:
        assert reader.read_only
        assert numbers(reader) == list(range(1, 101))
        log.append(0, batch_of(101))
        assert reader.last_sequence(0) == 101
        refused: list[Callable[[], None]] = [
            lambda: reader.append(0, batch_of(102)),
            lambda: reader.trim(0, 50),
            lambda: reader.save_watermark("g", 0, 1),
        ]
        for call in refused:
            with pytest.raises(LogError, match="it is read-only; open it without read_only=True"):
                call()
    assert numbers(log) == list(range(1, 102))


def test_a_file_without_a_log_is_not_made_or_changed(tmp_path: Path, path: Path, driver: Driver, sql: Sql) -> None:
    with pytest.raises(LogError, match=r"cannot be opened|unable to open"):
        SqliteEventLog(tmp_path / "none.db", driver=driver, read_only=True)
    assert not list(tmp_path.iterdir())
    sql("CREATE TABLE mine(x)")
    with pytest.raises(LogError, match="has no log; whoever appends makes it"):
        SqliteEventLog(path, driver=driver, read_only=True)
    assert sql("SELECT name FROM sqlite_master") == [("mine",)]


def test_an_event_of_128_bytes_does_not_write_66_kib(log: SqliteEventLog, path: Path) -> None:
    for number in range(1, 4):
        log.append(0, batch_of(number, value=bytes(128)))
    before = os.path.getsize(f"{path}-wal")
    log.append(0, batch_of(4, value=bytes(128)))
    assert os.path.getsize(f"{path}-wal") - before < 17 * 1024


def test_the_reserve_is_made_with_a_log_of_its_own_alone(path: Path, tmp_path: Path, driver: Driver, sql: Sql) -> None:
    sql("CREATE TABLE mine(x)")
    with SqliteEventLog(path, driver=driver) as log:
        log.append(0, batch_of(1))
    assert not Path(reserve_path(str(path))).exists()
    other = tmp_path / "alone.db"
    with SqliteEventLog(other, driver=driver) as log:
        # A capture would make its tables now.
        assert not Path(reserve_path(str(other))).exists()
        log.append(0, batch_of(1))
    assert Path(reserve_path(str(other))).stat().st_blocks * 512 >= 5 * 1024 * 1024
    shutil.rmtree(tmp_path)
