"""What each end can be asked for, and the kind of error that a call raises."""

from __future__ import annotations

from collections.abc import Callable

from nodedb_ring import EventConsumer, EventProducer
from tests.unit.builders import batch, event


def producing(producer: EventProducer) -> list[Callable[[], object]]:
    def reserve() -> None:
        with producer.reserve(1) as rows:
            rows["op"] = 1

    return [lambda: producer.emit(event(90)), lambda: producer.emit_batch(batch(90, 91)), reserve]


def consuming(consumer: EventConsumer) -> list[Callable[[], object]]:
    return [
        consumer.try_recv,
        consumer.drain,
        lambda: consumer.drain(timeout=None),
        consumer.lease,
        lambda: next(iter(consumer)),
        lambda: consumer.recv(0),
    ]


def kind_of(call: Callable[[], object]) -> str:
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return "nothing"
