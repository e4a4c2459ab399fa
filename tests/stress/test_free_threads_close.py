"""``close()`` from another thread, at any instant of any call of the end: no event is lost, and none comes twice."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import pytest

from nodedb_ring import (
    ClosedError,
    EventBatch,
    EventBus,
    EventConsumer,
    EventProducer,
    RoleTaken,
    create_event_bus,
    merge,
    wait,
)
from tests.unit.builders import event, events, sequences

from .contention import Contest, rounds
from .journal import memory_directory

SLOTS: Final = 16
ARENA: Final = 1024
SPREAD: Final = 600
TOGETHER: Final = 10

Call = Callable[[EventProducer], tuple[int, int]]
"""Emits some events; how many were tried, and how many of these the ring took."""


class Ends(NamedTuple):
    producer: EventProducer
    consumer: EventConsumer


def ends(_: int) -> Ends:
    [producer], [consumer] = create_event_bus(1, SLOTS, arena_bytes=ARENA)
    return Ends(producer, consumer)


def numbered(producer: EventProducer, count: int) -> EventBatch:
    first = producer.next_sequence
    return EventBatch.from_events(events(first, first + count - 1))


def emit(producer: EventProducer) -> tuple[int, int]:
    return 1, producer.emit(event(producer.next_sequence))


def emit_batch(producer: EventProducer) -> tuple[int, int]:
    return 5, producer.emit_batch(numbered(producer, 5))


def emit_and_wait(producer: EventProducer) -> tuple[int, int]:
    # Larger than the ring, and so it waits in between.
    done = producer.emit_batch(numbered(producer, 2 * SLOTS), timeout=None)
    # What close() kept from being tried is not counted.
    return done, done


def reserve(producer: EventProducer) -> tuple[int, int]:
    with producer.reserve(3) as rows:
        rows["op"] = 1
    return rows.published, rows.published


def wait_for_room(producer: EventProducer) -> tuple[int, int]:
    if not producer.wait_for_room(SLOTS // 2):
        return 0, 0
    return emit(producer)


PRODUCING: Final[dict[str, Call]] = {
    "emit": emit,
    "emit_batch": emit_batch,
    "emit_and_wait": emit_and_wait,
    "reserve": reserve,
    "wait_for_room": wait_for_room,
}


def until_closed(producer: EventProducer, call: Call) -> tuple[int, int]:
    """Emits until another thread has closed it: how many were tried, and taken."""
    tried = taken = 0
    while True:
        try:
            more, enqueued = call(producer)
        except ClosedError:
            return tried, taken
        tried += more
        taken += enqueued


def to_the_end(consumer: EventConsumer) -> list[int]:
    """What comes until the producer is seen to have gone, by a consumer that never sleeps."""
    numbers: list[int] = []
    while not consumer.is_producer_disconnected:
        numbers += sequences(consumer.drain())
    return numbers


@pytest.mark.parametrize("call", PRODUCING)
def test_what_was_enqueued_comes_before_the_end(call: str) -> None:
    def check(subject: Ends, results: list[Any]) -> None:
        [(tried, taken), numbers, _] = results
        stats = subject.producer.stats()
        assert len(numbers) == taken, "what was enqueued came after the end, or never"
        assert numbers == sorted(set(numbers))
        assert stats.emitted == taken
        assert stats.dropped_full == stats.dropped
        assert stats.emitted + stats.dropped == tried
        assert subject.consumer.stats().received == taken

    contest = Contest(
        [
            lambda subject: until_closed(subject.producer, PRODUCING[call]),
            lambda subject: to_the_end(subject.consumer),
            lambda subject: subject.producer.close(),
        ],
        prepare=ends,
        check=check,
        spread=SPREAD,
        together=TOGETHER,
    )
    contest.run(rounds(1000))


def drain_until_closed(consumer: EventConsumer) -> Iterator[list[int]]:
    while True:
        yield sequences(consumer.drain(2))


def receive_until_closed(consumer: EventConsumer) -> Iterator[list[int]]:
    while True:
        taken = consumer.try_recv()
        yield [] if taken is None else [taken.sequence]


def lease_until_closed(consumer: EventConsumer) -> Iterator[list[int]]:
    while True:
        with consumer.lease(2) as batch:
            yield sequences(batch)


def iterate_until_closed(consumer: EventConsumer) -> Iterator[list[int]]:
    yield from map(sequences, consumer)


def wait_until_closed(consumer: EventConsumer) -> Iterator[list[int]]:
    while True:
        yield sequences(consumer.drain(2, timeout=None))


def merge_until_closed(consumer: EventConsumer) -> Iterator[list[int]]:
    for _, batch in merge([consumer], 2):
        yield sequences(batch)


def wait_first_until_closed(consumer: EventConsumer) -> Iterator[list[int]]:
    while wait([consumer]):
        yield sequences(consumer.drain(2))


def ask_until_closed(consumer: EventConsumer) -> Iterator[list[int]]:
    while True:
        assert consumer.fileno() >= 0
        yield sequences(consumer.drain(2))


CONSUMING: Final[dict[str, Callable[[EventConsumer], Iterator[list[int]]]]] = {
    "drain": drain_until_closed,
    "try_recv": receive_until_closed,
    "lease": lease_until_closed,
    "iteration": iterate_until_closed,
    "waiting": wait_until_closed,
    "merge": merge_until_closed,
    "wait": wait_first_until_closed,
    "fileno": ask_until_closed,
}


def all_until_closed(consumer: EventConsumer, call: str) -> list[int]:
    numbers: list[int] = []
    try:
        for each in CONSUMING[call](consumer):
            numbers += each
    except ClosedError:
        pass
    return numbers


def until_disconnected(producer: EventProducer) -> tuple[int, int]:
    """Emits until the consumer has gone, and once more: how many were tried, and taken."""
    tried = taken = 0
    while not producer.is_consumer_disconnected:
        tried += 1
        taken += producer.emit(event(tried))
    assert not producer.emit(event(tried + 1))
    return tried + 1, taken


@pytest.mark.parametrize("call", CONSUMING)
def test_a_closed_consumer_has_counted_what_it_got(call: str) -> None:
    def check(subject: Ends, results: list[Any]) -> None:
        [numbers, (tried, taken), _] = results
        sent, received = subject.producer.stats(), subject.consumer.stats()
        assert numbers == sorted(set(numbers))
        assert received.received == len(numbers)
        assert received.held == 0
        assert (sent.emitted, sent.emitted + sent.dropped) == (taken, tried)
        assert sent.dropped_disconnected >= 1
        assert taken >= len(numbers)

    contest = Contest(
        [
            lambda subject: all_until_closed(subject.consumer, call),
            lambda subject: until_disconnected(subject.producer),
            lambda subject: subject.consumer.close(),
        ],
        prepare=ends,
        check=check,
        spread=SPREAD,
        together=TOGETHER,
    )
    contest.run(rounds(1000))


@pytest.fixture
def bus() -> Iterator[EventBus]:
    with (
        memory_directory() as directory,
        EventBus.create("close", TOGETHER, SLOTS, arena_bytes=ARENA, directory=directory) as bus,
    ):
        yield bus


def open_and_close(subject: Ends) -> None:
    """A descriptor of this thread's own, which nobody else closes."""
    for _ in range(20):
        fd = os.open(os.devnull, os.O_RDONLY)
        os.fstat(fd)
        os.close(fd)


