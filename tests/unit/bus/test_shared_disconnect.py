"""The end of the other process: who has gone, and what is still delivered."""

from __future__ import annotations

import signal
import time

import pytest

from nodedb_ring import EventBus
from tests.unit.builders import batch, event, events, fill, sequences
from tests.unit.forks import raw_fork
from tests.unit.shared_buses import SECONDS, Held, close_consumer, close_producer, drain, emit, emit_whole, end, lease

from .waiters import collector_of, consuming_peer, has_gone, producing_peer, waiter_on


def test_an_end_that_was_never_claimed_is_not_gone(bus: EventBus) -> None:
    consumer = bus.consumer(0)
    assert not consumer.is_producer_disconnected
    assert len(consumer.drain(timeout=0.01)) == 0
    waiter = collector_of(consumer)
    waiter.until_asleep()
    assert not consumer.is_producer_disconnected
    with producing_peer(bus) as other:
        other.ask(emit, 1, 3)
        other.ask(close_producer)
    assert waiter.result() == [1, 2, 3]


def test_a_producer_may_come_first(bus: EventBus) -> None:
    producer = bus.producer(0)
    fill(producer, 1, 16)
    assert not producer.emit(event(17))
    assert not producer.is_consumer_disconnected
    stats = producer.stats()
    assert (stats.dropped_full, stats.dropped_disconnected) == (1, 0)
    with consuming_peer(bus) as other:
        assert other.ask(drain) == list(range(1, 17))
    fill(producer, 18, 18)


@pytest.mark.parametrize("timeout", [None, 1e6])
@pytest.mark.parametrize("how", ["close", "kill"])
def test_a_producer_that_goes_ends_a_wait(how: str, timeout: float | None, bus: EventBus) -> None:
    consumer = bus.consumer(0)
    with producing_peer(bus) as other:
        waiter = waiter_on(consumer, timeout)
        waiter.until_asleep()
        if how == "close":
            other.ask(close_producer)
        else:
            other.kill()
        assert waiter.result() == []
        assert has_gone(consumer)


def test_death_is_seen_though_the_dead_one_never_emitted_and_came_during_the_wait(bus: EventBus) -> None:
    consumer = bus.consumer(0)
    waiter = waiter_on(consumer)
    waiter.until_asleep()
    with producing_peer(bus) as other:
        waiter.until_asleep()
        other.kill()
    assert waiter.result() == []


def clone(held: Held) -> int:
    """Makes a process that keeps all that it inherited, lock and all, behind the C library's back."""
    pid = raw_fork()
    if pid == 0:
        signal.alarm(SECONDS)
        while True:
            signal.pause()
    return pid


def test_a_death_is_seen_although_a_clone_keeps_the_lock(bus: EventBus) -> None:
    consumer = bus.consumer(0)
    with producing_peer(bus) as other:
        other.ask(emit, 1, 2)
        child = other.ask(clone)
        try:
            waiter = collector_of(consumer)
            # It watches a process from its first sleep on; of one that was reaped before, only the lock shows it.
            waiter.until_asleep()
            other.kill()
            assert waiter.result() == [1, 2]
            assert has_gone(consumer)
        finally:
            end(child)


@pytest.mark.parametrize("how", ["close", "kill"])
def test_everything_is_drained_before_the_disconnect_shows(how: str, bus: EventBus) -> None:
    consumer = bus.consumer(0)
    with producing_peer(bus) as other:
        other.ask(emit, 1, 5)
        if how == "close":
            other.ask(close_producer)
        else:
            other.kill()
    received: list[list[int]] = []
    while not consumer.is_producer_disconnected:
        received.append(sequences(consumer.drain(2, timeout=None)))
    assert [each for each in received if each] == [[1, 2], [3, 4], [5]]
    for _ in range(3):
        assert len(consumer.drain(timeout=None)) == 0
        assert consumer.try_recv() is None
        assert consumer.is_producer_disconnected


@pytest.mark.parametrize("how", ["close", "kill"])
def test_iteration_ends_once_the_producer_has_gone_and_the_ring_is_empty(how: str, bus: EventBus) -> None:
    consumer = bus.consumer(0)
    with producing_peer(bus) as other:
        waiter = collector_of(consumer)
        waiter.until_asleep()
        other.ask(emit, 1, 10)
        if how == "close":
            other.ask(close_producer)
        else:
            other.kill()
        assert waiter.result() == list(range(1, 11))


