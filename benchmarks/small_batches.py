"""Calls that move a batch of a few events, beside the calls that move one: the median of the ratio of each round."""

from __future__ import annotations

import statistics
import time
from itertools import repeat
from typing import Final

from nodedb_ring import EventBatch

from .measure import check, no_collection
from .sample import new_ring, ready_events
from .table import Row

__all__ = ["small_batches"]

_EVENTS: Final = 1024
"""In the ring at a time: emitted, then taken."""

_MOST_DRAIN: Final = 1.6
_MOST_EMIT: Final = 1.8
_MOST_FOUR: Final = 1.0


def small_batches(rounds: int) -> list[Row]:
    """``drain`` and ``lease`` of one, ``emit_batch`` of one and of four, ``from_events`` of one."""
    producer, consumer = new_ring()
    events = ready_events(_EVENTS)
    ones = [EventBatch.from_events([event]) for event in events]
    fours = [EventBatch.from_events(events[first : first + 4]) for first in range(0, _EVENTS, 4)]
    for batches in (ones, fours):
        check("events enqueued", sum(map(producer.emit_batch, batches)), _EVENTS)
        check("the events drained", list(consumer.drain(_EVENTS)), events)

    def emit() -> float:
        emit = producer.emit
        start = time.perf_counter_ns()
        for event in events:
            emit(event)
        return time.perf_counter_ns() - start

    def emit_batches(batches: list[EventBatch]) -> float:
        emit_batch = producer.emit_batch
        start = time.perf_counter_ns()
        for batch in batches:
            emit_batch(batch)
        return time.perf_counter_ns() - start

    # A loop for each: a call between would be timed with them.
    def receive() -> float:
        try_recv = consumer.try_recv
        start = time.perf_counter_ns()
        for _ in repeat(None, _EVENTS):
            try_recv()
        return time.perf_counter_ns() - start

    def drain() -> float:
        drain = consumer.drain
        start = time.perf_counter_ns()
        for _ in repeat(None, _EVENTS):
            drain(1)
        return time.perf_counter_ns() - start

    def lease() -> float:
        lease = consumer.lease
        start = time.perf_counter_ns()
        for _ in repeat(None, _EVENTS):
            with lease(1):
                pass
        return time.perf_counter_ns() - start

    def make() -> float:
        start = time.perf_counter_ns()
        for event in events:
            EventBatch.from_events([event])
        return time.perf_counter_ns() - start

    taken: dict[str, list[float]] = {"drain": [], "lease": []}
    sent: dict[str, list[float]] = {"one": [], "four": [], "made": []}
    singly: dict[str, list[float]] = {"emit": [], "try_recv": []}
    for _ in range(rounds * 4):
        with no_collection():
            emit_ns = emit()
            receive_ns = receive()
            one_ns = emit_batches(ones)
            drain_ns = drain()
            four_ns = emit_batches(fours)
            lease_ns = lease()
            check("what is left", len(consumer.drain()), 0)
            made_ns = make()
        singly["emit"].append(emit_ns / _EVENTS)
        singly["try_recv"].append(receive_ns / _EVENTS)
        taken["drain"].append(drain_ns / receive_ns)
        taken["lease"].append(lease_ns / receive_ns)
        sent["one"].append(one_ns / emit_ns)
        sent["four"].append(four_ns / emit_ns)
        sent["made"].append(made_ns / emit_ns)
    received = f"try_recv {statistics.median(singly['try_recv']):.0f} ns"
    emitted = f"emit {statistics.median(singly['emit']):.0f} ns"
    return [
        _row("drain(1), of a try_recv", taken["drain"], _MOST_DRAIN, received),
        _row("lease(1) and its release, of a try_recv", taken["lease"], None, received),
        _row("emit_batch of one, of an emit", sent["one"], _MOST_EMIT, emitted),
        _row("emit_batch of four, of four emits", sent["four"], _MOST_FOUR, emitted),
        _row("from_events of one, of an emit", sent["made"], None, emitted),
    ]


def _row(what: str, ratios: list[float], goal: float | None, beside: str) -> Row:
    beside = f"{beside}; {min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} rounds"
    return Row(group="batches", what=what, value=statistics.median(ratios), unit="x", goal=goal, beside=beside)
