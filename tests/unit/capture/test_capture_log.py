"""SqliteCapture with a log: the database, its log and the ring agree, however a transaction or a process ends.

Every test reads the log through apsw, as a process with a capture must.
"""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import apsw
import msgpack
import numpy as np
import pytest

from nodedb_ring import (
    EventBatch,
    EventBus,
    OwnershipError,
    WriteEvent,
    WriteOp,
    create_event_bus,
    follow,
)
from nodedb_ring.capture import CaptureError, SqliteCapture
from nodedb_ring.log.sqlite import LOG_TABLES, SqliteEventLog
from tests.unit.runners import in_thread

from .test_capture import Core, drained, inserted, open_database


class LoggedCore(Core):
    """A captured database with a log in it."""

    def __init__(self, connection: apsw.Connection, *, capacity: int = 1024, arena_bytes: int | None = None) -> None:
        super().__init__(connection, capacity=capacity, arena_bytes=arena_bytes)
        self.log = SqliteEventLog(connection.filename, driver="apsw")

    def start(self, **options: Any) -> LoggedCore:
        super().start(log=self.log, **options)
        return self

    def logged(self) -> list[WriteEvent]:
        return all_logged(self.log)

    def log_rows(self) -> list[tuple[object, ...]]:
        """First number, last number and count of each row of the log, as another connection sees them."""
        query = "SELECT first_sequence, last_sequence, count FROM nodedb_ring_log ORDER BY first_sequence"
        other = apsw.Connection(self.connection.filename)
        found = [tuple(values) for values in other.execute(query)]
        other.close()
        return found


def all_logged(log: SqliteEventLog, core_id: int = 0) -> list[WriteEvent]:
    return [event for batch in log.read(core_id, 0, 2**63 - 1) for event in batch]


def numbers(events: list[WriteEvent]) -> list[int]:
    return [event.sequence for event in events]


FILE_JOURNALS = ["delete", "wal"]


def logged_core(
    journal: str, folder: Path, *, capacity: int = 1024, arena_bytes: int | None = None, **options: Any
) -> LoggedCore:
    connection = open_database(journal, folder)
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE)")
    return LoggedCore(connection, capacity=capacity, arena_bytes=arena_bytes).start(**options)


@pytest.fixture(params=FILE_JOURNALS)
def core(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LoggedCore]:
    made = logged_core(request.param, tmp_path)
    assert list(made.connection.execute("PRAGMA journal_mode")) == [(request.param,)]
    yield made
    made.connection.close()
    made.log.close()


# The log has what the ring got.


def test_each_transaction_is_one_row_of_the_log(core: LoggedCore) -> None:
    core.sql("INSERT INTO t VALUES (1, 'x')")
    core.sql("BEGIN; UPDATE t SET b = 'y'; INSERT INTO t VALUES (2, NULL), (3, 'z'); DELETE FROM t WHERE a = 1; COMMIT")
    core.sql("SAVEPOINT outermost; INSERT INTO t VALUES (4, X'00ff'); SAVEPOINT inner; UPDATE t SET a = 5 WHERE a = 4")
    core.sql("RELEASE outermost")
    core.sql("INSERT INTO t VALUES (6, 6) RETURNING a")
    events = core.events()
    assert core.logged() == events
    assert numbers(events) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert [event.lsn for event in events] == [1, 2, 2, 2, 2, 3, 3, 3, 4]
    assert core.log_rows() == [(1, 1, 1), (2, 5, 4), (6, 8, 3), (9, 9, 1)]
    assert core.log.last_sequence(0) == 9


def test_the_log_has_the_events_before_the_ring(core: LoggedCore) -> None:
    """An exception of the producer comes after the commit: what was not emitted is in the log."""
    core.producer.close()
    with pytest.raises(ValueError, match="closed"):
        core.sql("INSERT INTO t VALUES (1, 1), (2, 2)")
    assert core.rows("SELECT a FROM t") == [1, 2]
    assert (core.events(), numbers(core.logged()), core.capture.dropped) == ([], [1, 2], 2)


