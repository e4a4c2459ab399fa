"""SqliteCapture: what an event of a change carries, which tables are captured, and how a capture begins and ends.

Most tests run on three databases, because a commit is done at different moments in each: one in memory, a file with a
write-ahead log, a file with a rollback journal.
"""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from nodedb_ring import EventSource, WriteEvent, WriteOp, create_event_bus
from nodedb_ring.capture import CaptureError, SqliteCapture
from nodedb_ring.capture.sqlite import Value
from nodedb_ring.errors import FieldError

from .captured import UPDATE, Core, deleted, drained, inserted, open_database, row, t, updated

# What an event carries.


def test_insert_update_delete(core: Core) -> None:
    core.sql("INSERT INTO t VALUES (1, 'x')")
    core.sql("UPDATE t SET b = 'y'")
    core.sql("DELETE FROM t WHERE a = 1")
    assert core.changes() == [
        inserted("t", "1", a=1, b="x"),
        updated("t", "1", t(1, "x"), t(1, "y")),
        deleted("t", "1", a=1, b="y"),
    ]


@pytest.mark.parametrize("value", [None, 0, -(2**63), 2**63 - 1, 1.5, float("inf"), "", "é\0漢", b"", b"\0\xff"])
def test_values_keep_their_type(core: Core, value: Value) -> None:
    core.sql("INSERT INTO t VALUES (1, ?)", value)
    [change] = core.changes()
    assert change.new is not None
    assert (change.new["b"], type(change.new["b"])) == (value, type(value))


def test_a_real_column_gives_floats_though_sqlite_stores_integers(core: Core) -> None:
    core.sql("CREATE TABLE r(x REAL)")
    core.sql("INSERT INTO r VALUES (3)")
    core.sql("UPDATE r SET x = 4")
    first, second = core.changes()
    images = [image for image in (first.new, second.old, second.new) if image is not None]
    assert [type(image["x"]) for image in images] == [float, float, float]


def test_numbers_and_stamps(tmp_path: Path) -> None:
    core = Core(open_database("wal", tmp_path))
    core.sql("CREATE TABLE t(a INTEGER PRIMARY KEY)")
    core.start(tenant_id=7, vshard_id=9, first_lsn=100)
    assert core.capture.lsn == 99
    before = time.time_ns() // 1_000_000
    core.sql("INSERT INTO t VALUES (1), (2)")
    core.sql("INSERT INTO t VALUES (3)")
    after = time.time_ns() // 1_000_000
    events = core.events()
    assert [e.sequence for e in events] == [1, 2, 3]
    assert [e.lsn for e in events] == [100, 100, 101]
    assert {(e.tenant_id, e.vshard_id, e.count, e.source) for e in events} == {(7, 9, 1, EventSource.USER)}
    timestamps = [e.system_time_ms for e in events]
    assert timestamps[0] is not None
    assert before <= timestamps[0] <= after
    assert timestamps[1] == timestamps[0]
    assert (core.capture.lsn, core.capture.emitted, core.capture.dropped) == (101, 3, 0)


def test_sequences_continue_after_events_of_the_producers_own(core: Core) -> None:
    core.sql("INSERT INTO t VALUES (1, 1)")
    core.producer.emit(
        WriteEvent(sequence=core.producer.next_sequence, collection="", op=WriteOp.HEARTBEAT, row_id="", lsn=1)
    )
    core.sql("INSERT INTO t VALUES (2, 2)")
    assert [e.sequence for e in core.events()] == [1, 2, 3]


# Keys of tables without a rowid.


