"""A capture that joins a transaction, follows a schema, begins or ends does its database no harm.

Each test makes the connection do what is hard on a capture, and then asks SQLite whether the database is whole.
"""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import apsw
import pytest

from nodedb_ring.capture import CaptureError, SqliteCapture
from tests.unit.capture.captured import Core, deleted, inserted, open_database, updated

from .integrity import check_integrity, module_name

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