@pytest.mark.parametrize("end", ["producer", "consumer"])
def test_an_end_is_closed_once(bus: EventBus, end: str) -> None:
    """Of two threads that close it, one gives the role back: a descriptor that is closed twice is another thread's."""

    def check(subject: Ends, results: list[Any]) -> None:
        assert results == [None, None, None]
        subject.producer.close()
        subject.consumer.close()

    contest = Contest(
        [lambda subject: getattr(subject, end).close()] * 2 + [open_and_close],
        prepare=lambda number: Ends(bus.producer(number % TOGETHER), bus.consumer(number % TOGETHER)),
        check=check,
        together=TOGETHER,
    )
    contest.run(rounds(6000))


def producer_after(bus: EventBus, last: EventProducer) -> EventProducer:
    """The next holder of its end, as soon as there can be one."""
    while True:
        with contextlib.suppress(RoleTaken):
            return bus.producer(last.core_id)


def consumer_after(bus: EventBus, last: EventConsumer) -> EventConsumer:
    while True:
        with contextlib.suppress(RoleTaken):
            return bus.consumer(last.core_id)


@pytest.mark.parametrize("call", ["emit", "emit_batch", "reserve", "emit_and_wait"])
def test_a_successor_of_a_closed_producer_goes_on_where_it_stopped(bus: EventBus, call: str) -> None:
    """It comes as soon as the role is free, and then nothing of the call that was in progress may follow."""
    consumers = bus.consumers()

    def succeed(subject: EventProducer) -> list[int]:
        successor = producer_after(bus, subject)
        numbers = [successor.next_sequence + i for i in range(3)]
        enqueued = [number for number in numbers if successor.emit(event(number))]
        successor.close()
        return enqueued

    received: dict[int, list[int]] = {core_id: [] for core_id in range(TOGETHER)}

    def drain(subject: EventProducer) -> None:
        consumer = consumers[subject.core_id]
        consumer.bind()
        for _ in range(10):
            received[subject.core_id] += sequences(consumer.drain())

    def check(subject: EventProducer, results: list[Any]) -> None:
        [(_, taken), _, after, _] = results
        drain(subject)
        numbers = received[subject.core_id]
        assert len(numbers) == taken + len(after), "an event was lost, or came twice"
        assert numbers == sorted(set(numbers)), "out of order"
        assert numbers[len(numbers) - len(after) :] == after
        numbers.clear()

    contest = Contest(
        [
            lambda subject: until_closed(subject, PRODUCING[call]),
            lambda subject: subject.close(),
            succeed,
            drain,
        ],
        prepare=lambda number: bus.producer(number % TOGETHER),
        check=check,
        spread=SPREAD,
        together=TOGETHER,
    )
    contest.run(rounds(600))


@pytest.mark.parametrize("call", ["drain", "try_recv", "lease"])
def test_a_successor_of_a_closed_consumer_gets_the_rest(bus: EventBus, call: str) -> None:
    producers = [bus.producer(core_id) for core_id in range(TOGETHER)]

    def prepare(number: int) -> EventConsumer:
        consumer = bus.consumer(number % TOGETHER)
        producer = producers[consumer.core_id]
        producer.bind()
        for _ in range(SLOTS):
            assert producer.emit(event(producer.next_sequence))
        return consumer

    def succeed(subject: EventConsumer) -> list[int]:
        with consumer_after(bus, subject) as successor:
            return sequences(successor.drain())

    def check(subject: EventConsumer, results: list[Any]) -> None:
        [before, _, after] = results
        sent = producers[subject.core_id].next_sequence
        assert before + after == list(range(sent - SLOTS, sent)), (before, after)

    contest = Contest(
        [lambda subject: all_until_closed(subject, call), lambda subject: subject.close(), succeed],
        prepare=prepare,
        check=check,
        spread=SPREAD,
        together=TOGETHER,
    )
    contest.run(rounds(600))
