"""SqliteCapture: each kind of statement that changes a row, or takes a change back, must come out exactly."""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import apsw
import pytest

from nodedb_ring import EventSource
from nodedb_ring.capture import CaptureError

from .captured import DELETE, INSERT, UPDATE, Core, deleted, inserted, open_database, t, updated

# Kinds of statement.


def test_replace_gives_the_delete_of_each_replaced_row_and_the_insert(core: Core) -> None:
    core.sql("INSERT INTO t VALUES (1, 'x'), (2, 'y')")
    core.changes()
    core.sql("INSERT OR REPLACE INTO t VALUES (1, 'y')")
    assert core.changes() == [
        deleted("t", "1", a=1, b="x"),
        deleted("t", "2", a=2, b="y"),
        inserted("t", "1", a=1, b="y"),
    ]
    core.sql("INSERT INTO t VALUES (5, 'z')")
    core.changes()
    core.sql("UPDATE OR REPLACE t SET b = 'y' WHERE a = 5")
    assert core.changes() == [deleted("t", "1", a=1, b="y"), updated("t", "5", t(5, "z"), t(5, "y"))]


def test_replace_by_the_conflict_clause_of_a_column(core: Core) -> None:
    core.sql("CREATE TABLE u(k UNIQUE ON CONFLICT REPLACE)")
    core.sql("INSERT INTO u VALUES (1)")
    core.sql("INSERT INTO u VALUES (1)")
    assert core.changes() == [inserted("u", "1", k=1), deleted("u", "1", k=1), inserted("u", "2", k=1)]


def test_upsert(core: Core) -> None:
    for value in (1, 2):
        core.sql("INSERT INTO t VALUES (1, ?) ON CONFLICT(a) DO UPDATE SET b = excluded.b", value)
    core.sql("INSERT INTO t VALUES (1, 3) ON CONFLICT DO NOTHING")
    assert core.changes() == [inserted("t", "1", a=1, b=1), updated("t", "1", t(1, 1), t(1, 2))]


def test_a_change_of_the_rowid_is_a_delete_and_an_insert(core: Core) -> None:
    core.sql("CREATE TABLE u(x); INSERT INTO t VALUES (1, 1); INSERT INTO u VALUES ('v')")
    core.changes()
    core.sql("UPDATE t SET a = 10")
    core.sql("UPDATE u SET rowid = 5, x = 'w'")
    assert core.changes() == [
        deleted("t", "1", a=1, b=1),
        inserted("t", "10", a=10, b=1),
        deleted("u", "1", x="v"),
        inserted("u", "5", x="w"),
    ]


def test_deleting_all_rows_tells_of_each(core: Core) -> None:
    core.sql("INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)")
    core.changes()
    core.sql("DELETE FROM t")
    assert core.changes() == [deleted("t", str(i), a=i, b=i) for i in (1, 2, 3)]


def test_deleting_all_rows_by_a_statement_prepared_before_the_capture(tmp_path: Path) -> None:
    core = Core(open_database("wal", tmp_path))
    core.sql("CREATE TABLE t(a)")
    core.sql("DELETE FROM t")
    assert core.connection.cache_stats()["size"] > 0
    core.start()
    core.sql("INSERT INTO t VALUES (1), (2)")
    assert len(core.changes()) == 2
    core.sql("DELETE FROM t")
    assert len(core.changes()) == 2


def test_insert_from_select(core: Core) -> None:
    core.sql("CREATE TABLE u(a INTEGER PRIMARY KEY, b UNIQUE)")
    core.sql("INSERT INTO t VALUES (1, 1), (2, 2)")
    core.changes()
    core.sql("INSERT INTO u SELECT * FROM t")
    assert core.changes() == [inserted("u", "1", a=1, b=1), inserted("u", "2", a=2, b=2)]


def test_executemany(core: Core) -> None:
    with core.connection:
        core.connection.executemany("INSERT INTO t VALUES (?, ?)", ((i, str(i)) for i in range(500)))
    assert core.changes() == [inserted("t", str(i), a=i, b=str(i)) for i in range(500)]
    assert core.capture.lsn == 1