@pytest.mark.parametrize(
    "statements",
    [
        "BEGIN; INSERT INTO t VALUES (1, 1); ROLLBACK",
        "SAVEPOINT s; INSERT INTO t VALUES (1, 1); ROLLBACK TO s; RELEASE s",
        "BEGIN; SAVEPOINT s; INSERT INTO t VALUES (1, 1); ROLLBACK TO s; COMMIT",
        "BEGIN; COMMIT",
        "CREATE TABLE u(x)",
        "UPDATE t SET b = 1",
    ],
)
def test_statements_without_a_change_are_not_in_the_log(core: LoggedCore, statements: str) -> None:
    core.sql(statements)
    assert (core.events(), core.logged(), core.log.last_sequence(0)) == ([], [], None)
    core.sql("INSERT INTO t VALUES (7, 7)")
    assert numbers(core.logged()) == numbers(core.events()) == [1]  # no number was used up


def test_a_partial_rollback(core: LoggedCore) -> None:
    core.sql("BEGIN; INSERT INTO t VALUES (1, 1); SAVEPOINT s; INSERT INTO t VALUES (2, 2), (3, 3); ROLLBACK TO s")
    core.sql("INSERT INTO t VALUES (4, 4); COMMIT")
    logged = core.logged()
    assert core.changes() == [inserted("t", "1", a=1, b=1), inserted("t", "4", a=4, b=4)]
    assert [(event.sequence, event.row_id) for event in logged] == [(1, "1"), (2, "4")]


@pytest.mark.parametrize(("conflict", "kept"), [("ABORT", []), ("ROLLBACK", []), ("FAIL", ["1"])])
def test_a_statement_that_fails(core: LoggedCore, conflict: str, kept: list[str]) -> None:
    with pytest.raises(apsw.ConstraintError):
        core.sql(f"INSERT OR {conflict} INTO t VALUES (1, 1), (2, 1)")
    events = core.events()
    assert core.logged() == events
    assert [event.row_id for event in events] == kept


def test_a_deferred_foreign_key(core: LoggedCore) -> None:
    core.sql("CREATE TABLE child(p REFERENCES t(a) DEFERRABLE INITIALLY DEFERRED)")
    core.sql("BEGIN; INSERT INTO child VALUES (1)")
    with pytest.raises(apsw.ConstraintError):
        core.sql("COMMIT")
    assert core.log_rows() == []
    core.sql("INSERT INTO t VALUES (1, 1); COMMIT")
    assert core.logged() == core.events() != []


def test_a_commit_hook_that_refuses(core: LoggedCore) -> None:
    core.connection.set_commit_hook(lambda: True)
    with pytest.raises(apsw.ConstraintError):
        core.sql("INSERT INTO t VALUES (1, 1)")
    core.connection.set_commit_hook(None)
    assert (core.rows("SELECT a FROM t"), core.logged(), core.events()) == ([], [], [])
    core.sql("INSERT INTO t VALUES (2, 2)")
    assert numbers(core.logged()) == numbers(core.events()) == [1]


def test_a_refused_change_is_in_neither(core: LoggedCore) -> None:
    core.sql("BEGIN; INSERT INTO t VALUES (1, 1)")
    with pytest.raises(CaptureError):
        core.sql("INSERT INTO t VALUES (2, CAST(X'ff' AS TEXT))")
    with pytest.raises(CaptureError, match=r"cannot be committed.*table t, row 2"):
        core.sql("COMMIT")
    assert not core.connection.in_transaction
    assert (core.rows("SELECT a FROM t"), core.logged(), core.events()) == ([], [], [])


def test_a_log_that_cannot_be_written_stops_the_commit(core: LoggedCore) -> None:
    core.sql("DROP TABLE nodedb_ring_log")
    with pytest.raises(apsw.SQLError, match="nodedb_ring_log"):
        core.sql("INSERT INTO t VALUES (1, 1)")
    assert (core.rows("SELECT a FROM t"), core.events(), core.capture.lsn) == ([], [], 0)


