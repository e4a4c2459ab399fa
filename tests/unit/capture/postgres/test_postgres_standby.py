"""A standby that takes over: without the slot the capture ends, and a new snapshot begins there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nodedb_ring.capture.postgres import PostgresCapture
from nodedb_ring.errors import CaptureError
from nodedb_ring.log.sqlite import SqliteEventLog

from .captured import Captured, Replica, new_slot, until
from .server import Database, PostgresServer
from .test_postgres_log import insert

TIMELINE = "SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int"


@pytest.fixture
def primary(own_server: PostgresServer) -> Database:
    database = own_server.database()
    database.execute("CREATE TABLE t(id int PRIMARY KEY, a text)", "CREATE PUBLICATION p FOR TABLE t")
    return database


@pytest.fixture
def standby(primary: Database) -> Iterator[Database]:
    """The same database on a server that replays what the primary writes."""
    with PostgresServer(primary=primary.server) as server:
        yield Database(server, primary.name)


def take_over(primary: Database, standby: Database) -> None:
    """Has the standby replay everything, kills the primary, and promotes the standby: another timeline."""
    [(end,)] = primary.execute("SELECT pg_current_wal_flush_lsn()")
    until(lambda: standby.execute(f"SELECT pg_last_wal_replay_lsn() >= '{end}'") == [(True,)])
    primary.server.kill()
    assert standby.execute("SELECT pg_promote(wait_seconds => 60)") == [(True,)]


def either(primary: Database, standby: Database) -> str:
    """Whichever of the two takes writes."""
    hosts = f"host={primary.server.directory},{standby.server.directory}"
    ports = f"port={primary.server.port},{standby.server.port}"
    return f"{hosts} {ports} user=postgres dbname={primary.name} target_session_attrs=read-write"


def rows(database: Database) -> dict[str, dict[str, object]]:
    return {str(key): {"id": key, "a": a} for key, a in database.execute("SELECT id, a FROM t")}


def test_without_its_slot_the_capture_ends_and_a_snapshot_begins_anew(
    primary: Database, standby: Database, tmp_path: Path
) -> None:
    slot, dsn = new_slot(), either(primary, standby)
    with SqliteEventLog(tmp_path / "log.db") as log:
        capture = PostgresCapture(dsn, Captured(primary, slot).producer, publication="p", slot=slot, log=log)
        capture.ensure_slot()
        capture.start()
        primary.execute(insert(1, 3))
        until(lambda: log.last_sequence(0) == 3)
        [(before,)] = primary.execute(TIMELINE)
        take_over(primary, standby)
        assert standby.execute(TIMELINE) == [(before + 1,)]
        until(lambda: capture.error is not None)
        with pytest.raises(CaptureError, match=rf"slot '{slot}': does not exist any more.*standby.*snapshot=True"):
            capture.close()
        again = PostgresCapture(dsn, Captured(primary, slot).producer, publication="p", slot=slot, log=log)
        with pytest.raises(CaptureError, match=rf"slot '{slot}': does not exist; call ensure_slot\(\).*snapshot=True"):
            again.start()
        assert log.last_sequence(0) == 3
    with SqliteEventLog(tmp_path / "new.db") as log:
        core = Captured(standby, slot)
        anew = PostgresCapture(dsn, core.producer, publication="p", slot=slot, log=log, snapshot=True)
        with anew:
            assert core.drain(3).strings("row_id").tolist() == ["1", "2", "3"]
            standby.execute(insert(4, 5), "DELETE FROM t WHERE id = 1")
            assert core.drain(3).strings("row_id").tolist() == ["4", "5", "1"]
            assert anew.stats().reconnects == 0
        replica = Replica()
        replica.apply(log.read(0, 1, 2**62))
        assert replica.tables["public.t"] == rows(standby)


def test_a_slot_that_is_dropped_while_the_connection_is_lost(primary: Database) -> None:
    core = Captured(primary, new_slot())
    capture = core.capture()
    capture.ensure_slot()
    capture.start()
    primary.execute(insert(1, 3))
    core.drain(3)
    administration = Database(primary.server, "postgres")
    # So that the capture finds no slot when it comes again.
    administration.execute(f"ALTER DATABASE {primary.name} ALLOW_CONNECTIONS false")
    where = f"FROM pg_replication_slots WHERE slot_name = '{core.slot}' AND active"
    administration.execute(f"SELECT pg_terminate_backend(active_pid) {where}")
    until(lambda: administration.execute(f"SELECT {where}") == [])
    administration.execute(f"SELECT pg_drop_replication_slot('{core.slot}')")
    administration.execute(f"ALTER DATABASE {primary.name} ALLOW_CONNECTIONS true")
    until(lambda: capture.error is not None)
    with pytest.raises(CaptureError, match=r"does not exist any more; it was dropped"):
        capture.close()
