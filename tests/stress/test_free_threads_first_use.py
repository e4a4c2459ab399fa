"""Threads race for the first use of an end: one gets it, and what it moved is there; the others are refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from nodedb_ring import (
    EventBatch,
    EventBus,
    EventConsumer,
    EventProducer,
    EventRing,
    OwnershipError,
    RoleTaken,
    create_event_bus,
    merge,
    wait,
)
from nodedb_ring.bus.region import private_block
from tests.unit.builders import event, events, sequences

from .contention import Contest, rounds
from .journal import memory_directory

SLOTS: Final = 8
ARENA: Final = 256
TOGETHER: Final = 50

Ends = tuple[EventProducer, EventConsumer]


def ends(_: int = 0) -> Ends:
    [producer], [consumer] = create_event_bus(1, SLOTS, arena_bytes=ARENA)
    return producer, consumer


# Made before: the calls are to be as short as they can.
EVENT: Final = event(1)
BATCH: Final = EventBatch.from_events([EVENT])


def reserve(producer: EventProducer) -> int:
    with producer.reserve(1) as rows:
        rows["op"] = 1
    return rows.published


PRODUCING: Final[dict[str, Callable[[EventProducer], object]]] = {
    "emit": lambda producer: producer.emit(EVENT),
    "emit_batch": lambda producer: producer.emit_batch(BATCH),
    "reserve": reserve,
    "wait_for_room": lambda producer: producer.wait_for_room(1),
}


def check_producer(subject: Ends, results: list[Any]) -> None:
    """One won, and what it said was enqueued is there, once."""
    producer, consumer = subject
    refused = [each for each in results if type(each) is OwnershipError]
    won = [each for each in results if not isinstance(each, OwnershipError)]
    assert len(won) == 1, results
    assert won[0] in (True, 1), results
    assert len(refused) == len(results) - 1
    emitted = producer.stats().emitted
    assert producer.stats().dropped == 0
    assert sequences(consumer.drain()) == [1] * emitted
    assert consumer.stats().received == emitted


@pytest.mark.parametrize("threads", [2, 4])
@pytest.mark.parametrize("call", PRODUCING)
def test_one_thread_becomes_the_producer(call: str, threads: int) -> None:
    calls = [lambda subject: PRODUCING[call](subject[0])] * threads
    Contest(calls, prepare=ends, check=check_producer, together=TOGETHER).run(rounds(5000))


def test_one_thread_becomes_the_producer_whatever_each_calls() -> None:
    calls = [lambda subject, call=call: call(subject[0]) for call in PRODUCING.values()]
    Contest(calls, prepare=ends, check=check_producer, together=TOGETHER).run(rounds(5000))


def filled(_: int) -> Ends:
    producer, consumer = ends()
    for each in events(1, 4):
        assert producer.emit(each)
    return producer, consumer


def lease(consumer: EventConsumer) -> list[int]:
    with consumer.lease(2) as batch:
        return sequences(batch)


def receive(consumer: EventConsumer) -> list[int]:
    taken = consumer.try_recv()
    assert taken is not None
    return [taken.sequence]


def ask_for_descriptor(consumer: EventConsumer) -> list[int]:
    assert consumer.fileno() >= 0
    return []


def merged(consumer: EventConsumer) -> list[int]:
    _, batch = next(merge([consumer], 2))
    return sequences(batch)


def waited(consumer: EventConsumer) -> list[int]:
    assert wait([consumer]) == [consumer]
    return []


CONSUMING: Final[dict[str, Callable[[EventConsumer], list[int]]]] = {
    "try_recv": receive,
    "drain": lambda consumer: sequences(consumer.drain(2)),
    "lease": lease,
    "iteration": lambda consumer: sequences(next(iter(consumer))),
    "fileno": ask_for_descriptor,
    "merge": merged,
    "wait": waited,
}


def check_consumer(subject: Ends, results: list[Any]) -> None:
    """One won, and the events that it got are the first ones; the rest is still there."""
    _, consumer = subject
    won = [each for each in results if isinstance(each, list)]
    assert len(won) == 1, results
    assert sum(type(each) is OwnershipError for each in results) == len(results) - 1, results
    consumer.bind()
    assert won[0] + sequences(consumer.drain()) == [1, 2, 3, 4]
    stats = consumer.stats()
    assert (stats.received, stats.held) == (4, 0)


@pytest.mark.parametrize("threads", [2, 4])
@pytest.mark.parametrize("call", CONSUMING)
def test_one_thread_becomes_the_consumer(call: str, threads: int) -> None:
    calls = [lambda subject: CONSUMING[call](subject[1])] * threads
    Contest(calls, prepare=filled, check=check_consumer, together=TOGETHER).run(rounds(5000))


def test_one_thread_becomes_the_consumer_whatever_each_calls() -> None:
    calls = [lambda subject, call=call: call(subject[1]) for call in CONSUMING.values()]
    Contest(calls, prepare=filled, check=check_consumer, together=TOGETHER).run(rounds(5000))


@pytest.mark.parametrize("threads", [2, 4])
@pytest.mark.parametrize("end", [EventProducer, EventConsumer])
def test_a_ring_has_one_end_of_a_kind(end: type[EventProducer] | type[EventConsumer], threads: int) -> None:
    def prepare(_: int) -> EventRing:
        return EventRing(
            private_block(SLOTS, ARENA), core_id=0, capacity=SLOTS, arena_bytes=ARENA, thresholds=(85, 75, 95, 85)
        )

    def check(_: EventRing, results: list[Any]) -> None:
        assert sorted(type(each).__name__ for each in results) == sorted(
            [end.__name__, *["OwnershipError"] * (threads - 1)]
        )

    Contest([end] * threads, prepare=prepare, check=check, together=TOGETHER).run(rounds(5000))


@pytest.fixture
def bus() -> Iterator[EventBus]:
    with (
        memory_directory() as directory,
        EventBus.create("first-use", 1, SLOTS, arena_bytes=ARENA, directory=directory) as bus,
    ):
        yield bus


@pytest.mark.parametrize("end", ["producer", "consumer"])
def test_an_end_of_a_bus_has_one_holder(bus: EventBus, end: str) -> None:
    def claim(bus: EventBus) -> EventProducer | EventConsumer:
        return bus.producer(0) if end == "producer" else bus.consumer(0)

    def check(bus: EventBus, results: list[Any]) -> None:
        taken = [each for each in results if isinstance(each, EventProducer | EventConsumer)]
        assert len(taken) == 1, results
        assert sum(type(each) is RoleTaken for each in results) == len(results) - 1, results
        taken[0].close()

    count = rounds(500)
    Contest([claim] * 4, prepare=lambda _: bus, check=check).run(count)
    [stats] = bus.stats()
    assert (stats.producer_claims if end == "producer" else stats.consumer_claims) == count


def test_an_owner_that_has_ended_is_not_mistaken_for_another() -> None:
    """A thread that begins when another has ended may get that one's memory, and its end it does not."""
    producer, consumer = ends()
    thread = threading.Thread(target=lambda: producer.emit(event(1)))
    thread.start()
    thread.join()
    refused: list[str] = []

    def emit() -> None:
        try:
            producer.emit(event(2))
        except OwnershipError as error:
            refused.append(str(error))

    for _ in range(50):
        thread = threading.Thread(target=emit)
        thread.start()
        thread.join()
    assert len(refused) == 50
    assert sequences(consumer.drain()) == [1]
