"""SqliteCapture: each way in which SQLite changes a row, or takes a change back, must come out exactly.

Most tests run on three databases, because a commit is done at different moments in each: one in memory, a file with a
write-ahead log, a file with a rollback journal.
"""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

import logging
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import apsw
import msgpack
import pytest

from nodedb_ring import EventConsumer, EventProducer, EventSource, OwnershipError, WriteEvent, WriteOp, create_event_bus
from nodedb_ring.capture import CaptureError, SqliteCapture
from nodedb_ring.capture.sqlite import Value
from nodedb_ring.errors import FieldError
from tests.unit.runners import in_thread

INSERT, UPDATE, DELETE = WriteOp.INSERT, WriteOp.UPDATE, WriteOp.DELETE
Row = dict[str, Any]


class Change(NamedTuple):
    """What a test says of an event."""

    op: WriteOp
    collection: str
    row_id: str
    old: Row | None = None
    new: Row | None = None


def inserted(collection: str, row_id: str, **new: Any) -> Change:
    return Change(INSERT, collection, row_id, None, new)


def updated(collection: str, row_id: str, old: Row, new: Row) -> Change:
    return Change(UPDATE, collection, row_id, old, new)


def deleted(collection: str, row_id: str, **old: Any) -> Change:
    return Change(DELETE, collection, row_id, old, None)


def row(value: bytes | None) -> Row | None:
    if value is None:
        return None
    decoded = msgpack.unpackb(value)
    assert isinstance(decoded, dict)
    return cast("Row", decoded)


class Core:
    """A database and the ring that its capture emits into."""

    def __init__(self, connection: apsw.Connection, *, capacity: int = 1024, arena_bytes: int | None = None) -> None:
        self.connection = connection
        [self.producer], [self.consumer] = create_event_bus(1, capacity=capacity, arena_bytes=arena_bytes)
        self.capture: SqliteCapture

    def start(self, **options: Any) -> Core:
        self.capture = SqliteCapture(self.connection, self.producer, **options)
        return self

    def sql(self, statements: str, *bindings: Value) -> list[tuple[Value, ...]]:
        return cast("list[tuple[Value, ...]]", list(self.connection.execute(statements, bindings or None)))

    def events(self) -> list[WriteEvent]:
        return drained(self.consumer)

    def changes(self) -> list[Change]:
        return [Change(e.op, e.collection, e.row_id, row(e.old_value), row(e.new_value)) for e in self.events()]

    def rows(self, query: str) -> list[Value]:
        """The first column of a query, which is enough to see what the database kept."""
        return [first for first, *_ in self.sql(query)]


def drained(consumer: EventConsumer) -> list[WriteEvent]:
    events: list[WriteEvent] = []
    while batch := list(consumer.drain()):
        events += batch
    return events


JOURNALS = ["memory", "wal", "delete"]


def open_database(journal: str, folder: Path) -> apsw.Connection:
    connection = apsw.Connection(":memory:" if journal == "memory" else str(folder / "core.db"))
    assert list(connection.execute(f"PRAGMA journal_mode = {journal}")) == [(journal,)]
    connection.execute("PRAGMA synchronous = OFF; PRAGMA foreign_keys = ON")
    connection.set_busy_timeout(0)
    return connection


@pytest.fixture(params=JOURNALS)
def core(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Core]:
    """A captured database with one table of the common kind, ``t(a INTEGER PRIMARY KEY, b UNIQUE)``."""
    connection = open_database(request.param, tmp_path)
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE)")
    yield Core(connection).start()
    connection.close()


def t(a: int, b: Value) -> Row:
    return {"a": a, "b": b}


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


# The schema changes.


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
    with sqlite3.connect(":memory:") as wrong, pytest.raises(TypeError, match=r"must be an apsw\.Connection"):
        SqliteCapture(wrong, core.producer)  # type: ignore[arg-type]
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
