"""``python -m benchmarks.polars_group_by``: from a producer's process to a finished ``group_by`` in Polars.

The producer's process emits batches of 1024 events over an ``EventBus``, again where the ring was full; this process
drains them, hands the four columns that it needs of each drained batch to Polars, groups them by collection and
operation, and adds the groups up at the end. The clock runs from before the first event is emitted until the sums of
all are there. The sums are checked against those of the events that were sent, in every round.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from multiprocessing.connection import Connection
from typing import Any, Final

import numpy as np

# The producer process has its own core. Polars reads this when it is imported.
os.environ.setdefault("POLARS_MAX_THREADS", str(max(1, len(os.sched_getaffinity(0)) - 1)))

import polars as pl

from nodedb_ring import EventBatch, EventBus, EventConsumer, WriteOp

from .machine import describe
from .measure import check, no_collection
from .suite import silence_rings
from .table import Row, print_rows

__all__ = ["main"]

BATCH: Final = 1024
_CYCLE: Final = 8
"""Different batches, sent again and again: few enough to stay in the core's cache, like events just made."""
_AT_ONCE: Final = 24_576
"""The most events that are drained and grouped at once."""
_CAPACITY: Final = 32_768
"""Slots per ring: few enough that the rows and the payload in the ring fit the shared cache."""
_PAUSE_S: Final = 20e-6
_COLLECTIONS: Final = ("flights", "planes", "airports", "weather", "a collection of a longer name")
_KEYS: Final = ("collection", "op")

Sums = dict[tuple[str, str], tuple[int, int, int]]
"""Events, rows and the sum of lsn, by collection and operation."""


def _batches() -> list[EventBatch]:
    """A cycle of batches: several collections and operations; each event has its own row id and value of 112 bytes."""
    made: list[EventBatch] = []
    for first in range(1, _CYCLE * BATCH + 1, BATCH):
        numbers = np.arange(first, first + BATCH)
        made.append(
            EventBatch.from_columns(
                sequence=numbers,
                collection=[_COLLECTIONS[number // 3 % len(_COLLECTIONS)] for number in range(first, first + BATCH)],
                op=(numbers % 3 + 1).astype(np.uint8),
                row_id=[f"{number:09}" for number in range(first, first + BATCH)],
                lsn=numbers,
                count=(numbers % 7).astype(np.uint32),
                new_value=[number.to_bytes(8, "little") * 14 for number in range(first, first + BATCH)],
                system_time_ms=1_700_000_000_000 + numbers,
            )
        )
    return made


def _expected(batches: list[EventBatch], cycles: int) -> Sums:
    """The expected result, computed in plain Python."""
    sums: dict[tuple[str, str], list[int]] = {}
    for batch in batches:
        for event in batch:
            of_key = sums.setdefault((event.collection, str(event.op)), [0, 0, 0])
            of_key[0] += cycles
            of_key[1] += cycles * event.count
            of_key[2] += cycles * event.lsn
    return {key: (of_key[0], of_key[1], of_key[2]) for key, of_key in sums.items()}


def _produce(name: str, cycles: int, core: int | None, end: Connection[Any, Any]) -> None:
    """The producer process. Sends the time at which it began."""
    silence_rings()
    if core is not None:
        os.sched_setaffinity(0, {core})
    batches = _batches()
    with EventBus.open(name) as bus, bus.producer(0) as producer:
        end.send(None)
        end.recv()
        begun = time.monotonic()
        for _ in range(cycles):
            for batch in batches:
                sent = producer.emit_batch(batch)
                while sent < BATCH and not producer.is_consumer_disconnected:
                    time.sleep(_PAUSE_S)
                    sent += producer.emit_batch(batch[sent:])
        end.send(begun)


def group(batch: EventBatch) -> pl.DataFrame:
    """The groups of one batch."""
    return _sums(pl.DataFrame(batch.select(*_KEYS, "count", "lsn")))


def _sums(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.group_by(_KEYS).agg(events=pl.len(), rows=pl.sum("count"), lsns=pl.sum("lsn"))


def consume(consumer: EventConsumer) -> Sums:
    """The groups of all batches."""
    parts: list[pl.DataFrame] = []
    while len(part := group(consumer.drain(_AT_ONCE, timeout=None))):
        # No batch is kept, so the next one is drained into the same memory.
        parts.append(part)
    whole = pl.concat(parts).group_by(_KEYS).agg(pl.sum("events", "rows", "lsns"))
    return {(collection, op): (events, rows, lsns) for collection, op, events, rows, lsns in whole.iter_rows()}


def _round(cycles: int, expected: Sums, core: int | None) -> float:
    """M events/s."""
    name = f"polars-group-by-{os.getpid()}"
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with EventBus.create(name, num_cores=1, capacity=_CAPACITY) as bus:
        process = context.Process(target=_produce, args=(name, cycles, core, theirs))
        process.start()
        try:
            with bus.consumer(0) as consumer, no_collection():
                ours.recv()
                ours.send(None)
                sums = consume(consumer)
                end = time.monotonic()
            check("the sums", sums, expected)
            begun: float = ours.recv()
        finally:
            process.join()
            bus.unlink()
    return cycles * _CYCLE * BATCH / (end - begun) / 1e6


def main(arguments: list[str] | None = None) -> int:
    """Runs it: 0, or with ``--strict`` 1 if the goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.polars_group_by", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--millions", type=float, default=10.0, help="events a round, in millions")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if the goal is missed")
    options = parser.parse_args(arguments)
    silence_rings()
    print(", ".join(f"{key} {value}" for key, value in describe().items()))
    batches = _batches()
    check("the members", {str(event.op) for event in batches[0]}, {str(op) for op in list(WriteOp)[:3]})
    cycles = max(1, round(options.millions * 1e6 / _CYCLE / BATCH))
    expected = _expected(batches, cycles)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        # Before Polars starts its threads, because they must not use the producer's core either.
        os.sched_setaffinity(0, cores[:-1])
    reached = [_round(cycles, expected, cores[-1] if len(cores) > 1 else None) for _ in range(options.rounds)]
    alone = _alone(batches)
    row = Row(
        group="polars",
        what="producer process to finished group_by",
        value=max(reached),
        unit="M/s",
        goal=10.0,
        at_least=True,
        beside=f"median {statistics.median(reached):.1f}; Polars alone, on ready frames, {alone:.1f}",
    )
    print_rows(f"{cycles * _CYCLE * BATCH:,} events with 112-byte values", [row])
    return 1 if options.strict and row.reached is False else 0


def _alone(batches: list[EventBatch]) -> float:
    """M events/s of the same group_by on ready frames with as many rows."""
    whole = EventBatch.concat(batches * (_AT_ONCE // BATCH // _CYCLE))
    frame = pl.DataFrame(whole)
    took: list[float] = []
    for _ in range(50):
        start = time.perf_counter()
        _sums(frame)
        took.append(time.perf_counter() - start)
    return len(frame) / min(took) / 1e6


if __name__ == "__main__":
    raise SystemExit(main())
