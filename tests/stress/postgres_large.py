"""One transaction of ten million changes under capture: ``python -m tests.stress.postgres --large``.

The capture holds a few blocks of it at a time, so its memory is that of a small transaction. The log must have each
change once and in order.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from nodedb_ring.log.sqlite import SqliteEventLog
from tests.unit.capture.postgres.captured import Captured, until
from tests.unit.capture.postgres.server import PostgresServer
from tests.unit.capture.postgres.test_postgres_failures import high_water_kib, process
from tests.unit.capture.postgres.test_postgres_log import insert

__all__ = ["run_large"]

_SMALL: Final = 50_000
_MOST_KIB: Final = 20_000
"""By how much the process may grow from the small transaction to the large one, whose events have 1.8 GB."""


def run_large(changes: int = 10_000_000) -> list[str]:
    """Returns what is wrong at the end."""
    with PostgresServer() as server:
        database = server.database()
        database.execute("CREATE TABLE t(id int PRIMARY KEY, a text)", "CREATE PUBLICATION p FOR TABLE t")
        Captured(database, "large").capture().ensure_slot()
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "log.db"
            taken: list[int] = []
            with SqliteEventLog(path) as log, process(database, "large", path) as running:
                last = 0
                for count in (_SMALL, changes):
                    database.execute(insert(last + 1, last + count))
                    last += count
                    until(lambda last=last: (log.last_sequence(0) or 0) >= last, seconds=3600.0)  # type: ignore[misc]
                    taken.append(high_water_kib(running.pid))
                print(
                    f"{changes:,} changes: {taken[1]:,} KiB at most, {taken[1] - taken[0]:,} more than for {_SMALL:,}"
                )
                wrong = _wrong_in(log, last)
    if taken[1] - taken[0] > _MOST_KIB:
        wrong.append(f"the process has grown by {taken[1] - taken[0]:,} KiB")
    return wrong


def _wrong_in(log: SqliteEventLog, last: int) -> list[str]:
    """Row `n` is event `n`, for the numbers begin with the first row; and each transaction has one LSN."""
    expected, lsns = 1, set[int]()
    for batch in log.read(0, 1, 2**62):
        numbers = np.arange(expected, expected + len(batch))
        if not np.array_equal(batch.sequence, numbers) or batch.strings("row_id").tolist() != [*map(str, numbers)]:
            return [f"events {expected} to {expected + len(batch) - 1} are others than the inserted rows"]
        expected += len(batch)
        lsns.update(np.unique(batch.lsn).tolist())
    if (expected - 1, len(lsns)) != (last, 2):
        return [f"the log has {expected - 1} events of {len(lsns)} transactions, and not {last} of 2"]
    return []
