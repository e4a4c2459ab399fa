"""Tumbling windows by event time in Polars, right across batches and for rows that come late.

Needs polars (``pip install nodedb_ring[examples]``). Run: ``python examples/polars_windows.py``

A window may begin in one batch and end in another, and its last rows may come after the first ones of the next. So what
is kept of a window are sums that can be added to, and it closes once the newest event is a grace period past its end.
What comes later than that is counted, and not added to a result that is out already.
"""

import multiprocessing
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from nodedb_ring import EventBatch, EventBus, RowSchema, WriteOp, encode_rows

EVENTS, BATCH = 60_000, 1000
GRACE = timedelta(seconds=2)
START = np.datetime64("2013-01-01T05:00", "ms")
SALE = RowSchema({"channel": "str", "cents": "int64"})


def sales(first: int, last: int) -> EventBatch:
    """One sale each 10 ms, each a row; some have a time up to two seconds before their neighbours'."""
    sequence = np.arange(first, last + 1)
    return EventBatch.from_columns(
        sequence=sequence,
        lsn=sequence,
        op=WriteOp.INSERT,
        collection="sales",
        row_id="",
        new_value=encode_rows({"channel": ["shop" if n % 3 else "web" for n in sequence], "cents": sequence % 97}),
        system_time_ms=START + 10 * sequence - sequence * 7919 % 2000,
    )


def write(bus: EventBus) -> None:
    """The database's core, in a process of its own."""
    with bus.producer(0) as producer:
        for first in range(1, EVENTS + 1, BATCH):
            producer.emit_batch(sales(first, first + BATCH - 1))


def sales_of(batch: EventBatch) -> pl.DataFrame:
    """The columns of the rows, with the time of each event in front."""
    return pl.DataFrame(batch.rows("new_value", SALE).with_events("system_time_ms"))


def totals(sales: pl.DataFrame) -> pl.DataFrame:
    """The windows of some sales, as far as these have them."""
    windows = sales.sort("system_time_ms").group_by_dynamic("system_time_ms", every="1s", group_by="channel")
    return windows.agg(pl.len().alias("sales"), pl.col("cents").sum())


class Windows:
    """The windows that are open still."""

    def __init__(self) -> None:
        self.open = totals(sales_of(EventBatch.from_events([])))
        self.closed_upto = datetime.min.replace(tzinfo=UTC)
        self.late = 0

    def add(self, batch: EventBatch) -> pl.DataFrame:
        """Adds a batch; returns the windows that no event can change any more."""
        new = sales_of(batch)
        parts = totals(new)
        is_late = pl.col("system_time_ms") < self.closed_upto
        self.late += int(parts.filter(is_late)["sales"].sum())
        merged = pl.concat([self.open, parts.filter(~is_late)]).group_by("channel", "system_time_ms").sum()
        newest: Any = new["system_time_ms"].max()
        self.closed_upto = max(self.closed_upto, (newest - GRACE).replace(microsecond=0))
        is_closed = pl.col("system_time_ms") < self.closed_upto
        self.open = merged.filter(~is_closed)
        return merged.filter(is_closed)


def main() -> None:
    """Windows of what another process emits, as they close."""
    windows = Windows()
    with EventBus.create(f"polars-windows-{os.getpid()}", num_cores=1) as bus:
        try:
            writer = multiprocessing.get_context("spawn").Process(target=write, args=(bus,))
            writer.start()
            with bus.consumer(0) as consumer:
                closed = [windows.add(batch) for batch in consumer]
            writer.join()
        finally:
            bus.unlink()
    order = ["system_time_ms", "channel"]
    result = pl.concat([*closed, windows.open]).sort(order)
    assert windows.late == 0
    assert result.equals(totals(sales_of(sales(1, EVENTS))).select(result.columns).sort(order))
    print(f"{len(result)} windows from {len(closed)} batches, {result['sales'].sum()} sales; the first of them:")
    print(result.head(4))


if __name__ == "__main__":
    main()