# Triggers and foreign keys.


def test_changes_by_triggers(core: Core) -> None:
    core.sql("""
        CREATE TABLE audit(what); CREATE TABLE total(n); INSERT INTO total VALUES (0);
        CREATE TRIGGER t_ai AFTER INSERT ON t BEGIN INSERT INTO audit VALUES (new.b); END;
        CREATE TRIGGER audit_ai AFTER INSERT ON audit BEGIN UPDATE total SET n = n + 1; END;
    """)
    core.changes()
    core.sql("INSERT INTO t VALUES (1, 'x')")
    events = core.events()
    assert [(e.op, e.collection, e.source) for e in events] == [
        (INSERT, "t", EventSource.USER),
        (INSERT, "audit", EventSource.TRIGGER),
        (UPDATE, "total", EventSource.TRIGGER),
    ]


def test_writes_through_a_view(core: Core) -> None:
    core.sql("CREATE VIEW v AS SELECT b FROM t")
    core.sql("CREATE TRIGGER v_ii INSTEAD OF INSERT ON v BEGIN INSERT INTO t(b) VALUES (new.b); END")
    core.sql("INSERT INTO v VALUES ('x')")
    assert [(e.collection, e.row_id, e.source) for e in core.events()] == [("t", "1", EventSource.TRIGGER)]


def test_foreign_key_actions(core: Core) -> None:
    core.sql("CREATE TABLE child(p REFERENCES t(a) ON DELETE CASCADE ON UPDATE SET NULL)")
    core.sql("INSERT INTO t VALUES (1, 1), (2, 2); INSERT INTO child VALUES (1), (1), (2)")
    core.changes()
    core.sql("DELETE FROM t WHERE a = 1")
    events = core.events()
    assert [(e.op, e.collection, e.row_id, e.source) for e in events] == [
        (DELETE, "t", "1", EventSource.USER),
        (DELETE, "child", "1", EventSource.TRIGGER),
        (DELETE, "child", "2", EventSource.TRIGGER),
    ]
    core.sql("UPDATE t SET a = 20")
    assert core.changes() == [
        deleted("t", "2", a=2, b=2),
        inserted("t", "20", a=20, b=2),
        updated("child", "3", {"p": 2}, {"p": None}),
    ]


def test_an_immediate_foreign_key_takes_back_the_statement(core: Core) -> None:
    core.sql("CREATE TABLE child(p REFERENCES t(a)); INSERT INTO t VALUES (1, 1)")
    core.changes()
    core.sql("BEGIN; INSERT INTO child VALUES (1)")
    with pytest.raises(apsw.ConstraintError):
        core.sql("INSERT INTO child VALUES (1), (99)")
    core.sql("COMMIT")
    assert core.changes() == [inserted("child", "1", p=1)]


def test_a_deferred_foreign_key_fails_the_commit_and_leaves_the_transaction_open(core: Core) -> None:
    core.sql("CREATE TABLE child(p REFERENCES t(a) DEFERRABLE INITIALLY DEFERRED)")
    core.sql("BEGIN; INSERT INTO child VALUES (7)")
    with pytest.raises(apsw.ConstraintError):
        core.sql("COMMIT")
    assert (core.changes(), core.capture.pending) == ([], 1)
    core.sql("INSERT INTO t VALUES (7, 7); COMMIT")
    assert core.changes() == [inserted("child", "1", p=7), inserted("t", "7", a=7, b=7)]
    with pytest.raises(apsw.ConstraintError):
        core.sql("INSERT INTO child VALUES (8)")
    assert (core.changes(), core.rows("SELECT p FROM child")) == ([], [7])


# Savepoints.


def test_rollback_to_a_savepoint(core: Core) -> None:
    core.sql("BEGIN; INSERT INTO t VALUES (1, 1); SAVEPOINT s; INSERT INTO t VALUES (2, 2); ROLLBACK TO s")
    core.sql("INSERT INTO t VALUES (3, 3); COMMIT")
    assert core.changes() == [inserted("t", "1", a=1, b=1), inserted("t", "3", a=3, b=3)]


