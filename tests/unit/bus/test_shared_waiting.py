"""Waiting for another process: woken by its events, its close and its death; by call, by descriptor and on a loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import select
import selectors
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from nodedb_ring import BusyError, ClosedError, EventBus, EventConsumer, EventProducer, OwnershipError
from tests.unit.builders import batch, event, events, fill, ring, sequences
from tests.unit.ends.test_waiting import Interrupted, on_signal, send, when_main_sleeps
from tests.unit.runners import Running
from tests.unit.shared_buses import (
    SECONDS,
    BusMaker,
    Held,
    Peer,
    claim_consumer,
    claim_producer,
    close_consumer,
    close_producer,
    drain,
    emit,
    emit_whole,
    end,
    lease,
)

from .test_shared_roles import raw_fork


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


# waking


@pytest.mark.parametrize("spin", [None, 0.0])
def test_an_event_of_another_process_wakes_a_waiter(spin: float | None, bus: EventBus) -> None:
    consumer = bus.consumer(0)
    if spin is not None:
        consumer.spin = spin
    with producing_peer(bus) as other:
        for number in range(1, 6):
            waiter = waiter_on(consumer)
            waiter.until_asleep()
            assert other.ask(emit, number, number) == [True]
            assert waiter.result() == [number]


def publish(held: Held, by: str) -> None:
    if by == "emit":
        held.producer.emit(event(1))
    elif by == "emit_batch":
        held.producer.emit_batch(batch(1, 1))
    else:
        with held.producer.reserve(1) as rows:
            rows["op"] = 1


@pytest.mark.parametrize("by", ["emit", "emit_batch", "reserve"])
def test_every_way_to_publish_wakes_it(by: str, bus: EventBus) -> None:
    consumer = bus.consumer(0)
    with producing_peer(bus) as other:
        waiter = waiter_on(consumer, 1e6)
        waiter.until_asleep()
        other.ask(publish, by)
        assert waiter.result() == [1]


def echo(held: Held, spin: float) -> int:
    """Sends back each number that comes on core 0, on core 1, until its producer has gone."""
    echoed = 0
    with held.bus.consumer(0) as consumer, held.bus.producer(1) as producer:
        consumer.spin = spin
        for each in consumer:
            for number in sequences(each):
                assert producer.emit(event(number))
                echoed += 1
    return echoed


@pytest.mark.parametrize("spin", [0.0, 10e-6])
def test_round_trips_lose_no_wake(spin: float, make_bus: BusMaker) -> None:
    # A sleeper that nobody wakes checks by itself after a tenth of a second: lost wakes would take over a minute.
    trips = 1000
    bus = make_bus(2)
    with Peer(bus) as other:
        other.post(echo, spin)
        producer, consumer = bus.producer(0), bus.consumer(1)
        consumer.spin = spin
        for number in range(1, trips + 1):
            fill(producer, number, number)
            assert sequences(consumer.drain(timeout=None)) == [number]
        producer.close()
        assert other.answer() == trips


def consume_all(held: Held) -> list[int]:
    seen: list[int] = []
    for each in held.consumer:
        seen += sequences(each)
    return seen


def test_a_stream_arrives_whole(bus: EventBus) -> None:
    with consuming_peer(bus) as other:
        producer = bus.producer(0)
        other.post(consume_all)
        number = 0
        while number < 3000:
            if producer.emit(event(number + 1)):
                number += 1
            else:
                time.sleep(0)
            if number % 200 == 0:
                time.sleep(0.001)  # long enough for it to fall asleep now and then
        producer.close()
        assert other.answer() == list(range(1, 3001))


def test_a_timeout_returns_an_empty_batch_not_before_its_time(bus: EventBus) -> None:
    consumer = bus.consumer(0)
    with producing_peer(bus) as other:
        for timeout in (0.0, 0.01, 0.15):
            started = time.monotonic()
            assert len(consumer.drain(timeout=timeout)) == 0
            assert time.monotonic() - started >= timeout
        assert not consumer.is_producer_disconnected
        other.ask(emit, 1, 1)
        assert sequences(consumer.drain(timeout=0.01)) == [1]


# who has gone


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


# closing, owning, signals


@pytest.mark.parametrize("wait", [waiter_on, collector_of])
def test_closing_the_consumer_ends_its_wait(wait: Callable[[EventConsumer], Running[list[int]]], bus: EventBus) -> None:
    with producing_peer(bus):
        consumer = bus.consumer(0)
        waiter = wait(consumer)
        waiter.until_asleep()
        consumer.close()
        assert waiter.result() == []
        with pytest.raises(ClosedError):
            consumer.drain()


def test_one_waiter_at_a_time(bus: EventBus) -> None:
    consumer = bus.consumer(0)
    refused: list[BusyError] = []

    def wait_as_well() -> None:
        assert len(consumer.drain()) == 0  # this does not wait
        for timeout in (1, None):
            try:
                consumer.drain(timeout=timeout)
            except BusyError as error:
                refused.append(error)

    with producing_peer(bus) as other:

        def signal_then_an_event() -> None:
            send(signal.SIGUSR1)()
            while len(refused) < 2:
                time.sleep(0.001)
            other.ask(emit, 1, 1)

        with on_signal(signal.SIGUSR1, wait_as_well):
            sender = when_main_sleeps(signal_then_an_event)
            assert sequences(consumer.drain(timeout=None)) == [1]
            sender.result()
    assert [str(each) for each in refused if "core 0" not in str(each)] == []


def test_a_waiter_is_not_bound_away(bus: EventBus) -> None:
    consumer = bus.consumer(0)
    with producing_peer(bus) as other:
        waiter = waiter_on(consumer)
        waiter.until_asleep()
        with pytest.raises(OwnershipError):
            consumer.bind()
        with pytest.raises(OwnershipError):
            consumer.drain(timeout=1)
        other.ask(emit, 1, 1)
        assert waiter.result() == [1]


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Also where a shell that runs us in the background had it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_interrupts_a_wait_and_nothing_is_lost(bus: EventBus) -> None:
    consumer = bus.consumer(0)
    with producing_peer(bus) as other:
        for number in range(1, 4):
            sender = when_main_sleeps(send(signal.SIGINT))
            with pytest.raises(KeyboardInterrupt):
                consumer.drain(timeout=None)
            sender.result()
            other.ask(emit, number, number)
            assert sequences(consumer.drain(timeout=None)) == [number]
        assert consumer.stats().received == 3


def test_a_handler_that_returns_lets_it_wait_on(bus: EventBus) -> None:
    consumer = bus.consumer(0)
    handled: list[int] = []
    with producing_peer(bus) as other:

        def signals_then_an_event() -> None:
            for n in range(3):
                send(signal.SIGUSR1)()
                while len(handled) <= n:
                    time.sleep(0.001)
            other.ask(emit, 1, 1)

        with on_signal(signal.SIGUSR1, lambda: handled.append(1)):
            sender = when_main_sleeps(signals_then_an_event)
            assert sequences(consumer.drain(timeout=None)) == [1]
            sender.result()
    assert len(handled) == 3


# spin

LONGEST_SPIN = 0.01


def pair(kind: str, make_bus: BusMaker) -> tuple[EventProducer, EventConsumer]:
    if kind == "private":
        return ring()
    bus = make_bus()
    return bus.producer(0), bus.consumer(0)


KINDS = ["private", "shared"]


@pytest.mark.parametrize("kind", KINDS)
def test_spin_is_how_long_a_wait_polls_first(kind: str, make_bus: BusMaker) -> None:
    producer, consumer = pair(kind, make_bus)
    assert 0 < consumer.spin < 1e-3
    for spin in (0, 0.0, 1e-6, 0.002):
        consumer.spin = spin
        assert consumer.spin == pytest.approx(spin)
        assert len(consumer.drain(timeout=0.001)) == 0
        waiter = waiter_on(consumer)
        waiter.until_asleep()
        fill(producer, 1, 1)
        assert waiter.result() == [1]
        consumer.bind()


@pytest.mark.parametrize("kind", KINDS)
def test_a_spin_is_short_since_signals_wait_for_its_end(kind: str, make_bus: BusMaker) -> None:
    _, consumer = pair(kind, make_bus)
    consumer.spin = LONGEST_SPIN
    for spin in (LONGEST_SPIN * 1.001, 3600, math.inf):
        with pytest.raises(ValueError, match=f"spin {spin}: must be at most"):
            consumer.spin = spin
    assert consumer.spin == pytest.approx(LONGEST_SPIN)
    with on_signal(signal.SIGUSR1, interrupt):
        sender = when_main_sleeps(send(signal.SIGUSR1))
        with pytest.raises(Interrupted):
            consumer.drain(timeout=None)
        sender.result()


def interrupt() -> None:
    raise Interrupted


def test_the_longest_spin_sees_a_death(bus: EventBus) -> None:
    consumer = bus.consumer(0)
    consumer.spin = LONGEST_SPIN
    with producing_peer(bus) as other:
        waiter = waiter_on(consumer)
        other.kill()
        assert waiter.result() == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_spin_is_a_number_of_seconds(kind: str, make_bus: BusMaker) -> None:
    _, consumer = pair(kind, make_bus)
    before = consumer.spin
    wrong: Any
    for wrong in (-1, -1e-9, math.nan):
        with pytest.raises(ValueError, match=str(wrong)):
            consumer.spin = wrong
    for wrong in ("soon", None):
        with pytest.raises((TypeError, ValueError)):
            consumer.spin = wrong
    assert consumer.spin == before


# fileno


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
        number = 0
        while number < 2000:
            if producer.emit(event(number + 1)):
                number += 1
            else:
                time.sleep(0)
            if number % 50 == 0:
                time.sleep(0.0005)
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


# asyncio


async def collect(consumer: EventConsumer) -> list[int]:
    seen: list[int] = []
    async for each in consumer:
        seen += sequences(each)
    return seen


async def in_the_background(call: Callable[[], object]) -> None:
    """Runs what blocks beside the loop, a moment after it began to wait."""
    await asyncio.sleep(0.01)
    await asyncio.to_thread(call)


@pytest.mark.parametrize("how", ["close", "kill"])
def test_async_for_ends_once_the_producer_has_gone(how: str, bus: EventBus) -> None:
    consumer = bus.consumer(0)

    async def both(other: Peer) -> list[int]:
        waiting = asyncio.create_task(collect(consumer))
        await in_the_background(lambda: other.ask(emit_whole, 1, 400))
        await in_the_background(lambda: other.ask(emit_whole, 401, 800))
        await in_the_background(lambda: other.ask(close_producer) if how == "close" else other.kill())
        return await waiting

    for _ in range(2):
        # The second time a successor, and another loop: the same consumer continues.
        with producing_peer(bus) as other:
            assert asyncio.run(both(other)) == list(range(1, 801))
        assert has_gone(consumer)


def test_drain_async_waits_for_another_process(bus: EventBus) -> None:
    consumer = bus.consumer(0)

    async def turns(other: Peer) -> None:
        assert len(await consumer.drain_async(timeout=0.01)) == 0
        for number in range(1, 30):
            waiting = asyncio.create_task(consumer.drain_async())
            await asyncio.sleep(0)
            other.post(emit, number, number)
            assert sequences(await waiting) == [number]
            assert await asyncio.to_thread(other.answer) == [True]

    with producing_peer(bus) as other:
        asyncio.run(turns(other))


def test_a_cancelled_wait_loses_nothing(bus: EventBus) -> None:
    consumer = bus.consumer(0)

    async def turns(other: Peer) -> None:
        for number in range(1, 11):
            waiting = asyncio.create_task(consumer.drain_async())
            await asyncio.sleep(0)
            if number % 2:
                other.ask(emit, number, number)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            if number % 2 == 0:
                other.ask(emit, number, number)
            assert sequences(await consumer.drain_async()) == [number]

    with producing_peer(bus) as other:
        asyncio.run(turns(other))
    assert consumer.stats().received == 10


def test_closing_the_consumer_ends_an_asynchronous_wait(bus: EventBus) -> None:
    consumer = bus.consumer(0)

    async def wait() -> int:
        waiting = asyncio.create_task(consumer.drain_async())
        await in_the_background(consumer.close)
        return len(await waiting)

    with producing_peer(bus):
        assert asyncio.run(wait()) == 0


def test_two_processes_feed_one_loop(make_bus: BusMaker) -> None:
    bus = make_bus(2)
    consumers = [bus.consumer(core_id) for core_id in range(2)]

    async def both(peers: list[Peer]) -> list[list[int]]:
        tasks = [asyncio.create_task(collect(consumer)) for consumer in consumers]
        for peer in peers:
            peer.post(emit_whole, 1, 300)
        for peer in peers:
            await asyncio.to_thread(peer.answer)
        await asyncio.to_thread(peers[0].kill)
        first = await tasks[0]
        assert not tasks[1].done()
        await asyncio.to_thread(peers[1].kill)
        return [first, await tasks[1]]

    with producing_peer(bus, 0) as one, producing_peer(bus, 1) as two:
        assert asyncio.run(both([one, two])) == [list(range(1, 301))] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_one_waiter_at_a_time_on_a_loop(kind: str, make_bus: BusMaker) -> None:
    producer, consumer = pair(kind, make_bus)

    async def two() -> list[int]:
        first = asyncio.create_task(consumer.drain_async())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="core 0"):
            await consumer.drain_async()
        with pytest.raises(BusyError):
            consumer.drain(timeout=1)
        fill(producer, 1, 1)
        return sequences(await first)

    assert asyncio.run(two()) == [1]


@pytest.mark.parametrize("how", ["close", "kill"])
def test_a_reader_of_the_loop(how: str, bus: EventBus) -> None:
    # add_reader with fileno(), for those who bring their own loop.
    consumer = bus.consumer(0)

    async def read(other: Peer) -> list[int]:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        seen: list[int] = []

        def on_ready() -> None:
            while len(batch := consumer.drain(7)):
                seen.extend(sequences(batch))
            if consumer.is_producer_disconnected and not done.done():
                done.set_result(None)

        loop.add_reader(consumer.fileno(), on_ready)
        await in_the_background(lambda: other.ask(emit_whole, 1, 300))
        await in_the_background(lambda: other.ask(close_producer) if how == "close" else other.kill())
        await done
        loop.remove_reader(consumer.fileno())
        return seen

    with producing_peer(bus) as other:
        assert asyncio.run(read(other)) == list(range(1, 301))


def test_the_waits_release_the_gil(bus: EventBus) -> None:
    # Each of the tests above would hang otherwise; here it is said outright.
    consumer = bus.consumer(0)
    turns: list[int] = []
    stop = threading.Event()

    def count() -> None:
        while not stop.is_set():
            turns.append(1)
            time.sleep(0)

    counter = threading.Thread(target=count)
    counter.start()
    try:
        before = len(turns)
        assert len(consumer.drain(timeout=0.15)) == 0
        assert len(turns) > before + 1
    finally:
        stop.set()
        counter.join()
