"""The log in a SQLite file: append, read, watermarks and close, with both drivers."""

# apsw's stubs name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Literal

import pytest

from nodedb_ring import EventBatch, create_event_bus
from nodedb_ring.errors import ArgumentError, ClosedError, LogConflictError, LogError
from nodedb_ring.log import MAX_BATCH_EVENTS, EventLog
from nodedb_ring.log.sqlite import CREATE_TABLES, LOG_TABLES, SqliteEventLog, append, append_statements, event_log
from nodedb_ring.log.sqlite.drivers import Bindings

from .numbered import Driver, Sql, batch_of, calls_of, event, numbers, run_of


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


def test_watermarks(log: SqliteEventLog) -> None:
    assert log.load_watermark("a", 0) is None
    log.save_watermark("a", 0, 10)
    log.save_watermark("a", 1, 20)
    log.save_watermark("ü", 0, 30)
    log.save_watermark("", 0, 0)
    assert [log.load_watermark("a", 0), log.load_watermark("a", 1)] == [10, 20]
    assert [log.load_watermark("ü", 0), log.load_watermark("", 0), log.load_watermark("b", 0)] == [30, 0, None]
    with pytest.raises(LogError, match=r"watermark 3 of group 'a', core 0, was not saved: it stands at 10"):
        log.save_watermark("a", 0, 3)
    assert log.load_watermark("a", 0) == 10
    log.save_watermark("a", 0, 3, rewind=True)
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
    for call in [*calls_of(log, reading), lambda: log.append(0, batch_of()), log.__enter__]:
        with pytest.raises(ClosedError, match="this log is closed; open a new SqliteEventLog"):
            call()


def test_a_new_file_is_made_for_batches(log: SqliteEventLog, path: Path, sql: Sql) -> None:
    log.append(0, batch_of(1))
    assert sql("PRAGMA page_size") == [(8 * 1024,)]
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
