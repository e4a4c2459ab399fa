"""The events that the benchmarks send: a row of a table with a 128-byte value."""

from __future__ import annotations

from nodedb_ring import EventConsumer, EventProducer, WriteEvent, WriteOp, create_event_bus

__all__ = ["VALUE_BYTES", "new_ring", "ready_events"]

VALUE_BYTES = 128


def ready_events(count: int, first: int = 1) -> list[WriteEvent]:
    """`count` events, numbered from `first` on; each has a row id and a value of its own."""
    return [
        WriteEvent(
            sequence=number,
            collection="flights",
            op=WriteOp.INSERT,
            row_id=str(number),
            lsn=1000 + number,
            new_value=number.to_bytes(8, "little") * (VALUE_BYTES // 8),
        )
        for number in range(first, first + count)
    ]


def new_ring(capacity: int | None = None) -> tuple[EventProducer, EventConsumer]:
    """The two ends of one ring, of the default capacity unless another is passed."""
    producers, consumers = create_event_bus(1) if capacity is None else create_event_bus(1, capacity)
    return producers[0], consumers[0]
