"""SqliteCapture with a log: a commit that failed is made again, and other virtual tables write in it."""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from pathlib import Path
from typing import cast

import apsw
import pytest

from nodedb_ring.capture import CaptureError

from .logged import LoggedCore, logged_core


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
