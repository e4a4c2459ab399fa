"""What becomes an event, from statements on a real server."""

from __future__ import annotations

import time
from types import SimpleNamespace

import psycopg2
import pytest

from nodedb_ring import WriteOp
from nodedb_ring.capture.postgres import PostgresCapture
from nodedb_ring.capture.postgres.stream import Stream
from nodedb_ring.errors import CaptureError, ClosedError

from .captured import Captured, captured, maps, new_slot, until
from .server import Database


def test_committed_changes_in_order(database: Database) -> None:
    with captured(database, "t(id int PRIMARY KEY, name text)") as core:
        with database.session() as cursor:
            cursor.execute("INSERT INTO t VALUES (1, 'a'), (2, NULL)")
            cursor.execute("BEGIN; UPDATE t SET name = 'b' WHERE id = 1; SAVEPOINT s; DELETE FROM t")
            cursor.execute("ROLLBACK TO s; UPDATE t SET id = 3 WHERE id = 2; COMMIT")
            cursor.execute("BEGIN; INSERT INTO t VALUES (9, 'z'); ROLLBACK")
            cursor.execute("DELETE FROM t WHERE id = 3; TRUNCATE t")
        batch = core.drain(7)
        assert maps(batch) == [
            ("INSERT", "1", None, {"id": 1, "name": "a"}),
            ("INSERT", "2", None, {"id": 2, "name": None}),
            ("UPDATE", "1", None, {"id": 1, "name": "b"}),
            ("DELETE", "2", {"id": 2}, None),
            ("INSERT", "3", None, {"id": 3, "name": None}),
            ("DELETE", "3", {"id": 3}, None),
            ("BULK_DELETE", "", None, None),
        ]
        assert batch.sequence.tolist() == list(range(1, 8))
        lsns = batch.lsn.tolist()
        assert lsns[0] == lsns[1] < lsns[2] == lsns[3] == lsns[4] < lsns[5]
        assert set(batch.strings("collection").tolist()) == {"public.t"}
        [(now,)] = database.execute("SELECT extract(epoch FROM now()) * 1000")
        assert abs(int(batch.system_time_ms[-1]) - float(now)) < 60_000


def test_replica_identity_full_and_index_and_nothing(database: Database) -> None:
    tables = ("f(a int, b text)", "i(a int, b text NOT NULL)")
    identities = (
        "ALTER TABLE f REPLICA IDENTITY FULL",
        "CREATE UNIQUE INDEX k ON i(b)",
        "ALTER TABLE i REPLICA IDENTITY USING INDEX k",
    )
    with captured(database, *tables, *identities) as core:
        with database.session() as cursor:
            cursor.execute("INSERT INTO f VALUES (1, 'x'); UPDATE f SET a = 1; UPDATE f SET a = 2; DELETE FROM f")
            cursor.execute("INSERT INTO i VALUES (1, 'x'); UPDATE i SET a = 2; UPDATE i SET b = 'y'; DELETE FROM i")
            cursor.execute("CREATE TABLE n(a int)")
            cursor.execute("INSERT INTO n VALUES (1)")
        assert maps(core.drain(11)) == [
            ("INSERT", "1,'x'", None, {"a": 1, "b": "x"}),
            ("UPDATE", "1,'x'", {"a": 1, "b": "x"}, {"a": 1, "b": "x"}),
            ("DELETE", "1,'x'", {"a": 1, "b": "x"}, None),
            ("INSERT", "2,'x'", None, {"a": 2, "b": "x"}),
            ("DELETE", "2,'x'", {"a": 2, "b": "x"}, None),
            ("INSERT", "x", None, {"a": 1, "b": "x"}),
            ("UPDATE", "x", None, {"a": 2, "b": "x"}),
            ("DELETE", "x", {"b": "x"}, None),
            ("INSERT", "y", None, {"a": 2, "b": "y"}),
            ("DELETE", "y", {"b": "y"}, None),
            ("INSERT", "", None, {"a": 1}),
        ]