def test_release_keeps_what_the_savepoint_holds(core: Core) -> None:
    core.sql("BEGIN; SAVEPOINT s; INSERT INTO t VALUES (1, 1); RELEASE s; SAVEPOINT s; INSERT INTO t VALUES (2, 2)")
    core.sql("ROLLBACK TO s; COMMIT")
    assert core.changes() == [inserted("t", "1", a=1, b=1)]


def test_nested_savepoints(core: Core) -> None:
    core.sql("""
        BEGIN; INSERT INTO t VALUES (1, 1);
        SAVEPOINT a; INSERT INTO t VALUES (2, 2);
          SAVEPOINT b; INSERT INTO t VALUES (3, 3);
            SAVEPOINT c; INSERT INTO t VALUES (4, 4); RELEASE c;
            SAVEPOINT d; INSERT INTO t VALUES (5, 5); ROLLBACK TO d; INSERT INTO t VALUES (6, 6);
          ROLLBACK TO b; INSERT INTO t VALUES (7, 7);
        RELEASE a;
        SAVEPOINT e; INSERT INTO t VALUES (8, 8); ROLLBACK TO e; ROLLBACK TO e; COMMIT
    """)
    assert [change.row_id for change in core.changes()] == ["1", "2", "7"]


def test_rollback_past_several_savepoints(core: Core) -> None:
    core.sql("BEGIN; INSERT INTO t VALUES (1, 1); SAVEPOINT a; SAVEPOINT b; INSERT INTO t VALUES (2, 2); SAVEPOINT c")
    core.sql("INSERT INTO t VALUES (3, 3); ROLLBACK TO a; COMMIT")
    assert [change.row_id for change in core.changes()] == ["1"]


def test_savepoints_of_one_name_shadow_each_other(core: Core) -> None:
    core.sql("BEGIN; SAVEPOINT s; INSERT INTO t VALUES (1, 1); SAVEPOINT s; INSERT INTO t VALUES (2, 2); ROLLBACK TO s")
    core.sql("RELEASE s; INSERT INTO t VALUES (3, 3); ROLLBACK TO s; INSERT INTO t VALUES (4, 4); COMMIT")
    assert [change.row_id for change in core.changes()] == ["4"]


@pytest.mark.parametrize("target", ["a", "b", "c"])
def test_savepoints_older_than_the_first_change(core: Core, target: str) -> None:
    """The capture takes part from the first change on; the savepoints before it must still take that change back."""
    core.sql(f"BEGIN; SAVEPOINT a; SAVEPOINT b; SAVEPOINT c; INSERT INTO t VALUES (1, 1); ROLLBACK TO {target}")
    core.sql("INSERT INTO t VALUES (2, 2); SAVEPOINT d; INSERT INTO t VALUES (3, 3); ROLLBACK TO d; COMMIT")
    assert [change.row_id for change in core.changes()] == ["2"]


def test_an_outermost_savepoint_is_a_transaction(core: Core) -> None:
    core.sql("SAVEPOINT s; INSERT INTO t VALUES (1, 1)")
    assert core.changes() == []
    core.sql("ROLLBACK TO s; INSERT INTO t VALUES (2, 2); SAVEPOINT u; INSERT INTO t VALUES (3, 3); ROLLBACK TO u")
    assert core.changes() == []
    core.sql("RELEASE s")
    assert core.changes() == [inserted("t", "2", a=2, b=2)]
    core.sql("SAVEPOINT s; INSERT INTO t VALUES (4, 4); SAVEPOINT u; INSERT INTO t VALUES (5, 5); ROLLBACK")
    assert core.changes() == []


def test_a_savepoint_of_apsw(core: Core) -> None:
    with core.connection:
        core.sql("INSERT INTO t VALUES (1, 1)")
        with pytest.raises(ZeroDivisionError), core.connection:  # noqa: PT012
            core.sql("INSERT INTO t VALUES (2, 2)")
            _ = 1 / 0
        with core.connection:
            core.sql("INSERT INTO t VALUES (3, 3)")
    assert [change.row_id for change in core.changes()] == ["1", "3"]


