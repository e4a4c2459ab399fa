"""Snapshot and stream together: nothing between the two is missing, and nothing comes twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg2.extensions
import pytest

from nodedb_ring import EventBatch, WriteOp
from nodedb_ring.batch.schema import NO_TIME
from nodedb_ring.capture.postgres import snapshot
from nodedb_ring.capture.postgres.tables import PublishedTable, published_tables
from nodedb_ring.log.sqlite import SqliteEventLog

from .captured import Captured, Replica, maps, new_slot, until
from .server import Database
from .test_postgres_log import HookedLog, Interrupted, insert, run_until_interrupted

TABLE = "CREATE TABLE t(id int PRIMARY KEY, a text)"


def slots(database: Database) -> list[tuple[str]]:
    return database.execute(f"SELECT slot_name FROM pg_replication_slots WHERE database = '{database.name}'")


@pytest.fixture
def hooked(tmp_path: Path) -> Iterator[HookedLog]:
    with SqliteEventLog(tmp_path / "log.db") as log:
        yield HookedLog(log)


def test_rows_and_then_changes(database: Database) -> None:
    database.execute(
        "CREATE TABLE t(id int PRIMARY KEY, a text, at timestamptz, n numeric[], b bytea)",
        "CREATE TABLE empty(id int PRIMARY KEY)",
        "CREATE PUBLICATION p FOR ALL TABLES",
        "INSERT INTO t VALUES (1, E'tab\\t newline\\n back\\\\slash \\\\N', '2020-01-01Z', '{1.50,NULL}', '\\x0a0d5c')",
        "INSERT INTO t VALUES (2, NULL, NULL, NULL, NULL), (3, '\\N', NULL, '{}', '\\x')",
    )
    core = Captured(database, new_slot())
    with core.capture(snapshot=True) as capture:
        rows = core.drain(3)
        until(lambda: slots(database) == [(core.slot,)])
        database.execute("UPDATE t SET a = 'b' WHERE id = 2")
        change = core.drain(1)
        assert capture.stats().received == 4
    assert rows.system_time_ms.tolist() == [NO_TIME] * 3
    assert len(set(rows.lsn.tolist())) == 1
    assert rows.lsn[0] <= change.lsn[0]
    decoded = [new for *_, new in maps(rows) if new is not None]
    assert decoded[0]["a"] == "tab\t newline\n back\\slash \\N"
    assert (decoded[0]["at"].seconds, decoded[0]["n"], decoded[0]["b"]) == (1577836800, ["1.50", None], b"\n\r\\")
    assert decoded[1] == {"id": 2, "a": None, "at": None, "n": None, "b": None}
    assert decoded[2] == {"id": 3, "a": "\\N", "at": None, "n": [], "b": b""}
    # A snapshot's row is as the stream would have it.
    database.execute("DELETE FROM t WHERE id = 1")
    with core.capture(snapshot=True):
        assert maps(core.drain(1)) == [("DELETE", "1", {"id": 1}, None)]


def test_what_is_committed_during_the_snapshot_comes_once(database: Database, hooked: HookedLog) -> None:
    database.execute(
        "CREATE TABLE t(id int PRIMARY KEY, a text)", "CREATE PUBLICATION p FOR TABLE t", insert(1, 20_000)
    )
    core = Captured(database, new_slot(), capacity=65536)

    def change(_: EventBatch) -> None:
        # Its first call comes when the slot is there, and a part of the rows.
        if hooked.appends == 1:
            database.execute(
                insert(20_001, 20_010), "UPDATE t SET a = 'new' WHERE id IN (1, 19999)", "DELETE FROM t WHERE id = 2"
            )
            database.execute("UPDATE t SET id = 30000 WHERE id = 19998")

    hooked.after = change
    with core.capture(log=hooked, snapshot=True):
        until(lambda: (hooked.log.last_sequence(0) or 0) >= 20_000 + 10 + 2 + 1 + 2)
        database.execute("ALTER TABLE t ADD b int DEFAULT 5", "INSERT INTO t VALUES (40000, 'last', 6)")
        until(lambda: (hooked.log.last_sequence(0) or 0) >= 20_016)
    replica = Replica()
    replica.apply(hooked.read(0, 1, 2**62))
    rows = replica.tables["public.t"]
    assert {int(key): row["a"] for key, row in rows.items()} == dict(database.execute("SELECT id, a FROM t"))
    assert rows["40000"] == {"id": 40000, "a": "last", "b": 6}
    assert replica.sequence == 20_016


def test_the_rows_are_those_of_the_moment_when_the_slot_begins(
    database: Database, hooked: HookedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute(TABLE, "CREATE PUBLICATION p FOR TABLE t", insert(1, 3))

    def tables(cursor: psycopg2.extensions.cursor, publication: str) -> list[PublishedTable]:
        # The slot is there, and nothing was read yet.
        database.execute(insert(4, 5), "DELETE FROM t WHERE id = 1")
        return published_tables(cursor, publication)

    monkeypatch.setattr(snapshot, "published_tables", tables)
    core = Captured(database, new_slot())
    with core.capture(log=hooked, snapshot=True):
        until(lambda: hooked.log.last_sequence(0) == 6)
    replica = Replica()
    replica.apply(hooked.read(0, 1, 2**62))
    assert sorted(replica.tables["public.t"]) == ["2", "3", "4", "5"]


@pytest.mark.parametrize("appends", [0, 1, 3])
def test_a_snapshot_that_was_broken_off_begins_again(database: Database, hooked: HookedLog, appends: int) -> None:
    database.execute(
        "CREATE TABLE t(id int PRIMARY KEY, a text)", "CREATE PUBLICATION p FOR TABLE t", insert(1, 20_000)
    )
    core = Captured(database, new_slot(), capacity=65536)

    def interrupt(_: EventBatch) -> None:
        if hooked.appends == appends:
            raise Interrupted

    # The third append is the last one: all rows are there, and the slot is not.
    if appends:
        hooked.after = interrupt
    else:
        hooked.before = interrupt
    run_until_interrupted(core.capture(log=hooked, snapshot=True))
    # The temporary one goes when the server notices that the connection has.
    until(lambda: slots(database) == [])
    hooked.before = hooked.after = lambda _: None
    database.execute("DELETE FROM t WHERE id = 1")
    core = Captured(database, core.slot, capacity=65536)
    with core.capture(log=hooked, snapshot=True):
        until(lambda: slots(database) == [(core.slot,)])
        database.execute("UPDATE t SET a = 'b' WHERE id = 2")
        until(lambda: bool(hooked.log.last_sequence(0)) and "b" in str(last_row(hooked)))
    replica = Replica()
    replica.apply(hooked.read(0, 1, 2**62))
    assert {int(key): row["a"] for key, row in replica.tables["public.t"].items()} == dict(
        database.execute("SELECT id, a FROM t")
    )
    deletions = sum(int((batch.op == WriteOp.BULK_DELETE).sum()) for batch in hooked.read(0, 1, 2**62))
    assert deletions == (1 if appends else 0)


def last_row(hooked: HookedLog) -> object:
    last = hooked.log.last_sequence(0) or 0
    return [maps(batch)[-1][3] for batch in hooked.read(0, last, last)]


def test_a_restart_after_the_snapshot_and_before_the_first_commit(database: Database, hooked: HookedLog) -> None:
    database.execute("CREATE TABLE t(id int PRIMARY KEY, a text)", "CREATE PUBLICATION p FOR TABLE t", insert(1, 5))
    core = Captured(database, new_slot())
    with core.capture(log=hooked, snapshot=True):
        until(lambda: slots(database) == [(core.slot,)])
    database.execute(insert(6, 7))
    core = Captured(database, core.slot)
    with core.capture(log=hooked, snapshot=True):
        until(lambda: hooked.log.last_sequence(0) == 7)
    replica = Replica()
    replica.apply(hooked.read(0, 1, 2**62))
    assert sorted(replica.tables["public.t"]) == list("1234567")


def test_columns_and_rows_that_a_publication_has_not(database: Database) -> None:
    database.execute(
        "CREATE TABLE t(id int PRIMARY KEY, a int, b int)",
        "CREATE PUBLICATION p FOR TABLE t(id, b) WHERE (id > 1)",
        "INSERT INTO t VALUES (1, 1, 1), (2, 2, 2)",
        "CREATE TABLE parent(id int PRIMARY KEY)",
        "CREATE TABLE child(PRIMARY KEY (id)) INHERITS (parent)",
        "INSERT INTO child VALUES (5)",
        "ALTER PUBLICATION p ADD TABLE parent",
        "CREATE TABLE parts(id int PRIMARY KEY) PARTITION BY RANGE (id)",
        "CREATE TABLE part1 PARTITION OF parts FOR VALUES FROM (0) TO (10)",
        "INSERT INTO parts VALUES (7)",
        "ALTER PUBLICATION p ADD TABLE parts",
        "ALTER PUBLICATION p SET (publish_via_partition_root = true)",
    )
    core = Captured(database, new_slot())
    with core.capture(snapshot=True):
        batch = core.drain(3)
        found = dict(zip(batch.strings("collection").tolist(), [new for *_, new in maps(batch)], strict=True))
        assert found == {"public.child": {"id": 5}, "public.parts": {"id": 7}, "public.t": {"id": 2, "b": 2}}
        database.execute("INSERT INTO t VALUES (3, 3, 3), (0, 0, 0)")
        assert maps(core.drain(1)) == [("INSERT", "3", None, {"id": 3, "b": 3})]


def test_a_snapshot_waits_for_the_ring(database: Database) -> None:
    database.execute(
        "CREATE TABLE t(id int PRIMARY KEY, a text)", "CREATE PUBLICATION p FOR TABLE t", insert(1, 20_000)
    )
    core = Captured(database, new_slot(), capacity=64)
    with core.capture(snapshot=True) as capture:
        until(lambda: core.producer.utilization > 90)
        time.sleep(0.3)
        assert capture.stats().emitted <= 64
        assert core.drain(20_000).strings("row_id").tolist() == [str(i) for i in range(1, 20_001)]