def test_columns_that_come_and_go(database: Database) -> None:
    with captured(database, "t(id int PRIMARY KEY, a int)") as core:
        with database.session() as cursor:
            cursor.execute("INSERT INTO t VALUES (1, 1)")
            cursor.execute("ALTER TABLE t ADD b text DEFAULT 'd'")
            cursor.execute("INSERT INTO t VALUES (2, 2, 'x')")
            cursor.execute("ALTER TABLE t DROP a, ALTER id TYPE text")
            cursor.execute("INSERT INTO t VALUES ('3', 'y')")
            cursor.execute("ALTER TABLE t RENAME TO u")
            cursor.execute("INSERT INTO u VALUES ('4', 'z')")
        batch = core.drain(4)
        assert [new for *_, new in maps(batch)] == [
            {"id": 1, "a": 1},
            {"id": 2, "a": 2, "b": "x"},
            {"id": "3", "b": "y"},
            {"id": "4", "b": "z"},
        ]
        assert batch.strings("collection").tolist() == ["public.t"] * 3 + ["public.u"]


def test_an_unchanged_large_value_is_not_given(database: Database) -> None:
    with captured(database, "t(id int PRIMARY KEY, a int, large text)", arena_bytes=8 << 20) as core:
        with database.session() as cursor:
            cursor.execute("ALTER TABLE t ALTER large SET STORAGE EXTERNAL")
            cursor.execute("INSERT INTO t VALUES (1, 1, repeat('x', 3000000))")
            cursor.execute("UPDATE t SET a = 2; UPDATE t SET large = NULL")
        batch = core.drain(3)
        rows = batch.rows("new_value", core.capture().schema("public.t"))
        assert rows.given("large").tolist() == [True, False, True]
        assert rows.valid("large").tolist() == [True, False, False]
        assert len(rows["large"][0]) == 3_000_000
        assert rows["a"].tolist() == [1, 2, 2]


def test_a_large_key_that_stays(database: Database) -> None:
    with captured(database, "t(id text PRIMARY KEY, a int)") as core:
        with database.session() as cursor:
            cursor.execute("ALTER TABLE t ALTER id SET STORAGE EXTERNAL")
            cursor.execute("INSERT INTO t VALUES (repeat('k', 2500), 1); UPDATE t SET a = 2; DELETE FROM t")
        assert [(op, row_id) for op, row_id, *_ in maps(core.drain(3))] == [
            ("INSERT", "k" * 2500),
            ("UPDATE", "k" * 2500),
            ("DELETE", "k" * 2500),
        ]


def test_partitions_and_generated_columns(database: Database) -> None:
    tables = (
        "q(id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED) PARTITION BY RANGE (id)",
        "q1 PARTITION OF q FOR VALUES FROM (0) TO (10)",
        "q2 PARTITION OF q FOR VALUES FROM (10) TO (20)",
    )
    with captured(database, *tables) as core:
        database.execute("INSERT INTO q VALUES (1), (11)", "UPDATE q SET id = 12 WHERE id = 1")
        batch = core.drain(4)
        assert batch.strings("collection").tolist() == ["public.q1", "public.q2", "public.q1", "public.q2"]
        assert maps(batch)[0] == ("INSERT", "1", None, {"id": 1})
        database.execute("ALTER PUBLICATION p SET (publish_via_partition_root = true)", "INSERT INTO q VALUES (3)")
        assert core.drain(1).strings("collection").tolist() == ["public.q"]


def test_the_application_does_not_see_our_settings(database: Database) -> None:
    with captured(database, "t(id int PRIMARY KEY, at timestamptz, b bytea)") as core:
        with database.session() as cursor:
            cursor.execute("SET datestyle = German; SET timezone = 'Asia/Tokyo'; SET bytea_output = escape")
            cursor.execute("ALTER ROLE postgres SET datestyle = German")
            cursor.execute("INSERT INTO t VALUES (1, '2020-01-01 09:00:00+09', '\\x00ff')")
            cursor.execute("ALTER ROLE postgres RESET datestyle")
        [(*_, new)] = maps(core.drain(1))
        assert new is not None
        assert (new["at"].seconds, new["b"]) == (1577836800, b"\x00\xff")


def test_schema_of_a_table(database: Database) -> None:
    database.execute(
        'CREATE SCHEMA "S.x"',
        'CREATE TABLE "S.x"."T t"(a int, b float4, c bool, d bytea, e timestamptz, f numeric, g int[], h date)',
    )
    schema = Captured(database, new_slot()).capture().schema("S.x.T t")
    assert dict(schema) == {
        "a": "int64",
        "b": "float64",
        "c": "bool",
        "d": "bytes",
        "e": "timestamp",
        "f": "str",
        "g": "raw",
        "h": "str",
    }
    assert Captured(database, new_slot()).capture().schema('"S.x"."T t"') == schema
    with pytest.raises(CaptureError, match=r"table 'none': does not exist.*schema\.table"):
        Captured(database, new_slot()).capture().schema("none")