def test_a_full_disk(core: LoggedCore) -> None:
    [pages] = core.rows("PRAGMA page_count")
    core.sql(f"PRAGMA max_page_count = {pages!r}")
    core.sql("BEGIN; INSERT INTO t VALUES (1, 1)")
    # The one row fits into its page whatever it is, but what was done to it does not fit into the log.
    for number in range(100):
        core.sql("UPDATE t SET b = ?", number)
    with pytest.raises(apsw.FullError):
        core.sql("COMMIT")
    core.sql("PRAGMA max_page_count = 100000")
    assert (core.rows("SELECT a FROM t"), core.logged(), core.events()) == ([], [], [])
    core.sql("INSERT INTO t VALUES (2, 2)")
    assert numbers(core.logged()) == numbers(core.events()) == [1]


# A commit that is repeated.


def blocked(core: LoggedCore) -> apsw.Cursor:
    """Another connection in the middle of a read: with a rollback journal nobody can commit."""
    reader = apsw.Connection(core.connection.filename)
    cursor = reader.execute("SELECT a FROM t UNION ALL SELECT 0 UNION ALL SELECT 0")
    next(cursor)
    with pytest.raises(apsw.BusyError):
        core.sql("COMMIT")
    assert core.connection.in_transaction
    return cursor


@pytest.mark.parametrize(
    ("meanwhile", "expected"),
    [
        ("", ["1", "2"]),
        ("INSERT INTO t VALUES (3, 3)", ["1", "2", "3"]),
        ("SAVEPOINT s; INSERT INTO t VALUES (3, 3); ROLLBACK TO s", ["1", "2"]),
        ("ROLLBACK TO early", ["1"]),
        ("ROLLBACK TO early; INSERT INTO t VALUES (3, 3)", ["1", "3"]),
    ],
)
def test_a_commit_that_found_the_database_busy(tmp_path: Path, meanwhile: str, expected: list[str]) -> None:
    core = logged_core("delete", tmp_path)
    core.sql("BEGIN; INSERT INTO t VALUES (1, 1); SAVEPOINT early; INSERT INTO t VALUES (2, 2)")
    cursor = blocked(core)
    core.sql(meanwhile)
    with pytest.raises(apsw.BusyError):
        core.sql("COMMIT")
    cursor.close()
    assert core.events() == []
    core.sql("COMMIT")
    events = core.events()
    assert core.logged() == events
    assert [event.row_id for event in events] == expected
    assert core.log_rows() == [(1, len(expected), len(expected))]


@pytest.mark.parametrize("end", ["ROLLBACK", "ROLLBACK TO first; COMMIT"])
def test_a_commit_that_found_the_database_busy_and_is_given_up(tmp_path: Path, end: str) -> None:
    core = logged_core("delete", tmp_path)
    core.sql("BEGIN; SAVEPOINT first; INSERT INTO t VALUES (1, 1)")
    blocked(core).close()
    core.sql(end)
    assert (core.logged(), core.events(), core.log_rows()) == ([], [], [])
    core.sql("INSERT INTO t VALUES (2, 2)")
    assert core.log_rows() == [(1, 1, 1)]
    assert core.logged() == core.events()


def test_a_statement_of_its_own_that_found_the_database_busy(tmp_path: Path) -> None:
    core = logged_core("delete", tmp_path)
    reader = apsw.Connection(core.connection.filename)
    cursor = reader.execute("SELECT a FROM t UNION ALL SELECT 0 UNION ALL SELECT 0")
    next(cursor)
    with pytest.raises(apsw.BusyError):
        core.sql("INSERT INTO t VALUES (1, 1)")
    cursor.close()
    assert (core.logged(), core.events()) == ([], [])
    core.sql("INSERT INTO t VALUES (2, 2)")
    assert core.logged() == core.events()
    assert core.log_rows() == [(1, 1, 1)]


