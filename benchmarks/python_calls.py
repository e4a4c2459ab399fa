"""Calls that move one event or hand out memory: nanoseconds per call, including the loop around them."""

from __future__ import annotations

import dataclasses
import queue
import time
from collections import deque
from itertools import repeat

from nodedb_ring import EventConsumer, EventProducer, EventSource, WriteEvent, WriteOp

from .measure import best, check
from .sample import VALUE_BYTES, new_ring, ready_events
from .table import Row

__all__ = ["python_calls"]

_GROUP = 1024  # events in the ring at a time: emitted, then taken
_GROUPS = 16


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _PlainEvent:
    """The fields of a ``WriteEvent`` as a dataclass: what a Python program would write without this library."""

    sequence: int
    collection: str
    op: WriteOp
    row_id: str
    lsn: int
    tenant_id: int = 0
    vshard_id: int = 0
    source: EventSource = EventSource.USER
    count: int = 1
    new_value: bytes | None = None
    old_value: bytes | None = None
    system_time_ms: int | None = None
    valid_time_ms: int | None = None
    user_id: str | None = None
    statement_digest: str | None = None


def python_calls(rounds: int) -> list[Row]:
    """Building, emitting, being refused, receiving, leasing, reserving."""
    return [_build(rounds), _emit(rounds), _refused(rounds), _receive(rounds), *_lease(rounds), *_reserve(rounds)]


def _build(rounds: int) -> Row:
    value = bytes(VALUE_BYTES)
    insert = WriteOp.INSERT
    # Made beforehand, so that making an int is not timed.
    numbers = list(range(1000, 1000 + _GROUP))
    event = WriteEvent(sequence=1, collection="flights", op=insert, row_id="AA-1", lsn=2, new_value=value)
    check("an event's fields", (event.sequence, event.row_id, event.new_value), (1, "AA-1", value))

    def ours() -> float:
        start = time.perf_counter_ns()
        for number in numbers:
            WriteEvent(sequence=number, collection="flights", op=insert, row_id="AA-1", lsn=number, new_value=value)
        return (time.perf_counter_ns() - start) / _GROUP

    def plain() -> float:
        start = time.perf_counter_ns()
        for number in numbers:
            _PlainEvent(sequence=number, collection="flights", op=insert, row_id="AA-1", lsn=number, new_value=value)
        return (time.perf_counter_ns() - start) / _GROUP

    took, dataclass = best(rounds * _GROUPS, ours), best(rounds * 2, plain)
    beside = f"frozen slotted dataclass {dataclass:,.0f} ns"
    return _row("WriteEvent(...) of 6 fields", took, 150, beside, took / dataclass)


def _row(what: str, took: float, goal: float | None, beside: str, ratio: float) -> Row:
    return Row(group="calls", what=what, value=took, unit="ns", goal=goal, beside=f"{beside}: ratio {ratio:.2f}")


def _emit(rounds: int) -> Row:
    producer, consumer = new_ring()
    events = ready_events(_GROUP)
    check("emit", [producer.emit(event) for event in events], [True] * _GROUP)
    check("the events that arrive", list(consumer.drain(_GROUP)), events)
    next_number = _GROUP + 1

    def ours() -> float:
        nonlocal next_number
        emit = producer.emit
        # Made just before each round, as a producer does; the numbers keep rising.
        ready = ready_events(_GROUP, next_number)
        next_number += _GROUP
        start = time.perf_counter_ns()
        for event in ready:
            emit(event)
        took = time.perf_counter_ns() - start
        check("events drained", len(consumer.drain(_GROUP)), _GROUP)
        return took / _GROUP

    def simple_queue() -> float:
        other: queue.SimpleQueue[WriteEvent] = queue.SimpleQueue()
        put = other.put
        start = time.perf_counter_ns()
        for event in events:
            put(event)
        return (time.perf_counter_ns() - start) / _GROUP

    took, put = best(rounds * _GROUPS, ours), best(rounds * _GROUPS, simple_queue)
    check("events dropped", producer.stats().dropped, 0)
    return _row(f"emit, ready event, {VALUE_BYTES}-byte value", took, 80, f"SimpleQueue.put {put:.1f} ns", took / put)


def _refused(rounds: int) -> Row:
    producer, _consumer = new_ring(64)
    filling = ready_events(64)
    check("filling the ring", [producer.emit(event) for event in filling], [True] * 64)
    refused = ready_events(_GROUP, 65)
    check("emit into a full ring", [producer.emit(event) for event in refused], [False] * _GROUP)
    check("events counted as dropped", producer.stats().dropped_full, _GROUP)
    next_number = 65 + _GROUP
    times = rounds * _GROUPS

    def ours() -> float:
        nonlocal next_number
        emit = producer.emit
        ready = ready_events(_GROUP, next_number)
        next_number += _GROUP
        start = time.perf_counter_ns()
        for event in ready:
            emit(event)
        return (time.perf_counter_ns() - start) / _GROUP

    def simple_queue() -> float:
        other: queue.Queue[WriteEvent] = queue.Queue(1)
        other.put_nowait(filling[0])
        put = other.put_nowait
        start = time.perf_counter_ns()
        for event in filling:
            try:
                put(event)
            except queue.Full:
                continue
        return (time.perf_counter_ns() - start) / len(filling)

    took, full = best(times, ours), best(rounds, simple_queue)
    check("events counted as dropped", producer.stats().dropped_full, _GROUP * (times + 1))
    return _row("emit, refused because full, and counted", took, 45, f"Queue.put_nowait {full:,.0f} ns", took / full)