# Statements that fail half-way.


@pytest.mark.parametrize(
    ("conflict", "in_transaction", "alone"),
    [
        ("ABORT", ["1", "9"], []),
        ("FAIL", ["1", "2", "9"], ["2"]),
        ("ROLLBACK", ["9"], []),
        ("IGNORE", ["1", "2", "3", "9"], ["2", "3"]),
    ],
)
def test_conflicts(core: Core, conflict: str, in_transaction: list[str], alone: list[str]) -> None:
    core.sql("INSERT INTO t VALUES (100, 'taken')")
    core.changes()
    statement = f"INSERT OR {conflict} INTO t VALUES (2, 2), (50, 'taken'), (3, 3)"
    core.sql("BEGIN; INSERT INTO t VALUES (1, 1)")
    if conflict == "IGNORE":
        core.sql(statement)
    else:
        with pytest.raises(apsw.ConstraintError):
            core.sql(statement)
    if conflict == "ROLLBACK":
        assert not core.connection.in_transaction
        core.sql("BEGIN")
    core.sql("INSERT INTO t VALUES (9, 9); COMMIT")
    assert [change.row_id for change in core.changes()] == in_transaction
    assert core.rows("SELECT a FROM t WHERE a < 100") == [int(row_id) for row_id in in_transaction]

    core.sql("DELETE FROM t WHERE a < 100")
    core.changes()
    if conflict == "IGNORE":
        core.sql(statement)
    else:
        with pytest.raises(apsw.ConstraintError):
            core.sql(statement)
    assert [change.row_id for change in core.changes()] == alone
    assert core.rows("SELECT a FROM t WHERE a < 100") == [int(row_id) for row_id in alone]


def test_an_aborted_update_and_delete(core: Core) -> None:
    core.sql("CREATE TABLE child(p REFERENCES t(a)); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)")
    core.sql("INSERT INTO child VALUES (2)")
    core.changes()
    core.sql("BEGIN; UPDATE t SET b = 'x' WHERE a = 1")
    with pytest.raises(apsw.ConstraintError):
        core.sql("UPDATE t SET b = 'y' WHERE a > 1")
    with pytest.raises(apsw.ConstraintError):
        core.sql("DELETE FROM t")
    core.sql("COMMIT")
    assert core.changes() == [updated("t", "1", t(1, 1), t(1, "x"))]


@pytest.mark.parametrize(
    ("action", "kept"),
    [("ABORT", ["1"]), ("FAIL", ["1", "2", "3"]), ("ROLLBACK", []), ("IGNORE", ["1", "2", "3", "4"])],
)
def test_raise_in_a_trigger(core: Core, action: str, kept: list[str]) -> None:
    message = "" if action == "IGNORE" else ", 'stop'"
    core.sql(f"""
        CREATE TRIGGER t_ai AFTER INSERT ON t WHEN new.b = 'bad' BEGIN
          UPDATE t SET b = 'seen' WHERE a = 1; SELECT RAISE({action}{message});
        END
    """)
    core.sql("BEGIN; INSERT INTO t VALUES (1, 1)")
    if action == "IGNORE":
        core.sql("INSERT INTO t VALUES (2, 2), (3, 'bad'), (4, 4)")
    else:
        with pytest.raises(apsw.ConstraintError):
            core.sql("INSERT INTO t VALUES (2, 2), (3, 'bad'), (4, 4)")
    if action != "ROLLBACK":
        core.sql("COMMIT")
    changes = core.changes()
    assert [change.row_id for change in changes if change.op == INSERT] == kept
    assert [str(a) for a in core.rows("SELECT a FROM t")] == kept
    assert (updated("t", "1", t(1, 1), t(1, "seen")) in changes) == (action in ("FAIL", "IGNORE"))