def test_without_rowid(core: Core) -> None:
    core.sql("CREATE TABLE w(v, k TEXT PRIMARY KEY) WITHOUT ROWID")
    core.sql("INSERT INTO w VALUES (1, 'one')")
    core.sql("UPDATE w SET v = 2")
    core.sql("UPDATE w SET k = 'two'")
    core.sql("REPLACE INTO w VALUES (3, 'two')")
    core.sql("DELETE FROM w")
    assert core.changes() == [
        inserted("w", "one", v=1, k="one"),
        updated("w", "one", {"v": 1, "k": "one"}, {"v": 2, "k": "one"}),
        deleted("w", "one", v=2, k="one"),
        inserted("w", "two", v=2, k="two"),
        deleted("w", "two", v=2, k="two"),
        inserted("w", "two", v=3, k="two"),
        deleted("w", "two", v=3, k="two"),
    ]


@pytest.mark.parametrize(
    ("declared", "values", "row_ids"),
    [
        ("k TEXT PRIMARY KEY", ["a", 1, "'a'", b"a", "X'61'"], ["a", "1", "'''a'''", "X'61'", "'X''61'''"]),
        ("k VARCHAR(9) PRIMARY KEY", ["a", ""], ["a", ""]),
        ("k INTEGER PRIMARY KEY", [1, "2", -3], ["1", "2", "-3"]),
        ("k PRIMARY KEY", [1, "1", 1.5, b"1"], ["1", "'1'", "1.5", "X'31'"]),
        ("k CHARINT PRIMARY KEY", [1, "x"], ["1", "'x'"]),  # INT decides: integer affinity
    ],
)
def test_row_id_of_a_key_of_one_column(core: Core, declared: str, values: list[Value], row_ids: list[str]) -> None:
    core.sql(f"CREATE TABLE w({declared}) WITHOUT ROWID")
    for value in values:
        core.sql("INSERT INTO w VALUES (?)", value)
    assert [change.row_id for change in core.changes()] == row_ids


def test_row_id_of_a_key_of_several_columns_is_in_the_order_of_the_key(core: Core) -> None:
    core.sql("CREATE TABLE w(a TEXT, b, c, PRIMARY KEY(c, a)) WITHOUT ROWID")
    core.sql("INSERT INTO w VALUES ('x,y', 0, 1), ('it''s', 0, 'z')")
    assert [change.row_id for change in core.changes()] == ["1,'x,y'", "'z','it''s'"]
    core.sql("UPDATE w SET b = 1 WHERE (c, a) = (1, 'x,y')")
    assert [change.op for change in core.changes()] == [UPDATE]


# Which tables.


def test_chosen_tables_in_any_case(tmp_path: Path) -> None:
    core = Core(open_database("wal", tmp_path))
    core.sql("CREATE TABLE Flights(a); CREATE TABLE other(a)")
    core.start(tables=["fLIGHTS"])
    core.sql("BEGIN; INSERT INTO other VALUES (1); INSERT INTO flights VALUES (2); COMMIT")
    core.sql("INSERT INTO other VALUES (3)")
    assert core.changes() == [inserted("Flights", "1", a=2)]
    assert core.capture.lsn == 1


def test_tables_that_are_not_ordinary(core: Core) -> None:
    core.sql("""
        CREATE TABLE auto(a INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO auto VALUES (NULL);
        CREATE TEMP TABLE scratch(a); INSERT INTO scratch VALUES (1);
        CREATE VIRTUAL TABLE words USING fts5(word); INSERT INTO words VALUES ('hello');
        ANALYZE
    """)
    assert core.changes() == [inserted("auto", "1", a=1)]


def test_attached_databases_are_not_captured(core: Core, tmp_path: Path) -> None:
    core.sql("ATTACH ? AS other", str(tmp_path / "other.db"))
    core.sql("CREATE TABLE other.t(a, b)")
    core.sql("BEGIN; INSERT INTO other.t VALUES (1, 1); INSERT INTO main.t VALUES (2, 2); COMMIT")
    core.sql("INSERT INTO other.t VALUES (3, 3)")
    assert core.changes() == [inserted("t", "2", a=2, b=2)]
    assert core.rows("SELECT a FROM other.t") == [1, 3]


