"""``python -m benchmarks.threads``: threads of one process, on an interpreter with the GIL or without it.

One pair of threads and a ring, beside the queues of the standard library; two pairs beside one; one reader of several
cores; and the values of one batch decoded by several threads. Every answer is checked before it is timed. Ratios are
medians over rounds in which both sides ran in turn.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from nodedb_ring import (
    EventBatch,
    EventConsumer,
    EventProducer,
    RowSchema,
    WriteOp,
    create_event_bus,
    encode_rows,
    merge,
)

from .measure import StartLine, check, no_collection
from .sample import ready_events
from .suite import Show, run_suite
from .table import Row
from .thread_pair import thread_pair

__all__ = ["main"]

_PARTS: Final = ("pair", "pairs", "merge", "rows")
_CORES: Final = 4
_ROWS: Final = 131_072
_SCHEMA: Final = RowSchema({"number": "int64", "delay": "int64", "carrier": "str"})


def main(arguments: list[str] | None = None) -> int:
    """Runs the parts that were asked for: 0, or with ``--strict`` 1 if a goal was missed."""
    return run_suite("benchmarks.threads", __doc__, _PARTS, _run, arguments)


def has_gil() -> bool:
    """Whether one thread at a time runs Python code in this process."""
    return getattr(sys, "_is_gil_enabled", lambda: True)()


def _run(wanted: set[str], quick: bool, show: Show) -> None:
    rounds = 3 if quick else 10
    count = 100_000 if quick else 400_000
    print(f"the GIL is {'on' if has_gil() else 'off'}")
    if "pair" in wanted:
        show("One ring, two threads", thread_pair(rounds, count))
    if "pairs" in wanted:
        show("Two rings, two threads each", _pairs(rounds, count))
    if "merge" in wanted:
        show(f"{_CORES} cores, a thread each, and one reader", _merged(rounds, count // _CORES))
    if "rows" in wanted:
        show("The values of one batch, into columns", _decoded(rounds))


def _emit_all(producer: EventProducer, count: int, ready: StartLine) -> None:
    events = ready_events(count)
    ready.wait()
    emit = producer.emit
    for event in events:
        while not emit(event):
            time.sleep(0)
    producer.close()


def _read_all(consumer: EventConsumer, ready: StartLine, totals: list[int]) -> None:
    ready.wait()
    totals.append(sum(int(batch.sequence.sum()) for batch in consumer))


def _side_by_side(pairs: int, count: int) -> float:
    """Seconds of so many rings at once, each with a thread that emits `count` events and one that takes them."""
    ready = StartLine(2 * pairs + 1)
    totals: list[int] = []
    producers, consumers = create_event_bus(pairs)
    threads = [threading.Thread(target=_emit_all, args=(producer, count, ready)) for producer in producers]
    threads += [threading.Thread(target=_read_all, args=(consumer, ready, totals)) for consumer in consumers]
    return _seconds(
        threads, ready, lambda: check("the sums of the numbers", totals, [count * (count + 1) // 2] * pairs)
    )


def _seconds(threads: Sequence[threading.Thread], ready: StartLine, verify: Callable[[], None]) -> float:
    """From the moment at which all threads are ready until all have ended."""
    with no_collection():
        for thread in threads:
            thread.start()
        ready.wait()
        for thread in threads:
            thread.join()
        seconds = ready.seconds()
    verify()
    return seconds


def _pairs(rounds: int, count: int) -> list[Row]:
    one: list[float] = []
    two: list[float] = []
    for _ in range(rounds):
        one.append(_side_by_side(1, count))
        two.append(_side_by_side(2, count))
    ratio = statistics.median(single / double for single, double in zip(one, two, strict=True))
    beside = f"one ring alone {count / min(one) / 1e6:.2f}; per ring {ratio:.2f} of that, median of {rounds} pairs"
    return [Row(group="pairs", what="each of two rings", value=count / min(two) / 1e6, unit="M/s", beside=beside)]


def _merged(rounds: int, count: int) -> list[Row]:
    """One reader of all cores by ``merge``, beside one ring that has as many events."""
    merged: list[float] = []
    single: list[float] = []
    for _ in range(rounds):
        single.append(_side_by_side(1, count * _CORES))
        merged.append(_merge_all(count))
    ratio = statistics.median(one / many for one, many in zip(single, merged, strict=True))
    events = count * _CORES
    beside = f"one ring with one thread {events / min(single) / 1e6:.2f}; {ratio:.2f} of that, median of {rounds} pairs"
    return [Row(group="merge", what="merge, all cores", value=events / min(merged) / 1e6, unit="M/s", beside=beside)]


def _merge_all(count: int) -> float:
    ready = StartLine(_CORES + 2)
    totals = dict.fromkeys(range(_CORES), 0)
    producers, consumers = create_event_bus(_CORES)

    def read() -> None:
        ready.wait()
        for core_id, batch in merge(consumers):
            totals[core_id] += int(batch.sequence.sum())

    threads = [threading.Thread(target=_emit_all, args=(producer, count, ready)) for producer in producers]
    threads.append(threading.Thread(target=read))
    expected = dict.fromkeys(range(_CORES), count * (count + 1) // 2)
    return _seconds(threads, ready, lambda: check("the sums of the numbers", totals, expected))


def _decoded(rounds: int) -> list[Row]:
    """Half of a batch for each of two threads, beside the whole in one."""
    batch = _flights()
    halves = [batch[: _ROWS // 2], batch[_ROWS // 2 :]]
    one: list[float] = []
    two: list[float] = []
    for _ in range(rounds):
        one.append(_decode([batch]))
        two.append(_decode(halves))
    ratio = statistics.median(single / double for single, double in zip(one, two, strict=True))
    beside = f"one thread {_ROWS / min(one) / 1e6:.2f}; {ratio:.2f} times that, median of {rounds} pairs"
    return [Row(group="rows", what="two threads, half each", value=_ROWS / min(two) / 1e6, unit="M/s", beside=beside)]


def _flights() -> EventBatch:
    numbers = np.arange(_ROWS)
    values = encode_rows({"number": numbers, "delay": numbers % 97 - 10, "carrier": ["UA"] * _ROWS})
    return EventBatch.from_columns(
        sequence=numbers + 1, lsn=1, op=WriteOp.INSERT, collection="flights", row_id="1", new_value=values
    )


def _decode(parts: Sequence[EventBatch]) -> float:
    ready = StartLine(len(parts) + 1)
    totals: list[int] = []

    def decode(part: EventBatch) -> None:
        ready.wait()
        totals.append(int(part.rows(schema=_SCHEMA)["number"].sum()))

    threads = [threading.Thread(target=decode, args=(part,)) for part in parts]
    expected = _ROWS * (_ROWS - 1) // 2
    return _seconds(threads, ready, lambda: check("the sum of the column", sum(totals), expected))


if __name__ == "__main__":
    raise SystemExit(main())
