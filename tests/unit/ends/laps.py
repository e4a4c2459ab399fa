"""Laps of a ring: everything that is free is written."""

from __future__ import annotations

from nodedb_ring import EventConsumer, EventProducer
from tests.unit.builders import event


def lap(producer: EventProducer, consumer: EventConsumer, first: int, rounds: int = 20) -> int:
    """Writes every row and every byte that is free, many times over; returns the next number."""
    for _ in range(rounds):
        while producer.emit(event(first, collection="~" * 7, new_value=b"~" * 9)):
            first += 1
        assert set(consumer.drain(10_000).strings("collection")) <= {"~" * 7}
    return first