def test_stored_generated_columns(core: Core) -> None:
    core.sql("CREATE TABLE g(a, twice AS (2 * a) STORED, b)")
    core.sql("INSERT INTO g VALUES (1, 'x')")
    core.sql("UPDATE g SET a = 2")
    assert [change.new for change in core.changes()] == [
        {"a": 1, "twice": 2, "b": "x"},
        {"a": 2, "twice": 4, "b": "x"},
    ]


def test_two_captures_of_one_connection(core: Core) -> None:
    core.sql("CREATE TABLE u(x)")
    [producer], [consumer] = create_event_bus(1, capacity=16)
    with SqliteCapture(core.connection, producer, tables=["u"]) as second:
        core.sql("BEGIN; INSERT INTO t VALUES (1, 1); SAVEPOINT s; INSERT INTO u VALUES (1)")
        core.sql("ROLLBACK TO s; INSERT INTO u VALUES (2); COMMIT")
        assert [(e.collection, row(e.new_value)) for e in drained(consumer)] == [("u", {"x": 2})]
        assert second.lsn == 1
    core.sql("INSERT INTO u VALUES (3)")
    assert [change.collection for change in core.changes()] == ["t", "u", "u"]


# The application's connection stays its own.


def test_the_applications_hooks_and_tracers_are_left_alone(core: Core) -> None:
    reported: list[str] = []

    def trace(cursor: apsw.Cursor, sql: str, bindings: apsw.Bindings | None) -> bool:
        reported.append(sql)
        return True

    def note(what: str) -> Callable[..., None]:
        return lambda *_: reported.append(what)

    def note_commit() -> bool:
        reported.append("commit")
        return False

    core.connection.exec_trace = trace
    core.connection.row_trace = lambda cursor, values: ("traced",)
    core.connection.preupdate_hook(note("preupdate"))
    core.connection.set_update_hook(note("update"))
    core.connection.set_commit_hook(note_commit)
    core.connection.set_rollback_hook(note("rollback"))
    assert core.sql("INSERT INTO t VALUES (1, 1) RETURNING a") == [("traced",)]
    core.sql("BEGIN; UPDATE t SET b = 2; ROLLBACK")
    assert reported == [
        "INSERT INTO t VALUES (1, 1) RETURNING a",
        *("preupdate", "update", "commit"),
        *("BEGIN; ", "UPDATE t SET b = 2; ", "preupdate", "update", "ROLLBACK", "rollback"),
    ]
    assert core.changes() == [inserted("t", "1", a=1, b=1)]
    core.capture.close()
    reported.clear()
    core.sql("DELETE FROM t")
    assert reported == ["DELETE FROM t", "preupdate", "update", "commit"]


def test_the_applications_counters_are_left_alone(core: Core) -> None:
    plain = apsw.Connection(":memory:")
    plain.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE)")
    for statement in [
        "INSERT INTO t VALUES (5, 1), (6, 2)",
        "SAVEPOINT s",
        "UPDATE t SET b = b + 10",
        "ROLLBACK TO s",
        "RELEASE s",
        "DELETE FROM t",
    ]:
        plain.execute(statement)
        core.sql(statement)
        for reading in ("changes", "total_changes", "last_insert_rowid"):
            assert getattr(core.connection, reading)() == getattr(plain, reading)(), (statement, reading)


def test_nothing_is_left_in_the_schema(core: Core) -> None:
    core.sql("INSERT INTO t VALUES (1, 1)")
    core.capture.close()
    assert core.rows("SELECT name FROM temp.sqlite_schema") == []
    assert core.rows("SELECT name FROM sqlite_schema WHERE type = 'table'") == ["t"]


def test_a_trigger_that_asks_for_changes_is_the_one_exception(core: Core) -> None:
    """As documented: the capture's own statement comes between, once a transaction."""
    core.sql(
        "CREATE TABLE counts(x); CREATE TRIGGER t_ai AFTER INSERT ON t BEGIN INSERT INTO counts VALUES (changes()); END"
    )
    core.sql("BEGIN; INSERT INTO t VALUES (1, 1), (2, 2); INSERT INTO t VALUES (3, 3); COMMIT")
    assert core.rows("SELECT x FROM counts") == [0, 0, 2]