def test_death_in_the_midst_of_a_stream(bus: EventBus) -> None:
    consumer = bus.consumer(0)
    with producing_peer(bus) as other:
        other.post(emit_whole, 1, 10**6)
        seen: list[int] = []
        lives = True
        for each in consumer:
            seen += sequences(each)
            if lives and len(seen) > 2000:
                other.kill()
                lives = False
        assert seen == list(range(1, len(seen) + 1))
        assert consumer.is_producer_disconnected
    successor = bus.producer(0)
    # The number that was about to be tried may be used up, no other.
    assert successor.next_sequence - len(seen) in (1, 2)


@pytest.mark.parametrize("how", ["close", "kill"])
def test_a_successor_clears_the_disconnect_and_the_consumer_continues(how: str, bus: EventBus) -> None:
    consumer = bus.consumer(0)
    for turn in range(3):
        first = 5 * turn + 1
        with producing_peer(bus) as other:
            assert not has_gone(consumer)
            waiter = waiter_on(consumer)
            waiter.until_asleep()
            other.ask(emit, first, first)
            assert waiter.result() == [first]
            waiter = collector_of(consumer)
            other.ask(emit, first + 1, first + 4)
            if how == "close":
                other.ask(close_producer)
            else:
                other.kill()
            assert waiter.result() == [first + 1, first + 2, first + 3, first + 4]
            assert has_gone(consumer)


def test_a_wait_continues_when_a_successor_follows_at_once(bus: EventBus) -> None:
    # The waiter may see the change of producers, or only the new one: then it waits on for it.
    consumer = bus.consumer(0)
    number = 0
    seen: list[int] = []
    for _ in range(5):
        waiter = waiter_on(consumer)
        producer = bus.producer(0)
        fill(producer, number + 1, number + 1)
        producer.close()
        producer = bus.producer(0)
        fill(producer, number + 2, number + 2)
        number += 2
        seen += waiter.result()
        producer.close()
    consumer.bind()
    seen += sequences(consumer.drain())
    assert seen == list(range(1, 11))


@pytest.mark.parametrize("how", ["close", "kill"])
def test_a_consumer_that_has_gone_and_a_successor(how: str, bus: EventBus) -> None:
    producer = bus.producer(0)
    for turn in range(3):
        with consuming_peer(bus) as other:
            assert not has_gone(producer)
            fill(producer, 10 * turn + 1, 10 * turn + 2)
            assert other.ask(drain) == [10 * turn + 1, 10 * turn + 2]
            if how == "close":
                other.ask(close_consumer)
            else:
                other.kill()
        assert has_gone(producer)
        assert [producer.emit(event(10 * turn + n)) for n in (3, 4)] == [False, False]
        assert producer.emit_batch(batch(10 * turn + 5, 10 * turn + 7)) == 0
        stats = producer.stats()
        assert (stats.dropped_full, stats.dropped_disconnected) == (0, 5 * (turn + 1))
        assert producer.next_sequence == 10 * turn + 8


def test_a_producer_that_only_emits_notices_a_death_when_the_ring_is_full(bus: EventBus) -> None:
    producer = bus.producer(0)
    with consuming_peer(bus) as other:
        fill(producer, 1, 3)
        assert other.ask(lease, 2) == [1, 2]
        other.kill()
    number = 4
    while producer.stats().dropped_disconnected == 0:
        producer.emit(event(number))
        number += 1
        if number > 20:
            time.sleep(0.001)
    stats = producer.stats()
    assert stats.emitted == 16
    assert stats.dropped_full + stats.dropped_disconnected == number - 17
    assert has_gone(producer)
    successor = bus.consumer(0)
    # Nothing is done at the producer: it continues by itself.
    assert list(successor.drain()) == events(1, 16)
    fill(producer, number, number)
    assert sequences(successor.drain()) == [number]
    assert not has_gone(producer)


def test_a_full_ring_of_a_living_consumer_stays_full(bus: EventBus) -> None:
    producer = bus.producer(0)
    with consuming_peer(bus) as other:
        fill(producer, 1, 16)
        deadline = time.monotonic() + 0.12  # longer than the producer lets pass between two checks
        tried = 0
        while time.monotonic() < deadline:
            assert not producer.emit(event(17 + tried))
            tried += 1
        stats = producer.stats()
        assert (stats.dropped_full, stats.dropped_disconnected) == (tried, 0)
        assert not producer.is_consumer_disconnected
        assert other.ask(drain) == list(range(1, 17))
        fill(producer, 17 + tried, 17 + tried)