def test_what_is_missing_is_said(database: Database) -> None:
    core = Captured(database, new_slot())
    with pytest.raises(CaptureError, match=r"publication 'p': does not exist.*CREATE PUBLICATION p"):
        core.capture().start()
    database.execute("CREATE TABLE t(id int)", "CREATE PUBLICATION p FOR TABLE t")
    with pytest.raises(CaptureError, match=r"table public\.t: has no replica identity.*REPLICA IDENTITY FULL"):
        core.capture().start()
    database.execute("ALTER PUBLICATION p SET (publish = 'insert')")
    with pytest.raises(CaptureError, match=r"slot 'slot_.*does not exist; call ensure_slot"):
        core.capture().start()
    assert core.capture().ensure_slot()
    assert not core.capture().ensure_slot()
    with core.capture() as running:
        database.execute("INSERT INTO t VALUES (1)")
        assert maps(core.drain(1)) == [("INSERT", "", None, {"id": 1})]
        with pytest.raises(CaptureError, match=r"was not dropped.*is active.*stop its capture"):
            core.capture(slot_timeout=0.0).drop_slot()
        other = core.capture(slot_timeout=0.0)
        with pytest.raises(CaptureError, match=r"is active for PID.*stop that capture"):
            other.run()
        with pytest.raises(ClosedError, match="has run already"):
            running.start()
    assert core.capture().drop_slot()
    assert not core.capture().drop_slot()
    with pytest.raises(CaptureError, match="cannot be reached"):
        type(running)("host=127.0.0.1 port=1", core.producer, publication="p", slot="s").start()


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE t(id int PRIMARY KEY)", "ALTER TABLE t REPLICA IDENTITY NOTHING"],
        ["CREATE TABLE t(id int PRIMARY KEY DEFERRABLE)"],
        [
            "CREATE TABLE t(id int PRIMARY KEY, a int UNIQUE NOT NULL)",
            "ALTER TABLE t REPLICA IDENTITY USING INDEX t_a_key",
            "ALTER TABLE t DROP a",
        ],
    ],
    ids=["nothing", "deferrable", "dropped"],
)
def test_tables_whose_updates_the_server_would_refuse(database: Database, statements: list[str]) -> None:
    database.execute(*statements, "CREATE PUBLICATION p FOR TABLE t", "INSERT INTO t VALUES (1)")
    with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState, match="does not have a replica identity"):
        database.execute("UPDATE t SET id = 2")
    with pytest.raises(CaptureError, match=r"table public\.t: has no replica identity"):
        Captured(database, new_slot()).capture().ensure_slot()
    database.execute("ALTER TABLE t REPLICA IDENTITY FULL")
    assert Captured(database, new_slot()).capture().ensure_slot()


def test_a_user_needs_the_right_to_replicate_and_no_other(database: Database) -> None:
    user = f"user_of_{database.name}"
    database.execute("CREATE TABLE t(id int PRIMARY KEY)", "CREATE PUBLICATION p FOR TABLE t")
    database.execute(f"CREATE ROLE {user} LOGIN REPLICATION")
    core = Captured(database, new_slot())
    dsn = database.dsn.replace("user=postgres", f"user={user}")
    capture = PostgresCapture(dsn, core.producer, publication="p", slot=core.slot)
    try:
        assert capture.ensure_slot()
        with capture:
            database.execute("INSERT INTO t VALUES (1)")
            assert maps(core.drain(1)) == [("INSERT", "1", None, {"id": 1})]
        assert capture.drop_slot()
    finally:
        database.execute(f"DROP ROLE {user}")


