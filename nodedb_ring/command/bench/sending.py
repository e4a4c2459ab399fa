"""How the writer of a benchmark sends without drops: it waits for room, as a pipeline does."""

from __future__ import annotations

from collections.abc import Sequence

from ...batch._event import WriteEvent
from ...batch._event_batch import EventBatch
from ...ends._producer import EventProducer

__all__ = ["send_batches", "send_singly"]


def send_singly(producer: EventProducer, events: Sequence[WriteEvent]) -> bool:
    """Emits the events one by one; False if the reader is disconnected."""
    # It waits for an eighth of the ring, as emit_batch does: waiting for one slot would wake it for every event.
    emit, some = producer.emit, max(1, producer.capacity // 8)
    for start in range(0, len(events), some):
        ready = events[start : start + some]
        if not producer.wait_for_room(len(ready)):
            return False
        if not all(map(emit, ready)):
            return False
    return True


def send_batches(producer: EventProducer, batches: Sequence[EventBatch]) -> bool:
    """Emits all of each batch; False if the reader is disconnected."""
    return all(producer.emit_batch(batch, timeout=None) == len(batch) for batch in batches)
