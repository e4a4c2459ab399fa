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

from nodedb_ring import EventBatch, EventBus, WriteOp

EVENTS, BATCH = 60_000, 1000
GRACE = timedelta(seconds=2)
START = np.datetime64("2013-01-01T05:00", "ms")


def sales(first: int, last: int) -> EventBatch:
    """One sale each 10 ms, of an amount in binary; some have a time up to two seconds before their neighbours'."""
    sequence = np.arange(first, last + 1)
    amount = (sequence % 97).astype("<i8")
    return EventBatch.from_columns(
        sequence=sequence,
        lsn=sequence,
        op=WriteOp.INSERT,
        collection=["shop" if n % 3 else "web" for n in sequence],
        row_id="",
        new_value=(amount.tobytes(), np.arange(0, amount.nbytes + 1, 8)),
        system_time_ms=START + 10 * sequence - sequence * 7919 % 2000,
    )


def write(bus: EventBus) -> None:
    """The database's core, in a process of its own."""
    with bus.producer(0) as producer:
        for first in range(1, EVENTS + 1, BATCH):
            producer.emit_batch(sales(first, first + BATCH - 1))


def totals(events: pl.DataFrame) -> pl.DataFrame:
    """The windows of some events, as far as these have them."""
    amount = pl.col("new_value").bin.reinterpret(dtype=pl.Int64, endianness="little")
    windows = events.sort("system_time_ms").group_by_dynamic("system_time_ms", every="1s", group_by="collection")
    return windows.agg(pl.len().alias("sales"), amount.sum().alias("amount"))


class Windows:
    """The windows that are open still."""

    def __init__(self) -> None:
        self.open = totals(pl.DataFrame(EventBatch.from_events([])))
        self.closed_upto = datetime.min.replace(tzinfo=UTC)
        self.late = 0

    def add(self, batch: EventBatch) -> pl.DataFrame:
        """Adds a batch; returns the windows that no event can change any more."""
        events = pl.DataFrame(batch)
        parts = totals(events)
        is_late = pl.col("system_time_ms") < self.closed_upto
        self.late += int(parts.filter(is_late)["sales"].sum())
        merged = pl.concat([self.open, parts.filter(~is_late)]).group_by("collection", "system_time_ms").sum()
        newest: Any = events["system_time_ms"].max()
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
    order = ["system_time_ms", "collection"]
    result = pl.concat([*closed, windows.open]).sort(order)
    assert windows.late == 0
    assert result.equals(totals(pl.DataFrame(sales(1, EVENTS))).select(result.columns).sort(order))
    print(f"{len(result)} windows from {len(closed)} batches, {result['sales'].sum()} sales; the first of them:")
    print(result.head(4))


if __name__ == "__main__":
    main()
