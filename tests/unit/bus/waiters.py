"""Waiters on a ring, and other processes at its other end."""

from __future__ import annotations

import contextlib
import select
from collections.abc import Generator

from nodedb_ring import EventBus, EventConsumer, EventProducer
from tests.unit.builders import ring, sequences
from tests.unit.runners import Running
from tests.unit.shared_buses import BusMaker, Peer, claim_consumer, claim_producer


@contextlib.contextmanager
def producing_peer(bus: EventBus, core_id: int = 0) -> Generator[Peer, None, None]:
    with Peer(bus) as other:
        other.ask(claim_producer, core_id)
        yield other


@contextlib.contextmanager
def consuming_peer(bus: EventBus) -> Generator[Peer, None, None]:
    with Peer(bus) as other:
        other.ask(claim_consumer)
        yield other


def waiter_on(consumer: EventConsumer, timeout: float | None = None) -> Running[list[int]]:
    """A thread that takes the consumer over and drains once; it may be asleep when this returns."""
    return Running(lambda: bind_and_drain(consumer, timeout))


def bind_and_drain(consumer: EventConsumer, timeout: float | None) -> list[int]:
    consumer.bind()
    return sequences(consumer.drain(timeout=timeout))


def collector_of(consumer: EventConsumer) -> Running[list[int]]:
    """A thread that takes the consumer over and iterates to the end."""
    return Running(lambda: bind_and_collect(consumer))


def bind_and_collect(consumer: EventConsumer) -> list[int]:
    consumer.bind()
    return [number for each in consumer for number in sequences(each)]


def has_gone(end: EventConsumer | EventProducer) -> bool:
    """Whether the other end of this one has."""
    return end.is_producer_disconnected if isinstance(end, EventConsumer) else end.is_consumer_disconnected


def pair(kind: str, make_bus: BusMaker) -> tuple[EventProducer, EventConsumer]:
    if kind == "private":
        return ring()
    bus = make_bus()
    return bus.producer(0), bus.consumer(0)


KINDS = ["private", "shared"]


def readable(consumer: EventConsumer, seconds: float = 0) -> bool:
    return bool(select.select([consumer], [], [], seconds)[0])


def is_silent(consumer: EventConsumer) -> bool:
    """Not readable; on a shared bus but for the timer, after which the next call asks for a signal again."""
    for _ in range(100):
        if not readable(consumer):
            return True
        if consumer.try_recv() is not None:
            return False
    return False
