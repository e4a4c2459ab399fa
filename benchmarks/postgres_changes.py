"""A table of PostgreSQL whose changes ``benchmarks.postgres`` reads, and the slot that each reader gets a copy of."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import polars as pl

from tests.unit.capture.postgres.server import Database

from .measure import check, no_collection

__all__ = ["Source"]

_COMMIT_ROWS: Final = 1000
_TABLE: Final = (
    "CREATE TABLE flights(id int PRIMARY KEY, year int2, month int2, carrier text, tailnum text, delay float8,"
    " distance int8, cancelled bool, at timestamptz, fare numeric(10, 2))"
)
_ROWS: Final = (
    "INSERT INTO flights SELECT i, 2013, 1 + i %% 12, 'C' || i %% 16, CASE WHEN i %% 50 > 0 THEN 'N' || i %% 4000 END,"
    " i %% 900 / 7.0, i %% 5000, i %% 40 = 0, '2013-01-01Z'::timestamptz + i * interval '79 s', i %% 99999 / 100.0"
    " FROM generate_series(%s, %s) AS i"
)
_SUMS: Final = (
    "SELECT count(*), sum(id), sum(year), sum(month), count(DISTINCT carrier), count(tailnum), sum(delay),"
    " sum(distance), count(*) FILTER (WHERE cancelled), sum(extract(epoch FROM at))::int8, sum(fare)::text FROM flights"
)


class Source:
    """The table, its publication, and the slot that copies are made of."""

    def __init__(self, database: Database, count: int) -> None:
        self.database, self.count = database, count
        database.execute(
            _TABLE,
            "CREATE PUBLICATION p FOR TABLE flights",
            "SELECT pg_create_logical_replication_slot('s', 'pgoutput')",
        )
        with database.session() as cursor:
            for first in range(1, count + 1, _COMMIT_ROWS):
                cursor.execute(_ROWS, (first, min(first + _COMMIT_ROWS - 1, count)))
        [self.sums] = database.execute(_SUMS)
        [(self.end,)] = database.execute("SELECT pg_current_wal_insert_lsn()")

    def __call__(self, contender: Callable[[Source, str], object]) -> float:
        """Seconds that a contender takes, with a slot of its own."""
        self.database.execute("SELECT pg_copy_logical_replication_slot('s', 'copy')")
        try:
            with no_collection():
                start = time.perf_counter()
                contender(self, "copy")
                return time.perf_counter() - start
        finally:
            while self.database.execute("SELECT FROM pg_replication_slots WHERE slot_name = 'copy' AND active"):
                time.sleep(0.01)
            self.database.execute("SELECT pg_drop_replication_slot('copy')")

    def check(self, what: str, frame: pl.DataFrame) -> None:
        """Compares the sums of a frame with those of the table."""
        fares = frame["fare"].cast(pl.Decimal(20, 2)).sum()
        got = (
            *(len(frame), frame["id"].sum(), frame["year"].sum(), frame["month"].sum()),
            *(frame["carrier"].n_unique(), len(frame) - frame["tailnum"].null_count()),
            *(round(frame["delay"].sum(), 3), frame["distance"].sum(), frame["cancelled"].sum()),
            *(frame["at"].dt.epoch("s").sum(), str(fares)),
        )
        check(what, got, (*self.sums[:6], round(self.sums[6], 3), *self.sums[7:]))
