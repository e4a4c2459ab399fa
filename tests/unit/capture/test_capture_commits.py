"""SqliteCapture: a change is emitted once its transaction has committed, and never otherwise; what a ring takes."""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import apsw
import pytest

from nodedb_ring import EventProducer, OwnershipError, WriteEvent, WriteOp
from nodedb_ring.capture import CaptureError, SqliteCapture
from tests.unit.runners import in_thread

from .captured import INSERT, Core, inserted, open_database

# When it is emitted.


def test_nothing_is_emitted_before_the_commit(core: Core) -> None:
    core.sql("BEGIN")
    core.sql("INSERT INTO t VALUES (1, 1)")
    assert core.changes() == []
    assert (core.capture.pending, core.capture.lsn) == (1, 0)
    core.sql("COMMIT")
    assert core.changes() == [inserted("t", "1", a=1, b=1)]
    assert (core.capture.pending, core.capture.lsn) == (0, 1)


class Witness:
    """A producer that reads the database file when it gets a row: log first, then the ring."""

    next_sequence = 1

    def __init__(self, observe: Callable[[], object]) -> None:
        self.observe = observe
        self.seen: list[object] = []

    def emit(self, event: WriteEvent) -> bool:
        self.seen.append(self.observe())
        return True


def test_a_row_can_be_read_from_the_log_when_it_is_emitted(tmp_path: Path) -> None:
    connection = open_database("wal", tmp_path)
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY)")
    reader = sqlite3.connect(connection.filename)
    witness = Witness(lambda: reader.execute("SELECT a FROM t").fetchall())
    SqliteCapture(connection, cast("EventProducer", witness))
    connection.execute("INSERT INTO t VALUES (5)")
    assert witness.seen == [[(5,)]]
    reader.close()
    connection.close()


def test_the_rollback_journal_is_gone_when_a_row_is_emitted(tmp_path: Path) -> None:
    """That is the moment of the commit; a reader would still find the file locked, until the statement ends."""
    connection = open_database("delete", tmp_path)
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY)")
    journal = Path(connection.filename + "-journal")
    witness = Witness(journal.exists)
    SqliteCapture(connection, cast("EventProducer", witness))
    connection.execute("BEGIN; INSERT INTO t VALUES (5)")
    assert journal.exists()
    connection.execute("COMMIT")
    assert witness.seen == [False]
    connection.close()


def test_rollback_emits_nothing(core: Core) -> None:
    core.sql("BEGIN; INSERT INTO t VALUES (1, 1); ROLLBACK")
    core.sql("INSERT INTO t VALUES (2, 2)")
    assert core.changes() == [inserted("t", "2", a=2, b=2)]
    assert core.capture.lsn == 1


def test_a_commit_without_captured_changes_has_no_number(core: Core) -> None:
    core.sql("BEGIN; SAVEPOINT s; INSERT INTO t VALUES (1, 1); ROLLBACK TO s; COMMIT")
    core.sql("BEGIN; SELECT * FROM t; COMMIT; CREATE TABLE u(a); UPDATE t SET b = 0")
    assert (core.changes(), core.capture.lsn) == ([], 0)


def test_returning_is_emitted_when_its_statement_ends(core: Core) -> None:
    cursor = core.connection.execute("INSERT INTO t VALUES (1, 1), (2, 2) RETURNING a")
    assert next(cursor) == (1,)
    assert core.changes() == []
    assert list(cursor) == [(2,)]
    assert len(core.changes()) == 2


def test_a_refusal_of_the_applications_commit_hook_emits_nothing(core: Core) -> None:
    refuse = True
    core.connection.set_commit_hook(lambda: refuse)
    with pytest.raises(apsw.ConstraintError):
        core.sql("INSERT INTO t VALUES (1, 1)")
    with pytest.raises(apsw.ConstraintError):
        core.sql("BEGIN; INSERT INTO t VALUES (2, 2); COMMIT")
    refuse = False
    core.sql("INSERT INTO t VALUES (3, 3)")
    assert core.changes() == [inserted("t", "3", a=3, b=3)]


def test_a_commit_that_finds_the_database_busy_can_be_repeated(tmp_path: Path) -> None:
    """With a rollback journal a reader holds up the commit, and the transaction stays open."""
    connection = open_database("delete", tmp_path)
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY); INSERT INTO t VALUES (100)")
    core = Core(connection).start()
    reader = apsw.Connection(connection.filename)
    reader.execute("BEGIN; SELECT * FROM t")
    core.sql("BEGIN; INSERT INTO t VALUES (1)")
    for _ in range(2):
        with pytest.raises(apsw.BusyError):
            core.sql("COMMIT")
    assert (core.changes(), core.capture.pending, connection.in_transaction) == ([], 1, True)
    core.sql("INSERT INTO t VALUES (2)")
    reader.execute("COMMIT")
    core.sql("COMMIT")
    assert core.changes() == [inserted("t", "1", a=1), inserted("t", "2", a=2)]

    reader.execute("BEGIN; SELECT * FROM t")
    with pytest.raises(apsw.BusyError):
        core.sql("INSERT INTO t VALUES (3)")
    core.sql("SAVEPOINT s; INSERT INTO t VALUES (4)")
    with pytest.raises(apsw.BusyError):
        core.sql("RELEASE s")
    core.sql("ROLLBACK")
    reader.execute("COMMIT")
    assert (core.changes(), core.rows("SELECT a FROM t")) == ([], [1, 2, 100])
    reader.close()
    connection.close()