# Beginning and end.


def test_close_stops_capturing(core: Core) -> None:
    core.capture.close()
    core.capture.close()
    assert core.capture.closed
    core.sql("INSERT INTO t VALUES (1, 1)")
    assert (core.changes(), core.capture.lsn) == ([], 0)
    with pytest.raises(CaptureError, match="closed"), core.capture:
        pass


def test_close_in_a_transaction_with_changes_is_refused(core: Core) -> None:
    core.sql("BEGIN; INSERT INTO t VALUES (1, 1)")
    with pytest.raises(CaptureError, match="1 captured changes"):
        core.capture.close()
    assert not core.capture.closed
    core.sql("COMMIT")
    assert len(core.changes()) == 1
    core.sql("BEGIN")
    core.capture.close()
    core.sql("INSERT INTO t VALUES (2, 2); COMMIT")
    assert core.changes() == []


def test_leaving_the_context_by_an_exception_always_closes(core: Core, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "nodedb_ring")
    with pytest.raises(ZeroDivisionError), core.capture:  # noqa: PT012
        core.sql("BEGIN; INSERT INTO t VALUES (1, 1)")
        _ = 1 / 0
    assert core.capture.closed
    assert [record.getMessage() for record in caplog.records] == [
        "capture closed in an open transaction: its 1 changes are not emitted"
    ]
    core.sql("COMMIT")
    assert core.changes() == []


def test_close_after_the_connection(core: Core) -> None:
    core.connection.close()
    core.capture.close()
    assert core.capture.closed


def test_a_second_capture_continues_the_numbers(core: Core) -> None:
    core.sql("INSERT INTO t VALUES (1, 1)")
    core.capture.close()
    core.start(first_lsn=core.capture.lsn + 1)
    core.sql("INSERT INTO t VALUES (2, 2)")
    assert [(e.sequence, e.lsn) for e in core.events()] == [(1, 1), (2, 2)]


def test_invalid_captures(tmp_path: Path) -> None:
    core = Core(open_database("wal", tmp_path))
    core.sql("CREATE TABLE t(a); CREATE VIEW v AS SELECT 1; CREATE VIRTUAL TABLE words USING fts5(word)")
    wrong = sqlite3.connect(":memory:")
    with pytest.raises(TypeError, match=r"must be an apsw\.Connection"):
        SqliteCapture(wrong, core.producer)  # type: ignore[arg-type]
    wrong.close()
    with pytest.raises(TypeError, match=r"write \['t'\]"):
        core.start(tables="t")
    with pytest.raises(CaptureError, match="table 'missing': not in"):
        core.start(tables=["t", "missing"])
    for name in ("v", "words", "words_data", "sqlite_schema"):
        with pytest.raises(CaptureError, match=f"table '{name}': it is .*only ordinary tables"):
            core.start(tables=[name])
    for bad in ({"tenant_id": -1}, {"vshard_id": 2**32}, {"first_lsn": 2**64}):
        with pytest.raises(FieldError, match=str(*bad.values())):
            core.start(**bad)
    core.sql("BEGIN")
    with pytest.raises(CaptureError, match="a transaction is open"):
        core.start()
    core.sql("ROLLBACK; INSERT INTO t VALUES (1)")
    assert core.changes() == []


def test_repr(core: Core) -> None:
    core.sql("INSERT INTO t VALUES (1, 1)")
    assert repr(core.capture) == f"<SqliteCapture {core.connection.filename!r} lsn=1 emitted=1 dropped=0>"
    core.capture.close()
    assert repr(core.capture) == "<SqliteCapture closed lsn=1 emitted=1 dropped=0>"
