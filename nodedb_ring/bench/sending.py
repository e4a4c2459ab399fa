"""How the writer of a benchmark sends so that nothing is dropped: the only place that knows how to wait for room."""

from __future__ import annotations

import os
from collections.abc import Sequence

from .._event import WriteEvent
from .._producer import EventProducer
from ..batch import EventBatch

__all__ = ["send_batches", "send_singly"]


def send_singly(producer: EventProducer, events: Sequence[WriteEvent]) -> bool:
    """Emits the events one by one; False if the reader has gone."""
    emit, some = producer.emit, max(1, producer.capacity // 8)
    for event in events:
        while not emit(event):
            if not _wait_for_room(producer, some):
                return False
    return True


def send_batches(producer: EventProducer, batches: Sequence[EventBatch]) -> bool:
    """Emits all of each batch; False if the reader has gone."""
    for batch in batches:
        sent = producer.emit_batch(batch)
        while sent < len(batch):
            if not _wait_for_room(producer, len(batch) - sent):
                return False
            sent += producer.emit_batch(batch[sent:])
    return True


def _wait_for_room(producer: EventProducer, events: int) -> bool:
    """Waits until there is room for about so many; False if the reader has gone."""
    most = max(0, 99 - 100 * events // producer.capacity)  # utilization is in whole percent, rounded down
    while producer.utilization > most:
        os.sched_yield()
    return not producer.is_consumer_disconnected
