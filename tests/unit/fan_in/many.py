"""Several rings at once: private, shared, or some of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from nodedb_ring import EventConsumer, EventProducer, create_event_bus
from tests.unit.runners import Running
from tests.unit.shared_buses import BusMaker

_T = TypeVar("_T")

KINDS = ["private", "shared", "mixed"]


def rings(kind: str, make_bus: BusMaker, count: int = 4) -> tuple[list[EventProducer], list[EventConsumer]]:
    """`count` rings, whose producers are this process's."""
    shared = {"private": 0, "shared": count, "mixed": count // 2}[kind]
    producers: list[EventProducer] = []
    consumers: list[EventConsumer] = []
    if shared:
        bus = make_bus(shared)
        producers += [bus.producer(core_id) for core_id in range(shared)]
        consumers += bus.consumers()
    if shared < count:
        private = create_event_bus(count - shared, 16)
        producers += private[0]
        consumers += private[1]
    return producers, consumers


def taken_over(consumers: Iterable[EventConsumer], call: Callable[[], _T]) -> Running[_T]:
    """Calls in a thread of its own, to which the consumers are bound first."""

    def run() -> _T:
        for consumer in consumers:
            consumer.bind()
        return call()

    return Running(run)
