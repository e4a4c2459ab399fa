"""A call that waits for another process: what wakes it, what interrupts it, and how long it polls first."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nodedb_ring import BusyError, ClosedError, EventBus, EventConsumer, OwnershipError
from tests.unit.builders import batch, emit_with_pauses, event, fill, sequences
from tests.unit.ends.test_waiting import Interrupted, on_signal, send, when_main_sleeps
from tests.unit.runners import Running
from tests.unit.shared_buses import BusMaker, Held, Peer, emit

from .waiters import KINDS, collector_of, consuming_peer, pair, producing_peer, waiter_on

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
        emit_with_pauses(producer, 3000, every=200, seconds=0.001)
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
