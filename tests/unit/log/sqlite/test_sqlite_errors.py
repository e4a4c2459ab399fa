"""The log in a SQLite file: damage, files of something else, full disks and locks, each named."""

# apsw's stubs name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from nodedb_ring.errors import CorruptLogError, LogError
from nodedb_ring.log import MAX_BATCH_EVENTS
from nodedb_ring.log.sqlite import PAGE_BYTES, SqliteEventLog, event_log
from nodedb_ring.log.sqlite.drivers import DRIVERS

from .numbered import Driver, Sql, batch_of, numbers, run_of

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
    sql("UPDATE nodedb_ring_log_version SET version = 3")
    with pytest.raises(LogError, match=r"events\.db: its log is of version 3, and this is version 2; open it with"):
        SqliteEventLog(path, driver=driver)


def test_a_table_of_something_else(path: Path, driver: Driver, sql: Sql) -> None:
    sql("CREATE TABLE nodedb_ring_log(message)")
    with pytest.raises(LogError, match=r"has tables nodedb_ring_log of something else; keep the log in another file"):
        SqliteEventLog(path, driver=driver)
    assert sql("SELECT name FROM sqlite_master") == [("nodedb_ring_log",)]


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
