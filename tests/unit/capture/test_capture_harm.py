"""SqliteCapture does its database no harm: what it did once, and what a capture could do, must not come back.

Each test makes the connection do what is hard on a capture, and then asks SQLite whether the database is whole.
"""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, cast

import apsw
import msgpack
import pytest

from nodedb_ring.capture import CaptureError, SqliteCapture
from nodedb_ring.capture.sqlite import Value
from nodedb_ring.log.sqlite import SqliteEventLog

from .test_capture import JOURNALS, Core, deleted, inserted, open_database, updated


class Boom(Exception):
    """Raised by a function of the application's."""


@pytest.fixture(params=JOURNALS)
def core(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Core]:
    connection = open_database(request.param, tmp_path)
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    yield Core(connection).start()
    connection.close()


def module_name(core: Core) -> str:
    """What the capture's virtual table is called."""
    [name] = core.rows("SELECT name FROM pragma_module_list WHERE name LIKE 'nodedb_ring_capture_%'")
    assert isinstance(name, str)
    return name


def check_integrity(core: Core) -> None:
    assert core.rows("PRAGMA integrity_check") == ["ok"]


# Where it joins a transaction.

SCHEMA_CHANGES = [
    "CREATE TABLE other(x)",
    "CREATE INDEX i ON t(b)",
    "VACUUM",
    "ANALYZE",
    "DROP TABLE spare",
    "PRAGMA user_version = 7",
]


@pytest.mark.parametrize("begin", ["", "BEGIN"])
@pytest.mark.parametrize("change", SCHEMA_CHANGES)
@pytest.mark.parametrize("table", ["t", "later"])
def test_an_insert_after_a_change_of_the_schema(core: Core, table: str, change: str, begin: str) -> None:
    """The statement that joins was once prepared under the schema before, and its failure moved the row elsewhere."""
    core.sql("CREATE TABLE spare(x); CREATE TABLE later(a INTEGER PRIMARY KEY, b)")
    for a in (2, 4, 5, 8, 10):
        core.sql(f"INSERT INTO {table} VALUES (?, 1)", a)
    core.changes()
    core.sql(change)
    core.sql(f"{begin}; INSERT INTO {table} VALUES (11, 1)")
    if begin:
        core.sql("COMMIT")
    check_integrity(core)
    assert core.rows(f"SELECT a FROM {table}") == [2, 4, 5, 8, 10, 11]
    assert core.rows(f"SELECT a FROM {table} WHERE a = 11") == [11]
    assert core.changes() == [inserted(table, "11", a=11, b=1)]


@pytest.mark.parametrize("table", ["t", "later"])
def test_an_insert_after_another_connection_changed_the_schema(tmp_path: Path, table: str) -> None:
    core = Core(open_database("wal", tmp_path))
    core.sql("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    core.start()
    core.sql("CREATE TABLE later(a INTEGER PRIMARY KEY, b)")
    other = apsw.Connection(core.connection.filename)
    for n in range(3):
        for a in range(2):
            core.sql(f"INSERT INTO {table} VALUES (?, 1)", 100 - 2 * n - a)
        other.execute(f"CREATE TABLE other_{n}(x); INSERT INTO other_{n} VALUES (1)")
    other.close()
    check_integrity(core)
    assert len(core.changes()) == 6


def test_a_hundred_pages_after_a_vacuum(tmp_path: Path) -> None:
    core = Core(open_database("delete", tmp_path))
    core.sql(
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b);"
        " WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 20000)"
        " INSERT INTO t SELECT 2 * n, hex(n) FROM r"
    )
    core.start()
    core.sql("INSERT INTO t VALUES (1, 1)")
    core.sql("VACUUM")
    core.sql("INSERT INTO t VALUES (20001, 'found')")
    check_integrity(core)
    assert core.rows("SELECT b FROM t WHERE a = 20001") == ["found"]


@contextlib.contextmanager
def interrupted_at(core: Core, step: int) -> Generator[None]:
    """At an instruction of SQLite's machine, those of the capture's own statements included."""
    left = step

    def stop() -> bool:
        nonlocal left
        left -= 1
        return left == 0

    core.connection.set_progress_handler(stop, 1)
    try:
        yield
    finally:
        core.connection.set_progress_handler(None)


