"""Connections that are lost, servers that restart, and captures that are killed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path

import psycopg2
import pytest

from nodedb_ring import EventBatch, logged
from nodedb_ring.capture.postgres import PostgresCapture
from nodedb_ring.errors import CaptureError
from nodedb_ring.log.sqlite import SqliteEventLog

from .captured import Captured, Replica, captured, maps, new_slot, until
from .server import Database, PostgresServer
from .test_postgres_log import insert


def terminate(database: Database, slot: str) -> None:
    database.execute(
        f"SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{slot}' AND active"
    )


def test_a_lost_connection_is_made_again(database: Database) -> None:
    with captured(database, "t(id int PRIMARY KEY, a text)") as core:
        capture = core.running
        assert capture is not None
        for i in range(1, 4):
            database.execute(f"INSERT INTO t VALUES ({i}, 'a')")
            assert maps(core.drain(1))[0][1] == str(i)
            terminate(database, core.slot)
            until(lambda i=i: capture.stats().reconnects == i and capture.stats().connected)  # type: ignore[misc]
        database.execute("INSERT INTO t VALUES (9, 'a')")
        assert maps(core.drain(1))[0][1] == "9"


@pytest.mark.parametrize("taken", [0, 30, 300])
def test_nothing_comes_twice_when_the_connection_is_lost_in_a_transaction(database: Database, taken: int) -> None:
    with captured(database, "t(id int PRIMARY KEY, a text)", capacity=64) as core:
        capture = core.running
        assert capture is not None
        # The ring takes the first of them, and the capture waits for room in the middle of the transaction.
        database.execute("INSERT INTO t SELECT i, repeat('x', 2000) FROM generate_series(1, 20000) i")
        until(lambda: core.producer.utilization > 80)
        first = core.drain(taken) if taken else EventBatch.from_events([])
        terminate(database, core.slot)
        rest = core.drain(20_000 - taken)
        batch = EventBatch.concat([first, rest])
        assert batch.strings("row_id").tolist() == [str(i) for i in range(1, 20_001)]
        assert batch.sequence.tolist() == list(range(1, 20_001))
        assert len(set(batch.lsn.tolist())) == 1
        assert capture.stats().reconnects >= 1
        assert len(core.consumer.drain(1, timeout=0.3)) == 0


@pytest.fixture
def own_database(own_server: PostgresServer) -> Database:
    return own_server.database()


def test_a_server_that_is_killed_and_started_again(own_database: Database, tmp_path: Path) -> None:
    server = own_database.server
    with (
        SqliteEventLog(tmp_path / "log.db") as log,
        captured(own_database, "t(id int PRIMARY KEY, a text)", log=log) as core,
    ):
        capture = core.running
        assert capture is not None
        for i in range(3):
            until(lambda: capture.stats().connected)
            own_database.execute(insert(100 * i, 100 * i + 49))
            if i % 2:
                server.kill()
            else:
                server.stop()
            server.start()
            own_database.execute(insert(100 * i + 50, 100 * i + 99))
            until(lambda i=i: log.last_sequence(0) == 100 * (i + 1))  # type: ignore[misc]
        assert capture.stats().reconnects == 3
        replica = Replica()
        replica.apply(log.read(0, 1, 2**62))
        assert sorted(map(int, replica.tables["public.t"])) == list(range(300))


def test_a_server_that_cannot_decode_is_refused() -> None:
    with PostgresServer(wal_level="replica") as server:
        core = Captured(Database(server, "postgres"), "s")
        for call in (core.capture().start, core.capture().ensure_slot):
            with pytest.raises(CaptureError, match=r"wal_level is replica.*ALTER SYSTEM SET wal_level = logical"):
                call()


def test_a_slot_whose_log_was_removed_is_refused(own_server: PostgresServer) -> None:
    database = own_server.database()
    database.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'", "SELECT pg_reload_conf()")
    database.execute("CREATE TABLE t(id int PRIMARY KEY)", "CREATE PUBLICATION p FOR TABLE t")
    core = Captured(database, "s")
    core.capture().ensure_slot()
    database.execute("CREATE TABLE other AS SELECT repeat('x', 1000) AS a FROM generate_series(1, 40000)")
    database.execute("SELECT pg_switch_wal()", "CHECKPOINT", "SELECT pg_switch_wal()", "CHECKPOINT")
    with pytest.raises(CaptureError, match=r"slot 's': the server has removed WAL.*drop_slot\(\)"):
        core.capture().start()


PROCESS = """
import sys
from pathlib import Path
from nodedb_ring import create_event_bus
from nodedb_ring.capture.postgres import PostgresCapture
from nodedb_ring.log.sqlite import SqliteEventLog

