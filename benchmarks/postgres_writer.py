"""What a capture costs whoever writes to the database."""

from __future__ import annotations

import re
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

from nodedb_ring import EventConsumer, create_event_bus
from nodedb_ring.capture.postgres import PostgresCapture
from tests.unit.capture.postgres.server import Database, require_postgres

from .measure import check

__all__ = ["writer_costs"]

_COMMITS: Final = 1000
_SCRIPT: Final = "INSERT INTO written(a, b) SELECT 'some text', i / 7.0 FROM generate_series(1, 10) AS i;"


def writer_costs(database: Database, rounds: int) -> tuple[float, float]:
    """How much longer commits of ten rows take, with a slot that nobody reads, and under a capture that is drained.

    Ratios to the same commits without a slot, medians over rounds in turn. The writer is ``pgbench``; it shares the
    machine with the server and the capture.
    """
    database.execute(
        "CREATE TABLE written(id serial PRIMARY KEY, a text, b float8)", "CREATE PUBLICATION w FOR TABLE written"
    )
    kept: list[float] = []
    captured: list[float] = []
    for _ in range(rounds):
        [producer], [consumer] = create_event_bus(1)
        capture = PostgresCapture(database.dsn, producer, publication="w", slot="written")
        alone = _milliseconds(database)
        capture.ensure_slot()
        kept.append(_milliseconds(database) / alone)
        capture.drop_slot()
        capture.ensure_slot()
        reader = threading.Thread(target=_drain, args=(consumer, 10 * _COMMITS))
        with capture:
            while not capture.stats().connected:
                time.sleep(0.01)
            reader.start()
            captured.append(_milliseconds(database) / alone)
            reader.join()
        check("events of the writer", capture.stats().emitted, 10 * _COMMITS)
        capture.drop_slot()
    return statistics.median(kept), statistics.median(captured)


def _drain(consumer: EventConsumer, count: int) -> None:
    while count:
        count -= len(consumer.drain(4096, timeout=1.0))


def _milliseconds(database: Database) -> float:
    """Of one commit, as ``pgbench`` says."""
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "script.sql"
        script.write_text(_SCRIPT)
        command = [str(require_postgres() / "pgbench"), "-n", "-f", str(script), "-t", str(_COMMITS), database.dsn]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = re.search(r"^latency average = ([0-9.]+) ms", done.stdout, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"pgbench says no latency: {done.stdout}")
    return float(found[1])