@pytest.mark.parametrize("table", ["t", "later"])
def test_a_transaction_that_is_interrupted_leaves_the_next_alone(core: Core, table: str) -> None:
    core.sql("CREATE TABLE later(a INTEGER PRIMARY KEY, b)")
    for step in range(1, 120):
        with interrupted_at(core, step), contextlib.suppress(apsw.InterruptError, CaptureError):
            core.sql(f"INSERT INTO {table} VALUES (?, ?)", step, step)
        core.sql(f"INSERT INTO {table} VALUES (?, ?)", 1000 + step, 1000 + step)  # not refused
        check_integrity(core)
    reported = sorted(int(change.row_id) for change in core.changes())
    assert reported == core.rows(f"SELECT a FROM {table} ORDER BY a")
    assert {1000 + step for step in range(1, 120)} <= set(reported)
    assert 1 not in reported
    assert 119 in reported  # some were interrupted, and some were done before it came to that


def test_changes_of_an_interrupted_transaction_are_reported_or_undone(core: Core) -> None:
    # Until one is done the first statement reads the columns of all tables, too.
    for step in [*range(1, 400), *range(1000, 1120)]:
        with interrupted_at(core, step % 1000), contextlib.suppress(apsw.InterruptError):
            core.sql("INSERT INTO t VALUES (?, ?), (?, ?)", step, step, -step, -step)
    reported = sorted(int(change.row_id) for change in core.changes())
    assert reported == core.rows("SELECT a FROM t ORDER BY a")
    assert 1 not in reported
    assert 399 in reported
    assert 1001 not in reported
    assert 1119 in reported
    check_integrity(core)


def test_a_table_that_hides_the_virtual_one(core: Core) -> None:
    """It has the name that this capture's virtual table has: an error, and not a change that nobody hears of."""
    name = module_name(core)
    core.sql(f"CREATE TABLE {name}(x)")
    with pytest.raises((CaptureError, apsw.SQLError), match=f"a table named {name} hides|no such column"):
        core.sql("INSERT INTO t VALUES (1, 1)")
    check_integrity(core)
    assert (core.changes(), core.rows("SELECT a FROM t")) == ([], [])
    core.sql(f"DROP TABLE {name}")
    core.sql("INSERT INTO t VALUES (2, 2)")
    assert core.changes() == [inserted("t", "2", a=2, b=2)]


