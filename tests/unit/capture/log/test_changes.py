"""SqliteCapture with a log: the database, its log and the ring agree on every change."""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import apsw
import numpy as np
import pytest

from nodedb_ring import EventBatch, OwnershipError, WriteEvent, WriteOp, create_event_bus, follow
from nodedb_ring.capture import CaptureError, SqliteCapture
from nodedb_ring.log.sqlite import LOG_TABLES, SqliteEventLog
from tests.unit.capture.captured import drained, inserted, open_database
from tests.unit.runners import in_thread

from .logged import LoggedCore, all_logged, logged_core, numbers

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


# The connection and its database.


def test_the_logs_tables_are_not_captured(core: LoggedCore) -> None:
    [producer], [consumer] = create_event_bus(1)
    with SqliteCapture(core.connection, producer):  # it has no log, and sees how the other's is written
        core.sql("INSERT INTO t VALUES (1, 1)")
        core.sql("INSERT INTO nodedb_ring_watermark(group_name, core_id, sequence) VALUES ('g', 0, 1)")
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
