"""What functions, hooks and other connections of the application do beneath a capture loses no change and does no harm.

Each test makes the connection do what is hard on a capture, and then asks SQLite whether the database is whole.
"""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, cast

import apsw
import pytest

from nodedb_ring.capture import CaptureError, SqliteCapture
from nodedb_ring.log.sqlite import SqliteEventLog
from tests.unit.capture.captured import Core, inserted, open_database

from .integrity import Boom, check_integrity

# What is undone while an exception is pending.


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM t WHERE boom(a) IS NOT NULL",
        "INSERT INTO u SELECT boom(a) FROM t",
        "INSERT INTO v VALUES (3)",
        "UPDATE t SET b = boom(a)",
        "REPLACE INTO t SELECT a, boom(a) FROM t",
        "INSERT INTO later SELECT boom(a) FROM t",
    ],
)
@pytest.mark.parametrize("before", ["", "INSERT INTO t VALUES (9, 9)"])
def test_a_function_that_raises_undoes_its_statement(core: Core, statement: str, before: str) -> None:
    def boom(*values: Any) -> Any:
        if values == (3,):
            raise Boom
        return values[0]

    core.connection.create_scalar_function("boom", boom, 1)
    core.sql(
        "CREATE TABLE u(a); CREATE TABLE v(a); CREATE TRIGGER tr AFTER INSERT ON v BEGIN SELECT boom(new.a); END;"
        " INSERT INTO t(a) VALUES (1), (2), (3)"
    )
    core.capture.close()
    core.start()
    core.sql("CREATE TABLE later(a)")
    core.changes()
    core.sql(f"BEGIN; {before}")
    with pytest.raises(Boom):
        core.sql(statement)
    core.sql("COMMIT")
    check_integrity(core)
    assert core.changes() == ([inserted("t", "9", a=9, b=9)] if before else [])
    assert core.rows("SELECT a FROM u UNION ALL SELECT a FROM v UNION ALL SELECT a FROM later") == []


def test_a_window_function_that_raises_at_the_very_end_undoes_its_statement(core: Core) -> None:
    """SQLite calls `final` when the statement has ended and the commit is next."""

    class Window:
        def step(self, _: Any) -> None: ...
        def inverse(self, _: Any) -> None: ...
        def value(self) -> int:
            return 7

        def final(self) -> int:
            raise Boom

    core.connection.create_window_function("win", cast("Any", Window))
    core.sql("INSERT INTO t VALUES (1, 1)")
    core.changes()
    for begin, end in (("", ""), ("BEGIN", "COMMIT")):
        core.sql(begin)
        with pytest.raises(Boom):
            core.sql("INSERT INTO t SELECT win(a) OVER (ORDER BY a ROWS 2 PRECEDING), 2 FROM t LIMIT 1")
        core.sql(end)
        reported = core.changes()
        assert [1, *(int(change.row_id) for change in reported)] == core.rows("SELECT a FROM t ORDER BY a")
        assert bool(reported) == bool(begin)  # where the transaction continues nothing is undone, by SQLite's own rule
    check_integrity(core)


def test_a_hook_of_the_applications_that_raises(core: Core) -> None:
    """SQLite does not learn of it and continues; the events are what it then commits, unless apsw refuses."""

    def hook(_: object) -> None:
        raise Boom

    core.connection.preupdate_hook(hook)
    core.sql("BEGIN")
    with pytest.raises(Boom):
        core.sql("INSERT INTO t VALUES (1, 1), (2, 2)")
    core.connection.preupdate_hook(None)
    core.sql("COMMIT")
    assert [change.row_id for change in core.changes()] == [str(a) for a in core.rows("SELECT a FROM t")]


# A SQL function that rolls back, or writes, beneath the statement that calls it.


@pytest.mark.parametrize("schema", ["", "CREATE TABLE x(a)"])
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO t VALUES (0, undo(3)), (7, 1)",
        "INSERT INTO t SELECT a + 10, undo(b) FROM t",
        "UPDATE t SET b = undo(b)",
        "DELETE FROM t WHERE undo(a) > 0",
        "REPLACE INTO t VALUES (1, undo(9)), (2, 8)",
    ],
)
def test_a_statement_whose_transaction_is_gone_ends_before_it_writes(
    core: Core, statement: str, schema: str, tmp_path: Path
) -> None:
    """SQLite alone continues outside any transaction, where a table has triggers, and what it writes is torn."""
    core.sql("INSERT INTO t VALUES (1, 1), (2, 2)")
    core.changes()

    def undo(*values: Any) -> Any:
        if core.connection.in_transaction:
            core.sql("ROLLBACK")
        return values[0]

    core.connection.create_scalar_function("undo", undo, 1)
    core.sql(f"BEGIN; {schema}")
    with pytest.raises(apsw.AbortError):
        core.sql(statement)
    assert core.changes() == []
    core.sql("INSERT INTO t VALUES (50, 50)")
    assert core.changes() == [inserted("t", "50", a=50, b=50)]
    check_integrity(core)
    if core.connection.filename:
        again = Core(apsw.Connection(core.connection.filename))
        check_integrity(again)
        assert again.rows("SELECT a FROM t") == [1, 2, 50]
        again.connection.close()