def test_a_name_that_is_taken_is_not_used(tmp_path: Path) -> None:
    core = Core(open_database("wal", tmp_path))
    core.sql("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    core.start()
    taken = 1 + int(module_name(core).rpartition("_")[2])
    for n in range(taken, taken + 200):
        core.sql(f"CREATE TABLE nodedb_ring_capture_{n}(x)")
    core.capture.close()
    core.start()
    core.sql("INSERT INTO t VALUES (1, 1)")
    assert core.changes() == [inserted("t", "1", a=1, b=1)]


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


# Images.


def test_an_added_real_column_has_floats_in_the_rows_that_were_there(core: Core) -> None:
    core.sql("INSERT INTO t VALUES (1, 1), (2, 2); ALTER TABLE t ADD COLUMN r REAL DEFAULT 3")
    core.changes()
    core.sql("UPDATE t SET a = 5 WHERE a = 1; DELETE FROM t WHERE a = 2")
    images = [image for change in core.changes() for image in (change.old, change.new) if image is not None]
    assert [(image["r"], type(image["r"])) for image in images] == [(3.0, float)] * 3


def test_records_that_sqlite_copies_whole(core: Core) -> None:
    """INSERT ... SELECT * between equal tables copies records, defaults and all that they lack; not under a capture."""
    core.sql("CREATE TABLE u(a INTEGER PRIMARY KEY, b, r REAL DEFAULT 3)")
    core.sql("INSERT INTO t VALUES (1, 1); ALTER TABLE t ADD COLUMN r REAL DEFAULT 3")
    core.capture.close()
    core.start()
    core.changes()
    core.sql("INSERT INTO u SELECT * FROM t")
    assert core.changes() == [inserted("u", "1", a=1, b=1, r=3.0)]


BOUNDS = [0, 1, 31, 32, 127, 128, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1]
VALUES: list[Value] = [
    *(number for bound in BOUNDS for number in (bound, -bound, -bound - 1)),
    *(None, 0.0, -0.0, 1.5, float("inf"), -1e300),
    *("x" * size for size in (0, 31, 32, 255, 256, 65_535, 65_536)),
    *(b"\xff" * size for size in (0, 255, 256, 65_535, 65_536)),
    "é\0漢😀",
]


def test_values_are_packed_as_msgpack_packs_them(tmp_path: Path) -> None:
    core = Core(open_database("memory", tmp_path), arena_bytes=1 << 22)
    wide = [f"column {n} é" for n in range(20)]
    core.sql(f"CREATE TABLE t(a, b); CREATE TABLE w({', '.join(f'{name!r}' for name in wide)})")
    core.start()
    for value in VALUES:
        core.sql("INSERT INTO t VALUES (?, 'end')", value)
    core.sql(f"INSERT INTO w VALUES ({', '.join(map(str, range(20)))})")
    *events, last = core.events()
    assert [event.new_value for event in events] == [msgpack.packb({"a": value, "b": "end"}) for value in VALUES]
    assert last.new_value == msgpack.packb(dict(zip(wide, range(20), strict=True)))


# The schema, while the capture follows it.

RENAMES = [
    ("ALTER TABLE t RENAME COLUMN b TO c", {"a": 2, "c": 2}),
    ("ALTER TABLE t ADD COLUMN c DEFAULT 7", {"a": 2, "b": 2, "c": 7}),
    ("ALTER TABLE t DROP COLUMN b; ALTER TABLE t ADD COLUMN d DEFAULT 2", {"a": 2, "d": 2}),
    ("DROP TABLE t; CREATE TABLE t(x INTEGER PRIMARY KEY, y)", {"x": 2, "y": 2}),
]


@pytest.mark.parametrize(("change", "expected"), RENAMES)
@pytest.mark.parametrize("before", ["", "INSERT INTO t VALUES (1, 1)", "SAVEPOINT s; INSERT INTO t VALUES (1, 1)"])
def test_a_change_of_the_schema_within_a_transaction(
    core: Core, change: str, expected: dict[str, Any], before: str
) -> None:
    core.sql(f"BEGIN; {before}; {change}")
    names = core.rows("SELECT name FROM pragma_table_info('t') ORDER BY cid LIMIT 2")
    core.sql(f"INSERT INTO t({', '.join(map(str, names))}) VALUES (2, 2)")
    core.sql("COMMIT")
    assert core.changes()[-1] == inserted("t", "2", **expected)
    check_integrity(core)


def test_a_renamed_table_and_one_that_loses_its_triggers(core: Core) -> None:
    core.sql("ALTER TABLE t RENAME TO u; INSERT INTO u VALUES (1, 1)")
    core.sql("PRAGMA temp_store = MEMORY")  # drops what is in temp, the capture's triggers too
    core.sql("BEGIN; SAVEPOINT s; UPDATE u SET b = 2; ROLLBACK TO s; DELETE FROM u; COMMIT")
    assert core.changes() == [inserted("u", "1", a=1, b=1), deleted("u", "1", a=1, b=1)]


# Beginning and end.


def test_triggers_restored_by_a_rollback_after_close_do_nothing(core: Core) -> None:
    core.sql("BEGIN")
    core.capture.close()
    core.sql("ROLLBACK")  # of the dropping of the triggers
    core.sql(
        "INSERT INTO t VALUES (1, 1); BEGIN; UPDATE t SET b = 2; SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; COMMIT"
    )
    assert (core.changes(), core.rows("SELECT b FROM t")) == ([], [2])
    core.start()
    core.sql("UPDATE t SET b = 3")
    assert core.changes() == [updated("t", "1", {"a": 1, "b": 2}, {"a": 1, "b": 3})]


def test_a_capture_that_cannot_begin_leaves_nothing(tmp_path: Path) -> None:
    core = Core(open_database("wal", tmp_path))
    core.sql("CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE u(x)")

    def deny(action: int, _first: str | None, second: str | None, *_: str | None) -> int:
        return apsw.SQLITE_DENY if action == apsw.SQLITE_CREATE_TEMP_TRIGGER and second == "u" else apsw.SQLITE_OK

    core.connection.authorizer = deny
    with pytest.raises(apsw.AuthError):
        SqliteCapture(core.connection, core.producer)
    core.connection.authorizer = None
    assert not core.connection.in_transaction
    assert core.rows("SELECT name FROM temp.sqlite_schema") == []
    core.sql("INSERT INTO t VALUES (1, 1)")
    assert core.changes() == []


def test_loading_extensions_is_forbidden_or_allowed_as_before(core: Core) -> None:
    for allowed in (0, 1):
        core.capture.close()
        core.connection.config(apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, allowed)
        core.start()
        assert core.connection.config(apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, -1) == allowed


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