[producer], [consumer] = create_event_bus(1, capacity=1024)
log = SqliteEventLog(sys.argv[3])
consumer.close()
PostgresCapture(sys.argv[1], producer, publication="p", slot=sys.argv[2], log=log).run()
"""


@contextlib.contextmanager
def process(database: Database, slot: str, path: Path) -> Generator[subprocess.Popen[bytes], None, None]:
    with subprocess.Popen([sys.executable, "-c", PROCESS, database.dsn, slot, str(path)]) as running:
        try:
            yield running
        finally:
            running.kill()


def test_a_capture_that_is_killed_while_others_write(database: Database, tmp_path: Path) -> None:
    database.execute("CREATE TABLE t(id serial PRIMARY KEY, a text)", "CREATE PUBLICATION p FOR TABLE t")
    slot = new_slot()
    Captured(database, slot).capture().ensure_slot()
    done = threading.Event()

    def write() -> None:
        with database.session() as cursor:
            # Slowly enough for a capture that gets little of the machine.
            while not done.wait(0.1):
                cursor.execute("INSERT INTO t(a) SELECT 'a' FROM generate_series(1, 1 + (random() * 3000)::int)")
                with contextlib.suppress(psycopg2.errors.DeadlockDetected):
                    cursor.execute("UPDATE t SET a = 'b' WHERE random() < 0.001; DELETE FROM t WHERE random() < 0.001")

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    path = tmp_path / "log.db"
    log = SqliteEventLog(path)
    try:
        for _ in range(5):
            before = log.last_sequence(0) or 0
            with process(database, slot, path):
                until(lambda before=before: (log.last_sequence(0) or 0) > before + 1000, seconds=300.0)  # type: ignore[misc]
    finally:
        done.set()
        for writer in writers:
            writer.join()
    [(end,)] = database.execute("SELECT pg_current_wal_insert_lsn() - '0/0'")
    query = f"SELECT confirmed_flush_lsn - '0/0' >= {end} FROM pg_replication_slots WHERE slot_name = '{slot}'"
    with process(database, slot, path):
        until(lambda: database.execute(query) == [(True,)], seconds=300.0)
    replica = Replica()
    replica.apply(log.read(0, 1, 2**62))
    assert {int(key): row["a"] for key, row in replica.tables["public.t"].items()} == dict(
        database.execute("SELECT id, a FROM t")
    )
    log.close()


def high_water_kib(pid: int) -> int:
    """The most memory that a process has had."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1])


@pytest.mark.slow
def test_a_large_transaction_takes_no_more_memory(database: Database, tmp_path: Path) -> None:
    database.execute("CREATE TABLE t(id int PRIMARY KEY, a text)", "CREATE PUBLICATION p FOR TABLE t")
    slot, taken = new_slot(), list[int]()
    Captured(database, slot).capture().ensure_slot()
    with SqliteEventLog(tmp_path / "log.db") as log, process(database, slot, tmp_path / "log.db") as running:
        last = 0
        for count in (50_000, 1_000_000):
            database.execute(insert(last + 1, last + count))
            last += count
            until(lambda last=last: (log.last_sequence(0) or 0) >= last, seconds=300.0)  # type: ignore[misc]
            taken.append(high_water_kib(running.pid))
    # A million events have 250 MB.
    assert taken[1] - taken[0] < 20_000


def test_errors_of_the_server_name_the_database(database: Database, tmp_path: Path) -> None:
    core = Captured(database, "Not a slot")
    database.execute("CREATE TABLE t(id int PRIMARY KEY)", "CREATE PUBLICATION p FOR TABLE t")
    with pytest.raises(CaptureError, match="slot 'Not a slot' was not created: replication slot name"):
        core.capture().ensure_slot()
    with SqliteEventLog(tmp_path / "log.db") as log, pytest.raises(TypeError, match=r"must be an EventProducer.*log="):
        PostgresCapture(database.dsn, logged(core.producer, log), publication="p", slot="s")  # type: ignore[arg-type]