class FailingFile(apsw.VFSFile):
    """A file on a device that has stopped writing."""

    broken = False

    def xWrite(self, data: Any, offset: int) -> None:
        if FailingFile.broken:
            raise apsw.IOError("the device is gone")
        super().xWrite(data, offset)


class FailingVFS(apsw.VFS):
    def __init__(self) -> None:
        self.vfs_name = "failing"
        super().__init__(self.vfs_name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return FailingFile("", name, flags)


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_commit_that_the_device_refuses_emits_nothing(tmp_path: Path, journal: str) -> None:
    vfs = FailingVFS()
    connection = apsw.Connection(str(tmp_path / "core.db"), vfs=vfs.vfs_name)
    connection.execute(f"PRAGMA journal_mode = {journal}; PRAGMA cache_spill = OFF")
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY)")
    core = Core(connection).start()
    core.sql("INSERT INTO t VALUES (1)")
    assert len(core.changes()) == 1
    core.sql("BEGIN; INSERT INTO t VALUES (2)")
    FailingFile.broken = True
    try:
        with pytest.raises(apsw.IOError):
            core.sql("COMMIT")
    finally:
        FailingFile.broken = False
    assert (core.changes(), core.capture.pending) == ([], 0)
    core.sql("INSERT INTO t VALUES (3)")
    assert core.changes() == [inserted("t", "3", a=3)]
    assert core.rows("SELECT a FROM t") == [1, 3]
    connection.close()
    vfs.unregister()


# What cannot be captured cannot be committed.


def test_text_that_is_not_utf8(core: Core) -> None:
    bad = "INSERT INTO t VALUES (2, CAST(X'ff' AS TEXT))"
    with pytest.raises(CaptureError, match="table t, row 2: its text is not UTF-8"):
        core.sql(bad)
    core.sql("BEGIN; INSERT INTO t VALUES (1, 1)")
    with pytest.raises(CaptureError):
        core.sql(bad)
    with pytest.raises(CaptureError, match=r"cannot be committed.*table t, row 2"):
        core.sql("COMMIT")
    assert not core.connection.in_transaction
    assert (core.changes(), core.rows("SELECT a FROM t")) == ([], [])


def test_a_refused_change_that_is_rolled_back_does_not_stop_the_commit(core: Core) -> None:
    core.sql("BEGIN; INSERT INTO t VALUES (1, 1); SAVEPOINT s")
    with pytest.raises(CaptureError):
        core.sql("INSERT INTO t VALUES (2, CAST(X'ff' AS TEXT)), (3, 3)")
    core.sql("SAVEPOINT later; ROLLBACK TO later")
    core.sql("ROLLBACK TO s; COMMIT")
    assert core.changes() == [inserted("t", "1", a=1, b=1)]


def test_a_refused_change_survives_a_later_savepoint(core: Core) -> None:
    core.sql("BEGIN")
    with pytest.raises(CaptureError):
        core.sql("INSERT INTO t VALUES (2, CAST(X'ff' AS TEXT))")
    core.sql("SAVEPOINT s; ROLLBACK TO s")
    with pytest.raises(CaptureError):
        core.sql("COMMIT")
    assert core.rows("SELECT a FROM t") == []


def test_incremental_blob_writes(core: Core) -> None:
    core.sql("CREATE TABLE files(body); INSERT INTO files VALUES (X'0000')")
    core.changes()
    blob = core.connection.blob_open("main", "files", "body", 1, True)
    with pytest.raises(CaptureError, match="table files, row 1: incremental writes"):
        blob.write(b"\x01")
    with pytest.raises(CaptureError, match="cannot be committed"):
        blob.close()
    assert (core.changes(), core.rows("SELECT body FROM files")) == ([], [b"\0\0"])


def test_a_virtual_generated_column(core: Core) -> None:
    core.sql("CREATE TABLE g(a, twice AS (2 * a))")
    with pytest.raises(CaptureError, match=r"table g: .*virtual generated column twice"):
        core.sql("INSERT INTO g VALUES (1)")
    assert core.rows("SELECT a FROM g") == []
    with pytest.raises(CaptureError, match="table g: "):
        SqliteCapture(core.connection, core.producer)


def deny_the_virtual_table(action: int, first: str | None, *_: str | None) -> int:
    ours = first is not None and first.startswith("nodedb_ring_capture")
    return apsw.SQLITE_DENY if ours else apsw.SQLITE_OK


