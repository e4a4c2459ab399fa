"""capture.snapshot(): the rows of one moment, as the capture writes them, and what follows without a seam."""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import multiprocessing
import random
import threading
from pathlib import Path
from typing import Any

import apsw
import pytest

from nodedb_ring import ArgumentError, ClosedError, EventBatch, WriteEvent, WriteOp, create_event_bus, follow, merge
from nodedb_ring.capture import CaptureError, Snapshot, SqliteCapture
from nodedb_ring.log.sqlite import SqliteEventLog
from tests.unit.fan_in.database import Database, commit_at_random, opened, rebuilt

TABLES = """
CREATE TABLE plain(a, b TEXT, c REAL, d BLOB, e DECIMAL(10, 2), f INTEGER);
CREATE TABLE keyed(a INTEGER PRIMARY KEY, b);
CREATE TABLE "odd "" name"("x "" y" TEXT, rowid TEXT, _rowid_);
CREATE TABLE pair(a, b TEXT, c, PRIMARY KEY (b, a)) WITHOUT ROWID;
CREATE TABLE word(w TEXT PRIMARY KEY, n REAL) WITHOUT ROWID;
CREATE TABLE made(a INTEGER, b AS (a + 1) STORED, c);
CREATE TABLE strict(a INT, b ANY, c TEXT) STRICT;
"""
ROWS = """
INSERT INTO plain VALUES (1, 'x', 3, x'00ff', '2.50', -129), (NULL, NULL, NULL, NULL, NULL, NULL),
    (1e300, '', -0.5, x'', 'many', 9223372036854775807), (x'01', 'ä' || char(0) || 'b', 1e15, 'text', 3, 'no number');
INSERT INTO plain(rowid, a) VALUES (-5, 'before'), (1000000, 'behind');
INSERT INTO keyed VALUES (-1, 'x'), (70000, 1), (3, 2.0);
INSERT INTO "odd "" name" VALUES ('a', 'b', 'c');
INSERT INTO pair VALUES (1, 'x,y', 2), (0, 'z', 1), (1.5, '''', x'aa');
INSERT INTO word VALUES ('plain', 7), ('''quoted', 1.5), ('x''12', -3);
INSERT INTO made(a, c) VALUES (1, 'x'), (2, NULL);
INSERT INTO strict VALUES (1, '1', 'x'), (2, 1, NULL);
"""


def essence(event: WriteEvent) -> tuple[Any, ...]:
    return event.collection, event.row_id, event.op, event.new_value, event.old_value, event.source, event.count


def all_events(snapshot: Snapshot) -> list[WriteEvent]:
    return [event for batch in snapshot for event in batch]


@pytest.mark.parametrize("where", ["memory", "delete", "wal"])
@pytest.mark.parametrize("most", [1, 2, 1024])
def test_rows_are_written_as_the_capture_writes_them(tmp_path: Path, where: str, most: int) -> None:
    connection = apsw.Connection(":memory:" if where == "memory" else str(tmp_path / "core.db"))
    if where != "memory":
        connection.execute(f"PRAGMA journal_mode = {where}")
    connection.execute(TABLES)
    [producer], [consumer] = create_event_bus(1)
    with SqliteCapture(connection, producer, tenant_id=7, vshard_id=9) as capture:
        connection.execute(ROWS)
        captured = list(consumer.drain())
        with capture.snapshot(batch=most) as snapshot:
            batches = list(snapshot)
    found = [event for batch in batches for event in batch]
    assert sorted(map(essence, found), key=repr) == sorted(map(essence, captured), key=repr)
    assert max(map(len, batches)) <= most
    assert {(event.sequence, event.lsn, event.tenant_id, event.vshard_id) for event in found} == {
        (captured[-1].sequence, captured[-1].lsn, 7, 9)
    }
    assert (snapshot.sequence, snapshot.lsn, snapshot.token) == (captured[-1].sequence, capture.lsn, None)
    assert snapshot.positions == {0: snapshot.sequence}


def test_a_snapshot_and_the_ring_behind_it_without_a_log(tmp_path: Path) -> None:
    connection = opened(tmp_path / "core.db")
    connection.execute("PRAGMA journal_mode = WAL").get  # noqa: B018
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    [producer], [consumer] = create_event_bus(1)
    with SqliteCapture(connection, producer) as capture:
        connection.execute("INSERT INTO t VALUES (1, 1), (2, 2)")
        connection.execute("BEGIN; INSERT INTO t VALUES (3, 3)")
        snapshot = capture.snapshot()
        connection.execute("COMMIT; DELETE FROM t WHERE a = 1")
        with snapshot:
            assert [event.row_id for event in all_events(snapshot)] == ["1", "2"]
        assert (snapshot.sequence, snapshot.lsn) == (2, 1)
        rest = [event for event in consumer.drain() if event.sequence > snapshot.sequence]
        assert [(event.op, event.row_id) for event in rest] == [(WriteOp.INSERT, "3"), (WriteOp.DELETE, "1")]


@pytest.mark.parametrize("position", ["token", "sequence"])
def test_a_follower_continues_behind_it(tmp_path: Path, position: str) -> None:
    database = Database(tmp_path / "core.db", 1)
    database.connections[0].execute("INSERT INTO t VALUES (1, 1), (2, 2)")
    with database.captures[0].snapshot(batch=1) as snapshot:
        batches = [next(snapshot)]
        database.sql(0, "DELETE FROM t WHERE a = 2")
        database.sql(0, "UPDATE t SET b = 7")
        batches += snapshot
    after = snapshot.token if position == "token" else snapshot.sequence
    database.end()
    with follow(database.consumers[0], database.log, group="g", after=after) as follower:
        batches += follower
    assert rebuilt(batches) == database.rows() == [(1, 7)]