def test_a_statement_of_an_autocommit_whose_transaction_is_gone(core: Core) -> None:
    core.sql("INSERT INTO t VALUES (1, 1)")

    def undo(*values: Any) -> Any:
        with contextlib.suppress(apsw.ConstraintError):
            core.sql("INSERT OR ROLLBACK INTO t VALUES (1, 1)")
        return values[0]

    core.connection.create_scalar_function("undo", undo, 1)
    with pytest.raises(apsw.AbortError):
        core.sql("INSERT INTO t VALUES (0, undo(3)), (7, 4)")
    assert core.rows("SELECT a FROM t") == [1]
    check_integrity(core)


@pytest.mark.parametrize("then", ["", "INSERT INTO t VALUES (5, 5)"])
def test_a_function_that_rolls_back_to_a_savepoint_leaves_what_came_before(core: Core, then: str) -> None:
    def undo(*values: Any) -> Any:
        core.sql(f"ROLLBACK TO s; {then}")
        return values[0]

    core.connection.create_scalar_function("undo", undo, 1)
    core.sql("BEGIN; INSERT INTO t VALUES (1, 1); SAVEPOINT s; INSERT INTO t VALUES (2, 2)")
    with contextlib.suppress(apsw.AbortError):
        core.sql("UPDATE t SET b = undo(b) WHERE a = 1")
    core.sql("COMMIT")
    assert sorted(int(change.row_id) for change in core.changes() if change.old is None) == core.rows("SELECT a FROM t")
    check_integrity(core)


def test_a_function_that_writes_beneath_a_change_of_the_schema(core: Core) -> None:
    def write(*values: Any) -> Any:
        core.sql("INSERT INTO t(b) VALUES (?)", values[0])
        return values[0]

    core.connection.create_scalar_function("write", write, 1)
    core.sql("CREATE TABLE u(a); INSERT INTO u VALUES (1)")
    core.changes()
    core.sql("BEGIN; INSERT INTO t VALUES (1, 1); CREATE TABLE n AS SELECT write(7) AS x; INSERT INTO n VALUES (8)")
    core.sql("ALTER TABLE u ADD COLUMN c DEFAULT 5 CHECK (write(c)); UPDATE u SET a = 2; COMMIT")
    reported = core.changes()
    assert inserted("n", "2", x=8) in reported
    assert [change.new for change in reported if change.collection == "u"] == [{"a": 2, "c": 5}]


# What the application, or another connection, may do to what the capture relies on.


def test_deserialize_brings_another_schema_of_the_same_version(tmp_path: Path) -> None:
    core = Core(open_database("memory", tmp_path))
    core.sql("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    core.start()
    core.sql("INSERT INTO t VALUES (1, 1)")
    other = apsw.Connection(":memory:")
    other.execute("CREATE TABLE t(x INTEGER PRIMARY KEY, y)")
    core.connection.deserialize("main", other.serialize("main"))
    core.sql("INSERT INTO t VALUES (2, 2)")
    assert core.changes() == [inserted("t", "1", a=1, b=1), inserted("t", "2", x=2, y=2)]


def test_names_are_compared_as_sqlite_compares_them(tmp_path: Path) -> None:
    core = Core(open_database("memory", tmp_path))
    core.sql('CREATE TABLE "é"(a); CREATE TABLE "É"(a); CREATE TABLE t(a)')
    core.start(tables=["é", "T"])
    core.sql('INSERT INTO "é" VALUES (1); INSERT INTO "É" VALUES (2); INSERT INTO t VALUES (3)')
    assert core.changes() == [inserted("é", "1", a=1), inserted("t", "1", a=3)]


@pytest.mark.parametrize("answer", [0, 1, "raise"])
@pytest.mark.parametrize("name", ["like", "glob", "max", "coalesce", "lower", "substr"])
def test_functions_of_the_applications_own_change_nothing(tmp_path: Path, name: str, answer: Any) -> None:
    connection = open_database("wal", tmp_path)
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT, b)")

    def own(*_: Any) -> Any:
        if answer == "raise":
            raise Boom
        return answer

    connection.create_scalar_function(name, own)
    core = Core(connection)
    with SqliteEventLog(tmp_path / "core.db", driver="apsw") as log:
        core.start(log=log)
        core.sql("INSERT INTO t VALUES (1, 1)")
        core.sql("INSERT INTO t VALUES (2, 2)")
        assert core.changes() == [inserted("t", "1", a=1, b=1), inserted("t", "2", a=2, b=2)]
        assert log.last_sequence(0) == 2
        core.capture.close()
    assert core.rows("SELECT name FROM temp.sqlite_schema") == []