def test_an_authorizer_that_forbids_to_take_part(core: Core) -> None:
    """The statement is refused before it begins, and the transaction is not affected."""
    core.connection.authorizer = deny_the_virtual_table
    core.sql("BEGIN")
    with pytest.raises(apsw.AuthError):
        core.sql("INSERT INTO t VALUES (1, 1)")
    core.connection.authorizer = None
    core.sql("INSERT INTO t VALUES (2, 2); COMMIT")
    assert core.changes() == [inserted("t", "2", a=2, b=2)]
    assert core.rows("SELECT a FROM t") == [2]


def test_a_table_made_later_whose_transaction_the_capture_cannot_join(core: Core) -> None:
    core.sql("CREATE TABLE later(x)")
    core.connection.authorizer = deny_the_virtual_table
    with pytest.raises(apsw.AuthError):
        core.sql("INSERT INTO later VALUES (1)")
    core.sql("BEGIN")
    with pytest.raises(apsw.AuthError):
        core.sql("INSERT INTO later VALUES (1)")
    core.sql("SAVEPOINT s")
    core.connection.authorizer = None
    core.sql("INSERT INTO later VALUES (2); ROLLBACK TO s")
    with pytest.raises(CaptureError, match="could not take part"):
        core.sql("COMMIT")
    assert (core.changes(), core.rows("SELECT x FROM later")) == ([], [])
    core.sql("INSERT INTO later VALUES (3)")
    assert core.changes() == [inserted("later", "1", x=3)]


# The ring.


def test_a_full_ring_drops_and_counts(tmp_path: Path) -> None:
    core = Core(open_database("wal", tmp_path), capacity=4)
    core.sql("CREATE TABLE t(a)")
    core.start()
    core.sql("INSERT INTO t VALUES (1), (2), (3), (4), (5), (6), (7), (8), (9), (10)")
    assert (core.capture.emitted, core.capture.dropped) == (4, 6)
    assert core.rows("SELECT count(*) FROM t") == [10]
    assert [e.sequence for e in core.events()] == [1, 2, 3, 4]
    core.sql("INSERT INTO t VALUES (11)")
    [event] = core.events()
    assert (event.sequence, event.lsn) == (11, 2)


def test_a_row_larger_than_the_arena_leaves_a_hole_that_shows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    core = Core(open_database("wal", tmp_path), capacity=16, arena_bytes=4096)
    core.sql("CREATE TABLE t(a)")
    core.start()
    with caplog.at_level(logging.WARNING, "nodedb_ring"):
        core.sql("INSERT INTO t VALUES (1), (zeroblob(10000)), (3)")
        core.sql("INSERT INTO t VALUES (4), (zeroblob(10000))")
    events = core.events()
    assert [(e.sequence, e.op) for e in events] == [
        (1, INSERT),
        (3, INSERT),
        (4, INSERT),
        (6, WriteOp.HEARTBEAT),  # nothing else would show that 5 is missing
    ]
    assert (core.capture.emitted, core.capture.dropped) == (3, 2)
    assert [record.getMessage().split(" dropped")[0] for record in caplog.records] == [
        "commit 1: 1 row changes",
        "commit 2: 1 row changes",
    ]
    core.sql("INSERT INTO t VALUES (6)")
    assert [e.sequence for e in core.events()] == [7]


class Raising(logging.Handler):
    """A handler that lets its errors out."""

    def emit(self, record: logging.LogRecord) -> None:
        raise ZeroDivisionError(record.getMessage())


@pytest.fixture
def raising() -> Iterator[None]:
    handler = Raising()
    logger = logging.getLogger("nodedb_ring")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)


def test_a_handler_of_the_log_that_raises_stops_no_commit(
    tmp_path: Path, raising: None, capsys: pytest.CaptureFixture[str]
) -> None:
    core = Core(open_database("wal", tmp_path), capacity=16, arena_bytes=4096)
    core.sql("CREATE TABLE t(a)")
    core.start()
    core.sql("INSERT INTO t VALUES (1), (zeroblob(10000)), (3)")
    assert [event.sequence for event in core.events()] == [1, 3]
    with pytest.raises(KeyError), core.capture:  # noqa: PT012
        core.sql("BEGIN; INSERT INTO t VALUES (4)")
        raise KeyError
    assert core.capture.closed
    assert capsys.readouterr().err.count("ZeroDivisionError: ") == 2


def test_a_commit_from_a_thread_that_does_not_own_the_producer(core: Core) -> None:
    core.sql("INSERT INTO t VALUES (1, 1)")
    with pytest.raises(OwnershipError) as raised:
        in_thread(lambda: core.sql("INSERT INTO t VALUES (2, 2), (3, 3)"))
    assert raised.type is OwnershipError
    assert core.rows("SELECT a FROM t") == [1, 2, 3]
    assert (core.capture.lsn, core.capture.emitted, core.capture.dropped) == (2, 1, 2)
    core.sql("INSERT INTO t VALUES (4, 4)")
    assert [e.sequence for e in core.events()] == [1, 4]
