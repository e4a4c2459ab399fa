"""SqliteCapture: the schema changes while its tables are captured."""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from .captured import UPDATE, Core, deleted, inserted, open_database, t, updated


def test_columns_added_renamed_and_dropped(core: Core) -> None:
    core.sql("INSERT INTO t VALUES (1, 1)")
    core.sql("ALTER TABLE t ADD COLUMN c DEFAULT 'd'")
    core.sql("UPDATE t SET b = 2")
    core.sql("ALTER TABLE t RENAME COLUMN b TO bb")
    core.sql("UPDATE t SET bb = 3")
    core.sql("ALTER TABLE t DROP COLUMN c")
    core.sql("UPDATE t SET bb = 4")
    core.sql("ALTER TABLE t RENAME TO tt")
    core.sql("UPDATE tt SET bb = 5")
    assert [change[1:] for change in core.changes()] == [
        ("t", "1", None, {"a": 1, "b": 1}),
        ("t", "1", {"a": 1, "b": 1, "c": "d"}, {"a": 1, "b": 2, "c": "d"}),
        ("t", "1", {"a": 1, "bb": 2, "c": "d"}, {"a": 1, "bb": 3, "c": "d"}),
        ("t", "1", {"a": 1, "bb": 3}, {"a": 1, "bb": 4}),
        ("tt", "1", {"a": 1, "bb": 4}, {"a": 1, "bb": 5}),
    ]


def test_every_kind_of_schema_change_inside_a_transaction(core: Core) -> None:
    """The same, in one transaction in which the capture already takes part: only savepoints announce the change."""
    core.sql("CREATE TABLE u(p, q); BEGIN; INSERT INTO u VALUES (1, 2)")
    seen = []
    for change, columns in [
        ("ALTER TABLE u RENAME COLUMN p TO r", "r q"),
        ("ALTER TABLE u ADD COLUMN s", "r q s"),
        ("ALTER TABLE u DROP COLUMN q", "r s"),
        ("ALTER TABLE u RENAME TO v; ALTER TABLE v RENAME TO u", "r s"),
        ("DROP TABLE u; CREATE TABLE u(q, p); INSERT INTO u VALUES (1, 1)", "q p"),
        ("DROP TABLE u; CREATE TABLE u(p, q PRIMARY KEY) WITHOUT ROWID; INSERT INTO u VALUES (1, 1)", "p q"),
    ]:
        core.sql(change)
        first = columns.split()[0]
        core.sql(f"UPDATE u SET {first} = {first} + 1")
        seen.append(columns)
    core.sql("COMMIT")
    events = [change for change in core.changes() if change.op == UPDATE]
    assert [" ".join(change.new or ()) for change in events] == seen


def test_a_schema_change_that_is_rolled_back(core: Core) -> None:
    """SQLite gives the number of an undone schema version again, here to another schema."""
    core.sql("CREATE TABLE u(p)")
    for undo in ("ROLLBACK", "ROLLBACK TO s; RELEASE s; COMMIT"):
        core.sql("BEGIN; SAVEPOINT s; ALTER TABLE u RENAME COLUMN p TO wrong; INSERT INTO u VALUES (1)")
        core.sql(undo)
        core.sql("BEGIN; ALTER TABLE u RENAME COLUMN p TO q; INSERT INTO u VALUES (2); COMMIT")
        core.sql("ALTER TABLE u RENAME COLUMN q TO p")
    assert [change.new for change in core.changes()] == [{"q": 2}, {"q": 2}]


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_another_connection_changes_the_schema(tmp_path: Path, journal: str) -> None:
    core = Core(open_database(journal, tmp_path))
    core.sql("CREATE TABLE t(a)")
    core.start()
    core.sql("INSERT INTO t VALUES (1)")
    other = apsw.Connection(core.connection.filename)
    other.execute("ALTER TABLE t RENAME COLUMN a TO b")
    other.close()
    core.sql("INSERT INTO t VALUES (2)")
    assert [change.new for change in core.changes()] == [{"a": 1}, {"b": 2}]


def test_a_table_made_later(core: Core) -> None:
    core.sql("BEGIN; CREATE TABLE later(x); INSERT INTO later VALUES (1); COMMIT")
    core.sql("DROP TABLE later")
    assert core.changes() == [inserted("later", "1", x=1)]


def test_vacuum_and_drop_are_not_row_changes(core: Core) -> None:
    core.sql("PRAGMA foreign_keys = OFF; INSERT INTO t VALUES (1, 1), (2, 2)")
    assert len(core.changes()) == 2
    core.sql("VACUUM")
    core.sql("INSERT INTO t VALUES (3, 3)")
    assert core.changes() == [inserted("t", "3", a=3, b=3)]
    core.sql("DROP TABLE t")
    assert core.changes() == []


def test_dropping_a_table_that_others_refer_to_deletes_its_rows_first(core: Core) -> None:
    core.sql("CREATE TABLE child(p REFERENCES t(a)); INSERT INTO t VALUES (1, 1), (2, 2)")
    core.changes()
    core.sql("DROP TABLE t")
    assert core.changes() == [deleted("t", "1", a=1, b=1), deleted("t", "2", a=2, b=2)]


def test_create_table_as_select_is_not_a_row_change(core: Core) -> None:
    core.sql("INSERT INTO t VALUES (1, 1)")
    core.changes()
    core.sql("CREATE TABLE copied AS SELECT * FROM t")
    assert core.changes() == []
    core.sql("UPDATE copied SET b = 2")
    assert core.changes() == [updated("copied", "1", t(1, 1), t(1, 2))]
