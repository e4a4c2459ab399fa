"""A descriptor that is readable when there are events: alone, in select, and across processes."""

from __future__ import annotations

import gc
import os
import selectors
from collections.abc import Callable

import pytest

from nodedb_ring import ClosedError, EventBus, EventConsumer
from tests.unit.builders import emit_with_pauses, event, fill, ring, sequences
from tests.unit.runners import Running
from tests.unit.shared_buses import SECONDS, BusMaker, close_producer, emit, emit_whole

from .waiters import KINDS, is_silent, pair, producing_peer, readable


def follow(consumer: EventConsumer) -> list[int]:
    """Waits in select, as the documentation says, until the producer has gone."""
    seen: list[int] = []
    while not consumer.is_producer_disconnected:
        assert readable(consumer, SECONDS)
        while len(batch := consumer.drain(3)):
            seen += sequences(batch)
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_a_descriptor_is_readable_when_there_are_events(kind: str, make_bus: BusMaker) -> None:
    producer, consumer = pair(kind, make_bus)
    fd = consumer.fileno()
    assert isinstance(fd, int)
    assert os.get_inheritable(fd) is False
    assert len(consumer.drain()) == 0
    assert is_silent(consumer)
    for number in range(1, 6):
        fill(producer, number, number)
        assert readable(consumer)
        assert readable(consumer)
        assert sequences(consumer.drain()) == [number]
        assert len(consumer.drain()) == 0
        assert is_silent(consumer)
        assert consumer.fileno() == fd
    producer.close()
    assert readable(consumer)
    assert len(consumer.drain()) == 0
    assert consumer.is_producer_disconnected
    assert readable(consumer)


@pytest.mark.parametrize("kind", KINDS)
def test_a_descriptor_that_is_asked_for_late_is_readable_at_once(kind: str, make_bus: BusMaker) -> None:
    producer, consumer = pair(kind, make_bus)
    fill(producer, 1, 2)
    assert readable(consumer)
    assert consumer.try_recv() == event(1)
    assert sequences(consumer.drain()) == [2]
    assert consumer.try_recv() is None
    assert is_silent(consumer)
    producer, consumer = pair(kind, make_bus)
    producer.close()
    assert readable(consumer)


@pytest.mark.parametrize("kind", KINDS)
def test_every_call_that_takes_serves_a_descriptor(kind: str, make_bus: BusMaker) -> None:
    producer, consumer = pair(kind, make_bus)
    consumer.fileno()
    takers: list[Callable[[], object]] = [
        lambda: len(consumer.drain(1)),
        lambda: consumer.try_recv() is not None,
        lambda: leased(consumer),
        lambda: len(consumer.drain(timeout=0.001)),
    ]
    number = 1
    for take in takers:
        for _ in range(3):
            fill(producer, number, number + 1)
            assert readable(consumer)
            while take():
                pass
            assert is_silent(consumer)
            number += 2
    assert consumer.stats().received == number - 1


def leased(consumer: EventConsumer) -> int:
    with consumer.lease(5) as events_in_place:
        return len(events_in_place)


@pytest.mark.parametrize("selector", [selectors.SelectSelector, selectors.PollSelector, selectors.EpollSelector])
@pytest.mark.parametrize("kind", KINDS)
def test_selectors(kind: str, selector: Callable[[], selectors.BaseSelector], make_bus: BusMaker) -> None:
    producer, consumer = pair(kind, make_bus)
    with selector() as waiting:
        waiting.register(consumer, selectors.EVENT_READ, "it")
        assert len(consumer.drain()) == 0
        assert waiting.select(0) == []
        writer = Running(lambda: producer.emit(event(1)))
        [(key, mask)] = waiting.select(SECONDS)
        assert (key.data, mask) == ("it", selectors.EVENT_READ)
        assert writer.result()
        assert sequences(consumer.drain()) == [1]
        assert len(consumer.drain()) == 0
        assert waiting.select(0) == []


@pytest.mark.parametrize("kind", KINDS)
def test_select_keeps_every_event_of_a_stream(kind: str, make_bus: BusMaker) -> None:
    producer, consumer = pair(kind, make_bus)

    def produce() -> None:
        emit_with_pauses(producer, 2000, every=50, seconds=0.0005)
        producer.close()

    writer = Running(produce)
    assert follow(consumer) == list(range(1, 2001))
    writer.result()


@pytest.mark.parametrize("how", ["close", "kill"])
def test_select_across_processes(how: str, bus: EventBus) -> None:
    consumer = bus.consumer(0)
    consumer.fileno()
    for turn in range(3):
        first = 600 * turn + 1
        with producing_peer(bus) as other:
            # Of the one before nothing is left that would wake anybody.
            assert len(consumer.drain()) == 0
            assert is_silent(consumer)
            follower = Running(lambda: bind_and_follow(consumer))
            other.ask(emit_whole, first, first + 599)
            if how == "close":
                other.ask(close_producer)
            else:
                other.kill()
            assert follower.result() == list(range(first, first + 600))
            consumer.bind()
            assert readable(consumer)


def bind_and_follow(consumer: EventConsumer) -> list[int]:
    consumer.bind()
    return follow(consumer)


def test_a_descriptor_sees_a_producer_that_came_later_and_died_silently(bus: EventBus) -> None:
    consumer = bus.consumer(0)
    follower = Running(lambda: bind_and_follow(consumer))
    follower.until_asleep()
    with producing_peer(bus) as other:
        follower.until_asleep()
        other.kill()
    assert follower.result() == []


def test_a_descriptor_that_slept_over_a_whole_life_of_a_producer(bus: EventBus) -> None:
    consumer = bus.consumer(0)
    assert len(consumer.drain()) == 0
    assert is_silent(consumer)
    with producing_peer(bus) as other:
        other.ask(emit, 1, 2)
        other.kill()
    assert follow(consumer) == [1, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_consumer_has_no_descriptor(kind: str, make_bus: BusMaker) -> None:
    _, consumer = pair(kind, make_bus)
    assert consumer.fileno() >= 0
    consumer.close()
    with pytest.raises(ClosedError):
        consumer.fileno()


def test_a_private_consumer_s_descriptor_goes_with_it() -> None:
    # Of shared ones test_shared_bus.py says so.
    def once() -> None:
        producer, consumer = ring()
        consumer.fileno()
        fill(producer, 1, 1)
        assert readable(consumer)

    once()
    gc.collect()  # what earlier tests left must not go meanwhile
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        once()
    assert len(os.listdir("/proc/self/fd")) == before


def test_waiting_by_call_and_by_descriptor_in_turns(bus: EventBus) -> None:
    consumer = bus.consumer(0)
    with producing_peer(bus) as other:
        for number in range(1, 20, 2):
            other.post(emit, number, number)
            assert readable(consumer, SECONDS)
            assert sequences(consumer.drain()) == [number]
            assert other.answer() == [True]
            other.post(emit, number + 1, number + 1)
            assert sequences(consumer.drain(timeout=None)) == [number + 1]
            assert other.answer() == [True]
            assert len(consumer.drain()) == 0
            assert is_silent(consumer)
