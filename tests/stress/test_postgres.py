"""A few of the kills of ``python -m tests.stress.postgres``, and a ring that stays full."""

from __future__ import annotations

import time

import pytest

from tests.absent_libraries import needs


@pytest.mark.slow
@needs("psycopg2")
def test_the_events_make_the_rows_whatever_is_killed() -> None:
    from .postgres import run

    assert run(20, seed=1) == []


@pytest.mark.slow
@needs("psycopg2")
def test_a_ring_that_is_full_for_two_minutes_keeps_the_connection() -> None:
    """Twelve times as long as the server waits for an answer, while the database goes on writing."""
    from tests.unit.capture.postgres.captured import Captured, until
    from tests.unit.capture.postgres.server import PostgresServer

    with PostgresServer(wal_sender_timeout="10s") as server:
        database = server.database()
        database.execute("CREATE TABLE t(id int PRIMARY KEY, a text)", "CREATE PUBLICATION p FOR TABLE t")
        core = Captured(database, "full", capacity=64)
        capture = core.capture()
        capture.ensure_slot()
        rows, end = 0, time.monotonic() + 120.0
        with capture:
            while time.monotonic() < end:
                # More than the socket holds, in small transactions and large ones.
                for size in (1, 1000):
                    insert = "INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series"
                    database.execute(f"{insert}({rows + 1}, {rows + size}) i")
                    rows += size
                until(lambda: core.producer.utilization > 80)
                assert capture.stats().emitted <= 64
                time.sleep(1.0)
            stats = capture.stats()
            assert (stats.connected, stats.reconnects) == (True, 0)
            assert stats.lag_seconds > 100.0
            for first in range(1, rows + 1, 1001):
                batch = core.drain(1001)
                assert batch.strings("row_id").tolist() == [str(i) for i in range(first, first + 1001)]
            assert len(core.consumer.drain(1, timeout=1.0)) == 0
            assert capture.stats().reconnects == 0