class LateWriter:
    """A virtual table that changes a captured row while the transaction commits."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.value = 0
        self.table = "later"

    def Connect(self, *_: object) -> tuple[str, LateWriter]:
        return "CREATE TABLE x(unused)", self

    def BestIndex(self, *_: object) -> None:
        return None

    def Disconnect(self) -> None:
        pass

    def Begin(self) -> None:
        pass

    def Sync(self) -> None:
        if self.value:
            self._connection.execute(f"INSERT INTO {self.table} VALUES (?, NULL)", (self.value,))


def test_rows_that_another_virtual_table_writes_in_the_commit(core: LoggedCore) -> None:
    writer = LateWriter(core.connection)
    core.connection.create_module("late", cast("apsw.VTModule", writer), iVersion=2, eponymous_only=True)
    core.sql("CREATE TABLE later(a INTEGER PRIMARY KEY, b)")
    writer.value = 10
    # It joins before the capture does, and is called first: its row belongs to the transaction.
    core.sql("BEGIN; DELETE FROM late WHERE 0; INSERT INTO t VALUES (1, 1); COMMIT")
    events = core.events()
    assert core.logged() == events
    assert [event.row_id for event in events] == ["1", "10"]
    # It joins after the capture: its row would be in the ring and not in the log.
    writer.value = 11
    with pytest.raises(CaptureError, match="rows were changed after its events went into the log"):
        core.sql("BEGIN; INSERT INTO t VALUES (2, 2); DELETE FROM late WHERE 0; COMMIT")
    assert core.rows("SELECT a FROM t UNION ALL SELECT a FROM later") == [1, 10]
    assert (len(core.logged()), core.events()) == (2, [])


def test_another_virtual_table_cannot_write_a_captured_table_in_the_commit(core: LoggedCore) -> None:
    """As documented: SQLite lets no statement begin a virtual table then, and ours is in each on a captured table."""
    writer = LateWriter(core.connection)
    core.connection.create_module("late", cast("apsw.VTModule", writer), iVersion=2, eponymous_only=True)
    writer.value, writer.table = 10, "t"
    with pytest.raises(apsw.LockedError):
        core.sql("BEGIN; DELETE FROM late WHERE 0; INSERT INTO t VALUES (1, 1); COMMIT")
    assert (core.rows("SELECT a FROM t"), core.logged(), core.events()) == ([], [], [])


# What the ring does not take.


def test_a_full_ring(tmp_path: Path) -> None:
    core = logged_core("wal", tmp_path, capacity=4)
    core.sql("BEGIN")
    for a in range(1, 101):
        core.sql("INSERT INTO t VALUES (?, ?)", a, f"row {a}")
    core.sql("COMMIT; INSERT INTO t VALUES (101, 101)")
    assert (core.capture.emitted, core.capture.dropped) == (4, 97)
    events, logged = core.events(), core.logged()
    assert numbers(events) == [1, 2, 3, 4]
    assert events == logged[:4]
    assert numbers(logged) == list(range(1, 102))
    assert [event.row_id for event in logged] == [str(a) for a in range(1, 102)]


def test_more_events_than_a_row_of_the_log_holds(tmp_path: Path) -> None:
    core = logged_core("wal", tmp_path, capacity=4)
    core.sql("CREATE TABLE n(a)")
    core.sql(
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 70000) INSERT INTO n SELECT x FROM c"
    )
    found = np.concatenate([batch.sequence for batch in core.log.read(0, 0, 2**63 - 1)])
    assert np.array_equal(found, np.arange(1, 70_001, dtype=np.uint64))
    assert len(core.log_rows()) == 2


def test_a_row_larger_than_the_arena(tmp_path: Path) -> None:
    core = logged_core("wal", tmp_path, capacity=64, arena_bytes=4096)
    core.sql("INSERT INTO t VALUES (1, 1), (2, zeroblob(10000)), (3, 3)")
    core.sql("INSERT INTO t VALUES (4, 4), (5, zeroblob(10001))")
    core.sql("INSERT INTO t VALUES (6, 6)")
    events, logged = core.events(), core.logged()
    assert [(event.sequence, event.op) for event in events] == [
        (1, WriteOp.INSERT),
        (3, WriteOp.INSERT),
        (4, WriteOp.INSERT),
        (6, WriteOp.HEARTBEAT),  # shows that 5 is missing, and is a number of the log's too
        (7, WriteOp.INSERT),
    ]
    assert numbers(logged) == [1, 2, 3, 4, 5, 6, 7]
    assert [event for event in logged if event.sequence not in (2, 5)] == events
    assert [event.row_id for event in logged if event.sequence in (2, 5)] == ["2", "5"]


def test_a_commit_from_a_thread_that_does_not_own_the_producer(core: LoggedCore) -> None:
    core.sql("INSERT INTO t VALUES (1, 1)")
    with pytest.raises(OwnershipError) as raised:
        in_thread(lambda: core.sql("INSERT INTO t VALUES (2, 2), (3, 3)"))
    assert raised.type is OwnershipError
    core.sql("INSERT INTO t VALUES (4, 4)")
    assert (numbers(core.events()), numbers(core.logged())) == ([1, 4], [1, 2, 3, 4])


def test_a_follower_gets_what_the_ring_dropped(tmp_path: Path) -> None:
    core = logged_core("wal", tmp_path, capacity=4, arena_bytes=4096)
    with follow(core.consumer, core.log, group="g") as follower:
        followed: list[WriteEvent] = []
        for a in range(1, 30):
            core.sql("INSERT INTO t VALUES (?, ?), (?, zeroblob(? * 5000))", a, a, a + 100, a)
            core.sql("BEGIN; UPDATE t SET b = NULL WHERE a <= ?; COMMIT", a)
            if a % 5 == 0:
                followed += [event for batch in [follower.next_batch(0.0)] for event in batch]
        core.producer.close()
        followed += [event for batch in follower for event in batch]
    assert core.capture.dropped > 100
    assert followed == [event for event in core.logged() if event.op is not WriteOp.HEARTBEAT]


# Numbers.


def heartbeat(sequence: int) -> WriteEvent:
    return WriteEvent(sequence=sequence, collection="", op=WriteOp.HEARTBEAT, row_id="", lsn=0)


def test_numbers_lie_above_the_logs_and_the_rings(core: LoggedCore) -> None:
    core.log.append(0, EventBatch.from_events([heartbeat(40)]))
    core.sql("INSERT INTO t VALUES (1, 1)")
    core.producer.emit(heartbeat(99))
    core.sql("INSERT INTO t VALUES (2, 2)")
    core.log.append(0, EventBatch.from_events([heartbeat(200)]))
    core.sql("INSERT INTO t VALUES (3, 3)")
    assert numbers(core.events()) == [41, 99, 100, 201]
    assert numbers(core.logged()) == [40, 41, 100, 200, 201]


def test_numbers_continue_after_a_restart_and_a_trim(core: LoggedCore) -> None:
    core.sql("INSERT INTO t VALUES (1, 1), (2, 2)")
    core.capture.close()
    [producer], [consumer] = create_event_bus(1)
    with SqliteCapture(core.connection, producer, log=core.log) as second:
        core.sql("INSERT INTO t VALUES (3, 3)")
        assert [(event.sequence, event.lsn) for event in drained(consumer)] == [(3, 2)]
        assert second.lsn == 2
    core.log.trim(0, 3)
    with SqliteCapture(core.connection, producer, log=core.log, first_lsn=10):
        core.sql("INSERT INTO t VALUES (4, 4)")
    assert [(event.sequence, event.lsn) for event in all_logged(core.log)] == [(4, 10)]


def test_two_cores_in_one_database(core: LoggedCore) -> None:
    """Two captures of one connection, each with its tables and its ring."""
    core.sql("CREATE TABLE u(x)")
    core.capture.close()
    core.start(tables=["t"])
    [_, producer], [_, consumer] = create_event_bus(2)
    with SqliteCapture(core.connection, producer, tables=["u"], log=core.log):
        core.sql("BEGIN; INSERT INTO u VALUES (1); INSERT INTO t VALUES (1, 1); INSERT INTO u VALUES (2); COMMIT")
    assert all_logged(core.log, 1) == drained(consumer)
    assert core.logged() == core.events()
    assert [numbers(all_logged(core.log, core_id)) for core_id in (0, 1)] == [[1], [1, 2]]


# A process that dies between the commit and the ring.

CHILD = """
    import os, signal, sys
    import apsw
    from nodedb_ring import EventBus
    from nodedb_ring.capture import SqliteCapture
    from nodedb_ring.log.sqlite import SqliteEventLog

    database, bus, directory, emitted = sys.argv[1:]

    class DyingProducer:
        \"\"\"Takes so many events; the next one kills.\"\"\"

        def __init__(self, producer, emitted):
            self.left = emitted
            self.producer = producer
            self.ring = producer.ring
            self.core_id = producer.core_id

        @property
        def next_sequence(self):
            return self.producer.next_sequence

        def emit(self, event):
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
            return self.producer.emit(event)

    connection = apsw.Connection(database)
    producer = DyingProducer(EventBus.open(bus, directory=directory).producer(0), int(emitted))
    capture = SqliteCapture(connection, producer, log=SqliteEventLog(database, driver="apsw"))
    connection.execute("INSERT INTO t VALUES (1, 1)")
    connection.execute("BEGIN; INSERT INTO t VALUES (2, 2); INSERT INTO t VALUES (3, 3); COMMIT")