def test_raise_in_a_trigger_before_a_replaced_row(core: Core) -> None:
    """The delete of a REPLACE goes away with the statement that it belongs to."""
    core.sql("CREATE TRIGGER t_ai AFTER INSERT ON t WHEN new.b = 2 BEGIN SELECT RAISE(ABORT, 'stop'); END")
    core.sql("INSERT INTO t VALUES (1, 1)")
    core.changes()
    core.sql("BEGIN")
    with pytest.raises(apsw.ConstraintError):
        core.sql("REPLACE INTO t VALUES (1, 2)")
    core.sql("COMMIT")
    assert (core.changes(), core.rows("SELECT b FROM t")) == ([], [1])


def test_a_full_database(core: Core) -> None:
    core.sql("BEGIN; INSERT INTO t VALUES (1, 1)")
    [(pages,)] = core.sql("PRAGMA page_count")
    assert isinstance(pages, int)
    core.sql(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(apsw.FullError):
        core.sql("INSERT INTO t VALUES (2, 2), (3, zeroblob(100000)), (4, 4)")
    if core.connection.in_transaction:
        core.sql("COMMIT")
    assert [change.row_id for change in core.changes()] == [str(a) for a in core.rows("SELECT a FROM t")]


def test_an_interrupted_statement(core: Core) -> None:
    core.sql("BEGIN; INSERT INTO t VALUES (1, 1)")
    core.connection.set_progress_handler(lambda: core.capture.pending > 500, 10)
    with pytest.raises(apsw.InterruptError):
        core.sql("WITH n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n LIMIT 5000) INSERT INTO t SELECT i, i FROM n")
    core.connection.set_progress_handler(None)
    if core.connection.in_transaction:
        core.sql("COMMIT")
    assert [change.row_id for change in core.changes()] == [str(a) for a in core.rows("SELECT a FROM t")]


class Interrupted(Exception):
    """Raised by a signal handler."""


@pytest.mark.parametrize("after", ["RELEASE s", "ROLLBACK TO s"])
def test_a_signal_handler_that_raises_loses_no_change(core: Core, after: str) -> None:
    """A signal that arrives while SQLite works is served where Python code begins, and the hook must not be that place.

    The subquery takes longer than the timer, so the signal waits when the first row is written. It is of the
    processor's time: a machine that stands still before the statement begins must not let it come before that.
    """
    count = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) SELECT count(*) FROM n"

    def interrupt(*_: object) -> None:
        raise Interrupted

    core.sql("BEGIN; INSERT INTO t VALUES (1, 1); SAVEPOINT s")
    before = signal.signal(signal.SIGVTALRM, interrupt)
    try:
        with pytest.raises(Interrupted):  # noqa: PT012
            signal.setitimer(signal.ITIMER_VIRTUAL, 0.01)
            core.sql(f"INSERT INTO t SELECT column1, column1 + ({count}) FROM (VALUES (2), (3), (4))")
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    core.sql(f"{after}; INSERT INTO t VALUES (9, 9)")
    kept = ["1", "2", "3", "4", "9"] if after == "RELEASE s" else ["1", "9"]
    try:
        core.sql("COMMIT")
    except CaptureError:
        kept = []  # legal too: the signal was served while a change was recorded
    assert [str(a) for a in core.rows("SELECT a FROM t")] == kept
    assert [change.row_id for change in core.changes()] == kept


def test_a_function_that_writes_while_a_statement_runs(core: Core) -> None:
    core.sql("CREATE TABLE written(x)")

    def note(*values: Any) -> Any:
        core.sql("INSERT INTO written VALUES (?)", *values)
        return values[0]

    core.connection.create_scalar_function("note", note, 1)
    core.sql("BEGIN; INSERT INTO t VALUES (100, 100)")
    core.sql("INSERT INTO t SELECT column1, note(column1) FROM (VALUES (1), (2))")
    with pytest.raises(apsw.ConstraintError):
        core.sql("INSERT INTO t SELECT column1, note(column1) FROM (VALUES (3), (100))")
    core.sql("COMMIT")
    changes = core.changes()
    assert [change.row_id for change in changes if change.collection == "t"] == ["100", "1", "2"]
    written = [change.new["x"] for change in changes if change.collection == "written" and change.new is not None]
    assert written == core.rows("SELECT x FROM written")
