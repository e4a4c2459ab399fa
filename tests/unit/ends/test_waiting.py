"""drain with a timeout: waits without the GIL, for the first event; an end that closes or a signal wakes it."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from nodedb_ring import BusyError, ClosedError, EventBatch, EventConsumer
from tests.unit.builders import emit_with_pauses, event, fill, ring, sequences
from tests.unit.runners import Running, until_asleep


@contextmanager
def on_signal(number: signal.Signals, call: Callable[[], object]) -> Generator[None, None, None]:
    def handler(got: int, frame: FrameType | None) -> None:
        call()

    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def when_main_sleeps(call: Callable[[], object]) -> Running[None]:
    """Does something from another thread once this one, the main one, sleeps."""
    native_id = threading.get_native_id()

    def wait() -> None:
        until_asleep(native_id)
        call()

    return Running(wait)


def send(number: signal.Signals) -> Callable[[], object]:
    return lambda: signal.pthread_kill(threading.main_thread().ident or 0, number)


def test_without_a_timeout_it_does_not_wait() -> None:
    producer, consumer = ring()
    calls: list[Callable[[], EventBatch]] = [
        consumer.drain,
        lambda: consumer.drain(timeout=0.0),
        lambda: consumer.drain(5, 0),
    ]
    for call in calls:
        assert len(call()) == 0
    fill(producer, 1, 1)
    assert sequences(consumer.drain()) == [1]


def test_a_timeout_is_how_long_it_waits_at_least() -> None:
    _, consumer = ring()
    started = time.monotonic()
    assert len(consumer.drain(timeout=0.05)) == 0
    assert time.monotonic() - started >= 0.05


def test_with_events_it_does_not_wait() -> None:
    producer, consumer = ring()
    fill(producer, 1, 2)
    for timeout in (None, 1e9, math.inf):
        fill(producer, 3, 3)
        assert len(consumer.drain(timeout=timeout)) >= 1


def test_it_returns_at_the_first_event_not_at_the_max_events_th() -> None:
    producer, consumer = ring()
    waiter = Running(lambda: sequences(consumer.drain(1000, timeout=None)))
    waiter.until_asleep()
    fill(producer, 1, 1)
    assert waiter.result() == [1]


@pytest.mark.parametrize("timeout", [None, 3600, 3600.0, 1e300, math.inf])
def test_an_event_wakes_it(timeout: float | None) -> None:
    producer, consumer = ring()
    waiter = Running(lambda: sequences(consumer.drain(timeout=timeout)))
    waiter.until_asleep()
    assert producer.emit(event(1))
    assert waiter.result() == [1]


@pytest.mark.parametrize("by", ["emit", "emit_batch", "reserve"])
def test_every_way_to_publish_wakes_it(by: str) -> None:
    from tests.unit.builders import batch

    producer, consumer = ring()
    waiter = Running(lambda: sequences(consumer.drain(timeout=None)))
    waiter.until_asleep()
    if by == "emit":
        producer.emit(event(1))
    elif by == "emit_batch":
        producer.emit_batch(batch(1, 1))
    else:
        with producer.reserve(1) as rows:
            rows["op"] = 1
    assert waiter.result() == [1]


def test_the_wait_releases_the_gil() -> None:
    # Everything in this file would hang otherwise; here it is said outright.
    producer, consumer = ring()
    turns: list[int] = []
    waiter = Running(lambda: sequences(consumer.drain(timeout=None)))
    waiter.until_asleep()
    turns.extend(range(1000))
    fill(producer, 1, 1)
    assert waiter.result() == [1]


def test_many_sleeps_and_wakes_lose_nothing() -> None:
    producer, consumer = ring(4)

    def collect() -> list[int]:
        seen: list[int] = []
        for each in consumer:
            seen += sequences(each)
        return seen

    waiter = Running(collect)
    emit_with_pauses(producer, 2000, every=100, seconds=0.001)
    producer.close()
    assert waiter.result() == list(range(1, 2001))


@pytest.mark.parametrize("timeout", [None, 1000])
def test_a_producer_that_has_gone_is_not_waited_for(timeout: float | None) -> None:
    producer, consumer = ring()
    fill(producer, 1, 1)
    producer.close()
    assert sequences(consumer.drain(timeout=timeout)) == [1]
    assert len(consumer.drain(timeout=timeout)) == 0


def test_closing_the_consumer_ends_the_wait_as_disconnected() -> None:
    _, consumer = ring()
    waiter = Running(lambda: len(consumer.drain(timeout=None)))
    waiter.until_asleep()
    consumer.close()
    assert waiter.result() == 0
    with pytest.raises(ClosedError):
        consumer.drain()


def test_closing_the_consumer_ends_an_iteration() -> None:
    _, consumer = ring()
    waiter = Running(lambda: list(consumer))
    waiter.until_asleep()
    consumer.close()
    assert waiter.result() == []


@pytest.mark.parametrize("timeout", [-1, -0.001, -math.inf, math.nan])
@pytest.mark.parametrize("waiting", [0, 1])
def test_a_timeout_below_0_or_nan_is_refused(timeout: float, waiting: int) -> None:
    # A mistake is one whether or not there are events just now.
    producer, consumer = ring()
    fill(producer, 1, waiting)
    with pytest.raises(ValueError, match=str(timeout)):
        consumer.drain(timeout=timeout)
    assert len(consumer.drain()) == waiting


@pytest.mark.parametrize("timeout", ["soon", [1]])
def test_a_timeout_is_a_number(timeout: Any) -> None:
    _, consumer = ring()
    with pytest.raises((TypeError, ValueError)):
        consumer.drain(timeout=timeout)
    assert len(consumer.drain()) == 0


# signals


def test_ctrl_c_interrupts_it() -> None:
    producer, consumer = ring()
    sender = when_main_sleeps(send(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        consumer.drain(timeout=None)
    sender.result()
    fill(producer, 1, 2)
    assert sequences(consumer.drain(timeout=None)) == [1, 2]


class Interrupted(Exception):
    """What the handler raises."""


def test_a_handler_that_raises_leaves_a_consistent_state_and_loses_nothing() -> None:
    producer, consumer = ring()
    producer.bind()

    def emit_and_raise() -> None:
        # The events come in the very moment in which the wait ends by an exception.
        fill(producer, 1, 3)
        raise Interrupted

    with on_signal(signal.SIGUSR1, emit_and_raise):
        calls: list[Callable[[], EventBatch]] = [
            lambda: consumer.drain(timeout=None),
            lambda: next(iter(consumer)),
        ]
        for call in calls:
            sender = when_main_sleeps(send(signal.SIGUSR1))
            with pytest.raises(Interrupted):
                call()
            sender.result()
            assert consumer.stats().received % 3 == 0
            assert sequences(consumer.drain(timeout=None)) == [1, 2, 3]
    consumer.bind()
    assert len(consumer.drain(timeout=0.001)) == 0


def test_a_handler_that_returns_lets_it_wait_on() -> None:
    producer, consumer = ring()
    handled: list[int] = []

    def signals_then_an_event() -> None:
        main = threading.main_thread()
        assert main.native_id is not None
        for n in range(3):
            send(signal.SIGUSR1)()
            while len(handled) <= n:
                time.sleep(0.001)
            until_asleep(main.native_id)
        fill(producer, 1, 1)

    with on_signal(signal.SIGUSR1, lambda: handled.append(1)):
        sender = when_main_sleeps(signals_then_an_event)
        assert sequences(consumer.drain(timeout=None)) == [1]
        sender.result()
    assert len(handled) == 3


def test_signals_do_not_stretch_the_timeout() -> None:
    _, consumer = ring()
    stop = threading.Event()

    def pester() -> None:
        while not stop.wait(0.005):
            send(signal.SIGUSR1)()

    with on_signal(signal.SIGUSR1, lambda: None):
        sender = Running(pester)
        started = time.monotonic()
        assert len(consumer.drain(timeout=0.1)) == 0
        assert time.monotonic() - started >= 0.1
        stop.set()
        sender.result()


def test_a_handler_may_close_the_consumer() -> None:
    _, consumer = ring()
    with on_signal(signal.SIGUSR1, consumer.close):
        sender = when_main_sleeps(send(signal.SIGUSR1))
        assert len(consumer.drain(timeout=None)) == 0
        sender.result()


def lease_numbers(consumer: EventConsumer, timeout: float | None = None) -> list[int]:
    with consumer.lease(timeout=timeout) as leased:
        return sequences(leased)


@pytest.mark.parametrize("take", [lambda consumer: sequences(consumer.drain(timeout=None)), lease_numbers])
def test_a_consumer_that_was_closed_takes_nothing_that_came_at_that_moment(
    take: Callable[[EventConsumer], list[int]],
) -> None:
    producer, consumer = ring()

    def emit_and_close() -> None:
        fill(producer, 1, 1)
        consumer.close()

    with on_signal(signal.SIGUSR1, emit_and_close):
        sender = when_main_sleeps(send(signal.SIGUSR1))
        assert take(consumer) == []
        sender.result()
    assert consumer.stats().received == 0


def test_one_waiter_at_a_time() -> None:
    producer, consumer = ring()
    refused: list[BusyError] = []

    def wait_as_well() -> None:
        assert consumer.try_recv() is None  # this does not wait
        assert len(consumer.drain()) == 0
        calls: list[Callable[[], EventBatch]] = [
            lambda: consumer.drain(timeout=1),
            lambda: consumer.drain(timeout=None),
            lambda: next(iter(consumer)),
        ]
        for call in calls:
            try:
                call()
            except BusyError as error:
                refused.append(error)

    def signal_then_an_event() -> None:
        send(signal.SIGUSR1)()
        while len(refused) < 3:
            time.sleep(0.001)
        fill(producer, 1, 1)

    with on_signal(signal.SIGUSR1, wait_as_well):
        sender = when_main_sleeps(signal_then_an_event)
        assert sequences(consumer.drain(timeout=None)) == [1]
        sender.result()
    assert len(refused) == 3
    assert "core 0" in str(refused[0])


def test_a_wait_does_not_return_an_event_that_a_handler_took() -> None:
    producer, consumer = ring()
    producer.bind()
    taken: list[object] = []

    def take() -> None:
        fill(producer, 1, 1)
        taken.append(consumer.try_recv())

    def signal_then_an_event() -> None:
        send(signal.SIGUSR1)()
        while not taken:
            time.sleep(0.001)
        producer.bind()
        fill(producer, 2, 2)

    with on_signal(signal.SIGUSR1, take):
        sender = when_main_sleeps(signal_then_an_event)
        assert sequences(consumer.drain(timeout=None)) in ([2], [])
        sender.result()
    assert taken == [event(1)]


def test_a_timed_out_wait_leaves_no_trace() -> None:
    producer, consumer = ring()
    for n in range(1, 20):
        assert len(consumer.drain(timeout=0.001)) == 0
        fill(producer, n, n)
        assert sequences(consumer.drain(timeout=0.001)) == [n]


def iterate_one(consumer: EventConsumer) -> list[int]:
    for each in consumer:
        return sequences(each)
    return []


def test_iteration_waits_for_events() -> None:
    producer, consumer = ring()
    waiter = Running(lambda: iterate_one(consumer))
    waiter.until_asleep()
    fill(producer, 1, 1)
    assert waiter.result() == [1]