def _receive(rounds: int) -> Row:
    producer, consumer = new_ring()
    events = ready_events(_GROUP)
    _fill(producer, events)
    check("the events received", [consumer.try_recv() for _ in range(_GROUP + 1)], [*events, None])

    def ours() -> float:
        _fill(producer, events)
        receive = consumer.try_recv
        start = time.perf_counter_ns()
        for _ in repeat(None, _GROUP):
            receive()
        took = time.perf_counter_ns() - start
        check("what is left", consumer.try_recv(), None)
        return took / _GROUP

    def simple_queue() -> float:
        other: queue.SimpleQueue[WriteEvent] = queue.SimpleQueue()
        for event in events:
            other.put(event)
        get = other.get_nowait
        start = time.perf_counter_ns()
        for _ in repeat(None, _GROUP):
            get()
        return (time.perf_counter_ns() - start) / _GROUP

    took, get = best(rounds * _GROUPS, ours), best(rounds * _GROUPS, simple_queue)
    beside = f"SimpleQueue.get_nowait {get:.1f} ns"
    return _row(f"try_recv, {VALUE_BYTES}-byte value, a new WriteEvent", took, 130, beside, took / get)


def _fill(producer: EventProducer, events: list[WriteEvent]) -> None:
    for event in events:
        if not producer.emit(event):
            raise RuntimeError("the ring of a benchmark must have room")


def _lease(rounds: int) -> list[Row]:
    rows: list[Row] = []
    events = ready_events(_GROUP)
    for size in (1, 64, 1024):
        producer, consumer = new_ring()
        _fill(producer, events)
        taken: list[WriteEvent] = []
        while len(taken) < _GROUP:
            with consumer.lease(size) as batch:
                taken += batch
        check(f"the events of leases of {size}", taken, events)
        calls = _GROUP // size

        def ours(
            producer: EventProducer = producer, consumer: EventConsumer = consumer, size: int = size, calls: int = calls
        ) -> float:
            _fill(producer, events)
            start = time.perf_counter_ns()
            for _ in repeat(None, calls):
                with consumer.lease(size):
                    pass
            took = time.perf_counter_ns() - start
            check("what is left", len(consumer.drain()), 0)
            return took / calls

        def drained(
            producer: EventProducer = producer, consumer: EventConsumer = consumer, size: int = size, calls: int = calls
        ) -> float:
            _fill(producer, events)
            start = time.perf_counter_ns()
            for _ in repeat(None, calls):
                consumer.drain(size)
            return (time.perf_counter_ns() - start) / calls

        took, drain = best(rounds * _GROUPS, ours), best(rounds * _GROUPS, drained)
        beside = f"drain({size}) {drain:,.0f} ns"
        rows.append(_row(f"lease({size}) and its release, per call", took, None, beside, took / drain))
    return rows


def _reserve(rounds: int) -> list[Row]:
    rows: list[Row] = []
    value = bytes(range(VALUE_BYTES))
    for size in (64, 1024):
        producer, consumer = new_ring()
        _reserve_once(producer, size, value)
        batch = consumer.drain(size)
        check("rows published", len(batch), size)
        check("their numbers", batch.sequence.tolist(), list(range(1, size + 1)))
        check("their values", set(batch.values("new_value")), {value})

        def ours(producer: EventProducer = producer, consumer: EventConsumer = consumer, size: int = size) -> float:
            start = time.perf_counter_ns()
            _reserve_once(producer, size, value)
            took = time.perf_counter_ns() - start
            check("rows drained", len(consumer.drain(size)), size)
            return took / size

        def appended(size: int = size) -> float:
            other: deque[tuple[int, WriteOp, bytes]] = deque()
            append = other.append
            start = time.perf_counter_ns()
            for number in range(size):
                append((number, WriteOp.INSERT, value))
            return (time.perf_counter_ns() - start) / size

        took, append = best(rounds * _GROUPS, ours), best(rounds * _GROUPS, appended)
        what = f"reserve({size}), 3 columns and payload filled, per event"
        rows.append(_row(what, took, None, f"deque.append of a tuple {append:.0f} ns", took / append))
    return rows


def _reserve_once(producer: EventProducer, size: int, value: bytes) -> None:
    with producer.reserve(size, payload_bytes=VALUE_BYTES) as rows:
        rows.payload[:] = memoryview(value)
        rows["op"] = WriteOp.INSERT
        rows["lsn"] = 7
        rows["new_value_length"] = VALUE_BYTES