def test_an_empty_database(tmp_path: Path) -> None:
    database = Database(tmp_path / "core.db", 1)
    with database.captures[0].snapshot() as snapshot:
        assert (list(snapshot), snapshot.sequence, snapshot.lsn, snapshot.tables) == ([], 0, 0, ("t",))
        assert repr(snapshot) == "<Snapshot of 1 tables, sequence=0 lsn=0>"
    database.sql(0, "INSERT INTO t VALUES (1, 1)")
    for after in (snapshot.token, snapshot.sequence):
        with follow(None, database.log, core_id=0, group="g", after=after) as follower:
            assert len(follower.next_batch(0)) == 1
    with pytest.raises(ClosedError, match="this snapshot is closed"):
        next(snapshot)


def write(path: str, core: int, count: int, started: Any) -> None:
    connection = opened(Path(path))
    producers, _ = create_event_bus(core + 1, 4)
    draw = random.Random(core)
    with SqliteEventLog(path, driver="apsw") as log, SqliteCapture(connection, producers[core], log=log):
        for number in range(count):
            commit_at_random(connection, draw)
            if number == count // 4:
                started.release()


def test_a_snapshot_while_processes_write_and_a_merge_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "core.db"
    database = Database(path, 3)
    database.end()
    context = multiprocessing.get_context("spawn")
    started = context.Semaphore(0)
    writers = [context.Process(target=write, args=(str(path), core, 120, started)) for core in range(2)]
    for writer in writers:
        writer.start()
    for _ in writers:
        assert started.acquire(timeout=60)
    connection = opened(path)
    producers, _ = create_event_bus(3)
    batches: list[EventBatch] = []
    with (
        SqliteCapture(connection, producers[2], log=database.log) as capture,
        capture.snapshot(batch=1) as snapshot,
    ):
        for each in snapshot:
            batches.append(each)
            # Writers go on between any two batches.
            connection.execute(f"INSERT OR REPLACE INTO t VALUES ({len(batches) % 20}, {len(batches)})")
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    last = database.log.commits.last()
    assert 0 < snapshot.lsn < last - 5
    followers = [
        follow(None, database.log, core_id=core, group="g", after=snapshot.tokens.get(core, 0)) for core in range(3)
    ]
    merged = merge(followers, by="lsn")
    number = snapshot.lsn
    while number < last:
        each = next(merged)[1]
        assert each.lsn[0] == number + 1
        number = int(each.lsn[-1])
        batches.append(each)
    assert rebuilt(batches) == database.rows()


def test_a_snapshot_is_read_in_another_thread(tmp_path: Path) -> None:
    database = Database(tmp_path / "core.db", 1)
    database.sql(0, "INSERT INTO t VALUES (1, 1)")
    found: list[int] = []
    with database.captures[0].snapshot() as snapshot:
        thread = threading.Thread(target=lambda: found.extend(len(each) for each in snapshot))
        thread.start()
        thread.join()
    assert found == [1]


def test_a_captures_tables_alone(tmp_path: Path) -> None:
    connection = apsw.Connection(":memory:")
    connection.execute(
        "CREATE TABLE t(a); CREATE TABLE u(a); CREATE TABLE bad(a, b AS (a + 1)); INSERT INTO u VALUES (1)"
    )
    [producer], _ = create_event_bus(1)
    with SqliteCapture(connection, producer, tables=["U", "t"]) as capture:
        with capture.snapshot() as snapshot:
            assert sorted(snapshot.tables) == ["t", "u"]
        with capture.snapshot(["U"]) as snapshot:
            assert (snapshot.tables, len(all_events(snapshot))) == (("u",), 1)
        with pytest.raises(CaptureError, match="table 'bad': is not captured here"):
            capture.snapshot(["bad"])
        with pytest.raises(TypeError, match="not one str"):
            capture.snapshot("t")
        with pytest.raises(ArgumentError, match=r"^batch 0: must be from 1"):
            capture.snapshot(batch=0)
        connection.execute("BEGIN; INSERT INTO t VALUES (1)")
        with pytest.raises(CaptureError, match="in memory is copied"):
            capture.snapshot()
        connection.execute("COMMIT")
    with pytest.raises(CaptureError, match="this capture is closed"):
        capture.snapshot()


def test_rows_that_cannot_be_captured(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "core.db"))
    connection.execute(
        "CREATE TABLE t(a TEXT); INSERT INTO t VALUES (CAST(x'ff' AS TEXT)); CREATE TABLE h(rowid, _rowid_, oid)"
    )
    [producer], _ = create_event_bus(1)
    with SqliteCapture(connection, producer) as capture:
        with capture.snapshot(["t"]) as snapshot, pytest.raises(CaptureError, match="table t: has text that is not"):
            next(snapshot)
        with capture.snapshot(["h"]) as snapshot, pytest.raises(CaptureError, match="hide all names of the rowid"):
            next(snapshot)
        other = apsw.Connection(str(tmp_path / "core.db"))
        other.execute("BEGIN EXCLUSIVE")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("nodedb_ring.capture.snapshot.BUSY_SECONDS", 0.01)
            with pytest.raises(CaptureError, match="cannot be read for a snapshot"):
                capture.snapshot()
        other.close(True)
