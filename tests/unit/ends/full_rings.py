"""Rings without room, and consumers that make some."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator

from nodedb_ring import EventConsumer, EventProducer
from tests.unit.builders import batch, fill, ring, sequences
from tests.unit.runners import Running

WAITS: list[Callable[[EventProducer, float | None], object]] = [
    lambda producer, timeout: producer.emit_batch(batch(100, 100), timeout),
    lambda producer, timeout: producer.wait_for_room(1, timeout),
]


def full(capacity: int = 4) -> tuple[EventProducer, EventConsumer]:
    """A ring that holds 1, 2, ... and no more."""
    producer, consumer = ring(capacity)
    fill(producer, 1, capacity)
    return producer, consumer


@contextlib.contextmanager
def draining(consumer: EventConsumer, most: int = 3) -> Generator[list[int]]:
    """A thread takes a few at a time until the producer has gone, which the block sees to; then the list is whole."""
    seen: list[int] = []

    def take() -> None:
        consumer.bind()
        while len(some := consumer.drain(most, None)):
            seen.extend(sequences(some))

    taker = Running(take)
    yield seen
    taker.result()
