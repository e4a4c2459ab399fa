"""Rings and events, made in one line."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from nodedb_ring import (
    EVENT_DTYPE,
    BackpressureConfig,
    EventBatch,
    EventConsumer,
    EventProducer,
    EventSource,
    WriteEvent,
    WriteOp,
    create_event_bus,
)

# Every field, none at its default.
FULL: dict[str, Any] = {
    "sequence": 2**64 - 1,
    "collection": "größe",
    "op": WriteOp.BULK_DELETE,
    "row_id": "id-7",
    "lsn": 2**63,
    "tenant_id": 2**64 - 2,
    "vshard_id": 2**32 - 1,
    "source": EventSource.CRDT_SYNC,
    "count": 2**32 - 2,
    "new_value": b"new\0\xff",
    "old_value": b"",
    "system_time_ms": -(2**63) + 1,
    "valid_time_ms": 2**63 - 1,
    "user_id": "漢字",
    "statement_digest": "",
}


def ring(
    capacity: int = 16, *, arena_bytes: int | None = None, backpressure: BackpressureConfig | None = None
) -> tuple[EventProducer, EventConsumer]:
    [producer], [consumer] = create_event_bus(1, capacity, arena_bytes=arena_bytes, backpressure=backpressure)
    return producer, consumer


def event(sequence: int = 1, **fields: Any) -> WriteEvent:
    given: dict[str, Any] = {
        "collection": "t",
        "op": WriteOp.INSERT,
        "row_id": str(sequence),
        "lsn": sequence,
    }
    return WriteEvent(sequence=sequence, **(given | fields))


def sized(sequence: int, size: int) -> WriteEvent:
    """An event whose payload is exactly `size` bytes, other ones for each sequence number."""
    return event(sequence, collection="", row_id="", new_value=bytes([sequence % 251]) * size)


def events(first: int, last: int) -> list[WriteEvent]:
    return [event(sequence) for sequence in range(first, last + 1)]


def batch(first: int, last: int) -> EventBatch:
    return EventBatch.from_events(events(first, last))


def fill(producer: EventProducer, first: int, last: int) -> None:
    for each in events(first, last):
        assert producer.emit(each)


def emit_with_pauses(producer: EventProducer, count: int, *, every: int, seconds: float) -> None:
    """Emits events 1 to `count`, each again until there is room; pauses, so that a reader falls asleep now and then."""
    number = 0
    while number < count:
        if producer.emit(event(number + 1)):
            number += 1
        else:
            time.sleep(0)
        if number % every == 0:
            time.sleep(seconds)


def lap(producer: EventProducer, consumer: EventConsumer, first: int, rounds: int = 20) -> int:
    """Writes every row and every byte that is free, many times over; returns the next number."""
    for _ in range(rounds):
        while producer.emit(event(first, collection="~" * 7, new_value=b"~" * 9)):
            first += 1
        assert set(consumer.drain(10_000).strings("collection")) <= {"~" * 7}
    return first


def sequences(of: EventBatch) -> list[int]:
    return [int(sequence) for sequence in of.sequence]


def raw_rows(n: int) -> npt.NDArray[np.void]:
    """Rows that are valid over any payload: inserts with empty strings."""
    rows = np.zeros(n, EVENT_DTYPE)
    rows["sequence"] = np.arange(1, n + 1)
    rows["op"] = WriteOp.INSERT
    for name in ("user_id", "statement_digest", "new_value", "old_value"):
        rows[f"{name}_length"] = 2**32 - 1
    return rows