"""


@pytest.mark.parametrize("emitted", [0, 1, 2])
@pytest.mark.parametrize("journal", FILE_JOURNALS)
def test_a_process_killed_between_commit_and_emit(journal: str, emitted: int, tmp_path: Path) -> None:
    connection = open_database(journal, tmp_path)
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE)")
    connection.close()
    path = tmp_path / "core.db"
    with EventBus.create("killed", 1, 16, directory=tmp_path) as bus:
        consumer = bus.consumer(0)
        command = [sys.executable, "-c", textwrap.dedent(CHILD), str(path), "killed", str(tmp_path), str(emitted)]
        died = subprocess.run(command, check=False, timeout=40)
        assert died.returncode == -signal.SIGKILL
        committed = 1 if emitted == 0 else 3  # the first transaction is of one row
        connection = apsw.Connection(str(path))
        log = SqliteEventLog(path, driver="apsw")
        assert [a for (a,) in connection.execute("SELECT a FROM t")] == list(range(1, committed + 1))
        logged = all_logged(log)
        assert [(event.sequence, event.row_id) for event in logged] == [(a, str(a)) for a in range(1, committed + 1)]
        assert drained(consumer) == logged[:emitted]
        # The successor's numbers are not those that only the log has.
        producer = bus.producer(0)
        with SqliteCapture(connection, producer, log=log):
            connection.execute("INSERT INTO t VALUES (10, 10)")
        [event] = drained(consumer)
        assert (event.sequence, event.lsn, event.row_id) == (committed + 1, logged[-1].lsn + 1, "10")
        assert all_logged(log) == [*logged, event]
        producer.close()
        consumer.close()
        connection.close()
        log.close()
        bus.unlink()


WRITER = """
    import random, sys
    import apsw
    from nodedb_ring import create_event_bus
    from nodedb_ring.capture import SqliteCapture
    from nodedb_ring.log.sqlite import SqliteEventLog

    database, seed = sys.argv[1:]
    chance = random.Random(int(seed))
    connection = apsw.Connection(database)
    connection.set_busy_timeout(10_000)
    [producer], [consumer] = create_event_bus(1, capacity=16)
    capture = SqliteCapture(connection, producer, log=SqliteEventLog(database, driver="apsw"))
    committed = False
    while True:
        connection.execute("BEGIN IMMEDIATE")
        for _ in range(chance.randrange(1, 30)):
            a = chance.randrange(1, 100)
            connection.execute("SAVEPOINT s")
            if chance.random() < 0.3:
                connection.execute("DELETE FROM t WHERE a = ?", (a,))
            else:
                connection.execute("INSERT OR REPLACE INTO t VALUES (?, ?)", (a, chance.randrange(1000)))
            connection.execute("ROLLBACK TO s" if chance.random() < 0.2 else "RELEASE s")
        connection.execute("ROLLBACK" if chance.random() < 0.1 else "COMMIT")
        if not committed and capture.emitted:
            committed = True
            print("committed", flush=True)