def test_a_captured_table_that_another_connection_drops(tmp_path: Path) -> None:
    core = Core(open_database("wal", tmp_path))
    core.sql("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    core.start()
    other = apsw.Connection(core.connection.filename)
    other.execute("DROP TABLE t; CREATE TABLE u(x)")
    core.sql("INSERT INTO u VALUES (1)")
    assert core.changes() == [inserted("u", "1", x=1)]
    core.capture.close()
    assert core.rows("SELECT name FROM temp.sqlite_schema") == []
    core.sql("ALTER TABLE u RENAME COLUMN x TO y")
    other.close()


def test_a_full_text_table_of_another_connection_that_writes_in_the_commit(tmp_path: Path) -> None:
    core = Core(open_database("wal", tmp_path)).start()
    other = apsw.Connection(core.connection.filename)
    other.execute("CREATE VIRTUAL TABLE ft USING fts5(x, content='', columnsize=0)")
    for n in (1, 2):
        core.sql("INSERT INTO ft(rowid, x) VALUES (?, 'hello')", n)
    assert core.rows("SELECT count(*) FROM ft WHERE ft MATCH 'hello'") == [2]
    assert core.changes() == []
    other.close()


def test_close_that_is_refused_can_be_repeated(core: Core) -> None:
    core.sql("PRAGMA query_only = ON")
    with pytest.raises(apsw.ReadOnlyError):
        core.capture.close()
    assert not core.capture.closed
    core.sql("PRAGMA query_only = OFF; INSERT INTO t VALUES (1, 1)")
    assert core.changes() == [inserted("t", "1", a=1, b=1)]
    core.capture.close()
    assert core.rows("SELECT name FROM temp.sqlite_schema") == []


def test_two_captures_of_a_connection_do_not_share_the_log_of_a_core(tmp_path: Path) -> None:
    core = Core(open_database("wal", tmp_path))
    core.sql("CREATE TABLE a(x); CREATE TABLE b(x)")
    with SqliteEventLog(tmp_path / "core.db", driver="apsw") as log:
        core.start(log=log, tables=["a"])
        with pytest.raises(CaptureError, match="another capture of this connection writes the events of core 0"):
            SqliteCapture(core.connection, core.producer, log=log, tables=["b"])
        core.capture.close()
        core.start(log=log, tables=["b"])


@pytest.mark.parametrize("first", ["UPDATE t SET b = b", "SELECT 1"])
@pytest.mark.parametrize("again", ["INSERT INTO words(word) VALUES ('c'), ('d')", "SAVEPOINT s", "COMMIT"])
def test_a_denied_read_of_the_schema_loses_nothing_of_a_full_text_table(core: Core, first: str, again: str) -> None:
    """It writes when a savepoint begins, and loses what it could not write: nothing of the capture may fail there."""

    def deny(action: int, first: str | None, *_: str | None) -> int:
        reads_version = (action, first) == (apsw.SQLITE_PRAGMA, "schema_version")
        return apsw.SQLITE_DENY if reads_version else apsw.SQLITE_OK

    core.sql("CREATE VIRTUAL TABLE words USING fts5(word)")
    core.sql(f"BEGIN; {first}; INSERT INTO words(word) VALUES ('a'), ('b')")
    core.connection.authorizer = deny
    with contextlib.suppress(CaptureError):
        core.sql(again)
    core.connection.authorizer = None
    if core.connection.in_transaction:
        core.sql("UPDATE t SET b = b")  # not affected by the full-text table's error
        with pytest.raises(CaptureError, match="AuthError"):
            core.sql("COMMIT")
    check_integrity(core)
    assert core.rows("SELECT count(*) FROM words") == [0]
    core.sql("INSERT INTO words(word) VALUES ('e'); INSERT INTO t VALUES (1, 1)")
    assert core.changes() == [inserted("t", "1", a=1, b=1)]