def test_dropping_a_slot_waits_until_its_capture_has_gone(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with captured(database, "t(id int PRIMARY KEY)") as core:
        assert core.running is not None
        running = core.running
        until(lambda: database.execute("SELECT FROM pg_replication_slots WHERE active") != [])

        def close_in_place_of_waiting(_seconds: float) -> None:
            running.close()
            time.sleep(0.01)

        clock = SimpleNamespace(monotonic=time.monotonic, sleep=close_in_place_of_waiting)
        monkeypatch.setattr("nodedb_ring.capture.postgres.slot.time", clock)
        assert core.capture(slot_timeout=50.0).drop_slot()


def test_another_slot_and_a_publication_that_came_later(database: Database) -> None:
    slot = new_slot()
    core = Captured(database, slot)
    database.execute(
        "CREATE TABLE t(id int PRIMARY KEY)",
        f"SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')",
        "CREATE PUBLICATION p FOR TABLE t",
    )
    with pytest.raises(CaptureError, match="is of plugin test_decoding"):
        core.capture().start()
    database.execute(f"SELECT pg_drop_replication_slot('{slot}')", "DROP PUBLICATION p")
    database.execute(f"SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')", "INSERT INTO t VALUES (1)")
    database.execute("CREATE PUBLICATION p FOR TABLE t")
    with pytest.raises(CaptureError, match="did not exist when a change was made"):
        core.capture().run()


def test_stats(database: Database) -> None:
    with captured(database, "t(id int PRIMARY KEY)") as core:
        capture = core.running
        assert capture is not None
        database.execute("INSERT INTO t VALUES (1), (2)")
        batch = core.drain(2)
        assert batch.op.tolist() == [WriteOp.INSERT] * 2
        until(lambda: capture.stats().position > int(batch.lsn[-1]))
        stats = capture.stats()
        assert (stats.received, stats.emitted, stats.connected, stats.reconnects) == (2, 2, True, 0)
        assert stats.lag_seconds == 0.0
        until(lambda: capture.stats().lag_bytes is not None)
    assert not capture.stats().connected


def test_an_idle_slot_does_not_hold_back_the_log(database: Database) -> None:
    with captured(database, "t(id int PRIMARY KEY)") as core:
        database.execute("DROP PUBLICATION p", "CREATE PUBLICATION p FOR TABLE t", "CREATE TABLE other(a text)")
        database.execute("INSERT INTO other SELECT repeat('x', 1000) FROM generate_series(1, 2000)")
        [(end,)] = database.execute("SELECT pg_current_wal_insert_lsn() - '0/0'")
        query = f"SELECT confirmed_flush_lsn - '0/0' >= {end} FROM pg_replication_slots WHERE slot_name = '{core.slot}'"
        until(lambda: database.execute(query) == [(True,)])


def test_a_change_that_the_arena_cannot_hold(database: Database) -> None:
    core = Captured(database, new_slot(), arena_bytes=65536)
    database.execute("CREATE TABLE t(id int PRIMARY KEY, large text)", "CREATE PUBLICATION p FOR TABLE t")
    capture = core.capture()
    capture.ensure_slot()
    capture.start()
    database.execute("INSERT INTO t VALUES (1, 'a')")
    assert maps(core.drain(1)) == [("INSERT", "1", None, {"id": 1, "large": "a"})]
    database.execute("INSERT INTO t VALUES (2, repeat('x', 70000))")
    until(lambda: capture.error is not None)
    with pytest.raises(CaptureError, match=r"table public\.t: a change of \d+ bytes .*larger arena_bytes"):
        capture.close()
    assert capture.error is None


def test_what_the_ring_has_not_taken_is_not_confirmed(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    waits, wait = 0, Stream.wait

    def counted(stream: Stream, seconds: float) -> None:
        nonlocal waits
        waits += 1
        wait(stream, seconds)

    monkeypatch.setattr(Stream, "wait", counted)
    with captured(database, "t(id int PRIMARY KEY)", capacity=4) as core:
        capture = core.running
        assert capture is not None
        query = f"SELECT confirmed_flush_lsn - '0/0' FROM pg_replication_slots WHERE slot_name = '{core.slot}'"
        database.execute("INSERT INTO t SELECT generate_series(1, 6)")
        # As an idle server tells, sooner or later.
        [(end,)] = database.execute("SELECT pg_current_wal_insert_lsn() - '0/0'")
        monkeypatch.setattr(Stream, "server_position", property(lambda _: int(end)))
        first = core.drain(1)
        until(lambda: core.producer.stats().emitted >= 4)
        before = waits
        until(lambda: waits >= before + 4)
        assert capture.stats().position <= int(first.lsn[0])
        assert database.execute(query)[0][0] <= int(first.lsn[0])
        core.drain(5)
        until(lambda: database.execute(query)[0][0] >= int(end))