"""


@pytest.mark.parametrize("journal", FILE_JOURNALS)
def test_a_process_killed_anywhere(journal: str, tmp_path: Path) -> None:
    """Whenever it dies, the log has the rows of the database, from the first to the last, with every number."""
    connection = open_database(journal, tmp_path)
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE)")
    connection.close()
    path = tmp_path / "core.db"
    chance = random.Random(journal)
    lengths = [0]
    for life in range(4):
        command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path), str(life)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"committed\n"
            time.sleep(chance.uniform(0.0, 0.2))
            writer.kill()
        connection = apsw.Connection(str(path))
        with SqliteEventLog(path, driver="apsw") as log:
            logged = all_logged(log)
        rows: dict[str, Any] = {}
        for event in logged:
            if event.new_value is None:
                del rows[event.row_id]
            else:
                assert (event.op is WriteOp.INSERT) == (event.row_id not in rows)
                rows[event.row_id] = msgpack.unpackb(event.new_value)["b"]
        assert rows == {str(a): b for a, b in connection.execute("SELECT a, b FROM t")}
        assert numbers(logged) == list(range(1, len(logged) + 1))
        connection.close()
        lengths.append(len(logged))
    assert all(later > earlier for earlier, later in itertools.pairwise(lengths))


# The connection and its database.


def test_the_logs_tables_are_not_captured(core: LoggedCore) -> None:
    [producer], [consumer] = create_event_bus(1)
    with SqliteCapture(core.connection, producer):  # it has no log, and sees how the other's is written
        core.sql("INSERT INTO t VALUES (1, 1)")
        core.sql("INSERT INTO nodedb_ring_watermark VALUES ('g', 0, 1)")
        assert [event.collection for event in drained(consumer)] == ["t"]
    for name in sorted(LOG_TABLES):
        with pytest.raises(CaptureError, match=f"table '{name.upper()}': it is a table of the event log"):
            SqliteCapture(core.connection, producer, tables=[name.upper()])


def test_the_applications_counters(core: LoggedCore) -> None:
    core.sql("INSERT INTO t VALUES (77, 1)")
    assert (core.connection.last_insert_rowid(), core.connection.changes()) == (77, 1)
    core.sql("INSERT INTO t VALUES (78, 2)")
    core.sql("UPDATE t SET b = b + 10")
    assert (core.connection.last_insert_rowid(), core.connection.changes()) == (78, 2)
    # As documented: what a COMMIT changes is the log.
    core.sql("BEGIN; DELETE FROM t; COMMIT")
    assert (core.connection.last_insert_rowid(), core.connection.changes()) == (78, 1)


def test_the_applications_tracers_do_not_see_the_log(core: LoggedCore) -> None:
    reported: list[str] = []

    def trace(cursor: apsw.Cursor, sql: str, bindings: apsw.Bindings | None) -> bool:
        reported.append(sql)
        return True

    core.connection.exec_trace = trace
    core.connection.row_trace = lambda cursor, values: ("traced",)
    core.sql("INSERT INTO t VALUES (1, 1)")
    core.connection.row_trace = None
    assert reported == ["INSERT INTO t VALUES (1, 1)"]
    assert core.logged() == core.events() != []


def test_logs_that_are_refused(tmp_path: Path) -> None:
    connection = open_database("wal", tmp_path)
    connection.execute("CREATE TABLE t(a)")
    [producer], [consumer] = create_event_bus(1)
    path = connection.filename
    with SqliteEventLog(tmp_path / "other.db", driver="apsw") as log:
        with pytest.raises(CaptureError, match=r"other\.db: not the connection's database, .*core\.db; open the log"):
            SqliteCapture(connection, producer, log=log)
        memory = apsw.Connection(":memory:")
        with pytest.raises(CaptureError, match="in memory"):
            SqliteCapture(memory, producer, log=log)
        os.unlink(tmp_path / "other.db")
        with pytest.raises(CaptureError, match="not the connection's database"):
            SqliteCapture(connection, producer, log=log)
    with SqliteEventLog(tmp_path / "third.db") as log, pytest.raises(CaptureError, match='driver="apsw"'):
        SqliteCapture(connection, producer, log=log)
    with pytest.raises(CaptureError, match="only a SqliteEventLog"):
        SqliteCapture(connection, producer, log=cast("SqliteEventLog", object()))
    # Another name of the same file is the same file.
    (tmp_path / "link.db").symlink_to(path)
    with SqliteEventLog(tmp_path / "link.db", driver="apsw") as log:
        with SqliteCapture(connection, producer, log=log):
            connection.execute("INSERT INTO t VALUES (1)")
        assert all_logged(log) == drained(consumer) != []


def test_closing_the_log_object_does_not_stop_the_capture(core: LoggedCore) -> None:
    core.log.close()
    core.sql("INSERT INTO t VALUES (1, 1)")
    with SqliteEventLog(core.connection.filename, driver="apsw") as log:
        assert all_logged(log) == core.events() != []
