"""Batches, emitted and drained in turn on a default ring, compared with two memcpys of the same bytes."""

from __future__ import annotations

import time

import numpy as np

from nodedb_ring import EventBatch

from .measure import check, clock_cost, no_collection
from .native_build import NativeLoops
from .sample import VALUE_BYTES, new_ring, ready_events
from .table import Row

__all__ = ["batches"]

_SIZES = (1, 64, 1024)
_GOALS = {1024: (20.0, 12.0)}
_CALL_GOAL_US = 1.5
_EVENTS_A_ROUND = 64 * 1024


def batches(rounds: int, loops: NativeLoops) -> list[Row]:
    """``emit_batch`` and ``drain`` by batch size, each timed separately."""
    rows: list[Row] = []
    for size in _SIZES:
        emit_ns, drain_ns, copy_ns = _in_turn(size, rounds, loops)
        emit_goal, drain_goal = _GOALS.get(size, (None, None))
        both = (emit_ns + drain_ns) / copy_ns
        beside = f"two memcpys of the same bytes {copy_ns / size:.1f} ns; both calls take {both:.1f} times that"
        rows.append(_row(f"emit_batch of {size}, per event", emit_ns / size, "ns", emit_goal, beside))
        rows.append(_row(f"drain of {size}, per event", drain_ns / size, "ns", drain_goal, ""))
        if size == 1:
            rows.append(_row("drain of 1, per call", drain_ns / 1000, "µs", _CALL_GOAL_US, ""))
    return rows


def _row(what: str, value: float, unit: str, goal: float | None, beside: str) -> Row:
    return Row(group="batches", what=what, value=value, unit=unit, goal=goal, beside=beside)


def _in_turn(size: int, rounds: int, loops: NativeLoops) -> tuple[float, float, float]:
    """Nanoseconds per call of emit_batch, of drain, and of the two memcpys."""
    producer, consumer = new_ring()
    events = ready_events(size)
    batch = EventBatch.from_events(events)
    check("events emitted", producer.emit_batch(batch), size)
    check("the events drained", list(consumer.drain(size)), events)
    emit_batch, drain, clock = producer.emit_batch, consumer.drain, time.perf_counter_ns
    overhead = clock_cost()
    turns = _EVENTS_A_ROUND // size if size > 1 else 4096
    emitted: list[float] = []
    drained: list[float] = []
    copied: list[float] = []
    source = np.concatenate([batch.records.view(np.uint8).reshape(-1), batch.payload])
    middle, out = np.empty_like(source), np.empty_like(source)
    received = batch
    for _ in range(rounds):
        with no_collection():
            emit_ns = drain_ns = 0
            for _ in range(turns):
                start = clock()
                emit_batch(batch)
                between = clock()
                received = drain(size)
                end = clock()
                emit_ns += between - start
                drain_ns += end - between
        check("events in the last batch", len(received), size)
        emitted.append(emit_ns / turns - overhead)
        drained.append(drain_ns / turns - overhead)
        copied.append(loops.copy_twice(source, middle, out, 100))
        check("the bytes copied", out.tobytes() == source.tobytes(), True)
    check("events dropped", producer.stats().dropped, 0)
    check("bytes of a value", len(events[0].new_value or b""), VALUE_BYTES)
    return min(emitted), min(drained), min(copied)
