"""Signals to a producer that waits for room, and what their handlers may do."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable

import pytest

from nodedb_ring import BusyError, ClosedError, EventBus, ForkError
from tests.unit.builders import batch, event, fill, ring, sequences
from tests.unit.runners import Running, until_asleep

from .full_rings import WAITS, full
from .test_waiting import Interrupted, on_signal, send, when_main_sleeps


@pytest.mark.parametrize("wait", WAITS)
def test_ctrl_c_interrupts_it(wait: Callable[..., object]) -> None:
    producer, consumer = full()
    sender = when_main_sleeps(send(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        wait(producer, None)
    sender.result()
    assert producer.stats().dropped == 0
    assert producer.stats().emitted_sequence == 4
    assert sequences(consumer.drain()) == [1, 2, 3, 4]
    assert producer.emit_batch(batch(5, 6), timeout=None) == 2


def test_a_handler_that_raises_leaves_what_was_enqueued_and_counts_no_more() -> None:
    producer, consumer = ring(4)

    def interrupt() -> None:
        raise Interrupted

    with on_signal(signal.SIGUSR1, interrupt):
        sender = when_main_sleeps(send(signal.SIGUSR1))
        with pytest.raises(Interrupted):
            producer.emit_batch(batch(1, 9), timeout=None)
        sender.result()
    assert producer.stats().dropped == 0
    # That is how the caller learns how far it came.
    assert producer.emitted_sequence == 4
    assert sequences(consumer.drain()) == [1, 2, 3, 4]


def test_a_handler_that_returns_lets_it_wait_on_and_signals_do_not_stretch_it() -> None:
    producer, _consumer = full()
    stop = threading.Event()
    handled: list[int] = []

    def pester() -> None:
        while not stop.wait(0.005):
            send(signal.SIGUSR1)()

    with on_signal(signal.SIGUSR1, lambda: handled.append(1)):
        sender = Running(pester)
        started = time.monotonic()
        assert not producer.wait_for_room(1, 0.1)
        assert producer.emit_batch(batch(5, 5), timeout=0.1) == 0
        assert time.monotonic() - started >= 0.2
        stop.set()
        sender.result()
    assert handled


@pytest.mark.parametrize("wait", WAITS)
def test_a_handler_may_close_the_producer(wait: Callable[..., object]) -> None:
    producer, consumer = full()
    with on_signal(signal.SIGUSR1, producer.close):
        sender = when_main_sleeps(send(signal.SIGUSR1))
        assert not wait(producer, None)
        sender.result()
    assert [sequences(each) for each in consumer] == [[1, 2, 3, 4]]


def forked_while_it_waits(call: Callable[[], object]) -> int:
    """What becomes of a child that a handler forks during a call: 7 for a ForkError, else 1. The parent continues."""
    parent = os.getpid()
    ended: list[int] = []

    def fork() -> None:
        with warnings.catch_warnings():
            # Python 3.12 warns of forking beside threads.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid:
            ended.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    with on_signal(signal.SIGUSR1, fork):
        sender = when_main_sleeps(send(signal.SIGUSR1))
        try:
            call()
        except ForkError:
            if os.getpid() != parent:
                os._exit(7)
            raise
        finally:
            if os.getpid() != parent:
                os._exit(1)
        sender.result()
    return ended[0]


def test_a_child_that_a_handler_forks_leaves_the_ring_alone(bus: EventBus) -> None:
    with bus.producer(0) as producer, bus.consumer(0) as consumer:
        fill(producer, 1, 16)
        assert forked_while_it_waits(lambda: producer.emit_batch(batch(17, 18), timeout=0.5)) == 7
        assert producer.stats().emitted == 16
        assert sequences(consumer.drain()) == list(range(1, 17))
        assert forked_while_it_waits(lambda: consumer.drain(timeout=0.5)) == 7
        fill(producer, 19, 20)
        assert sequences(consumer.drain()) == [19, 20]


def test_a_closed_end_cannot_be_bound() -> None:
    """Native code asks nothing but bind(): it would write where a successor does."""
    producer, consumer = ring()
    for end in (producer, consumer):
        end.close()
        with pytest.raises(ClosedError):
            end.bind()


def test_one_waiter_at_a_time_but_a_handler_may_emit() -> None:
    producer, consumer = full()
    refused: list[BusyError] = []

    def emit_as_well() -> None:
        assert not producer.emit(event(100))
        assert producer.emit_batch(batch(101, 102)) == 0
        for wait in WAITS:
            try:
                wait(producer, None)
            except BusyError as error:
                refused.append(error)

    def signal_then_room() -> None:
        send(signal.SIGUSR1)()
        while len(refused) < len(WAITS):
            time.sleep(0.001)
        until_asleep(threading.main_thread().native_id or 0)
        consumer.bind()
        consumer.drain()

    with on_signal(signal.SIGUSR1, emit_as_well):
        sender = when_main_sleeps(signal_then_room)
        assert producer.emit_batch(batch(200, 201), timeout=None) == 2
        sender.result()
    assert "core 0" in str(refused[0])
    consumer.bind()
    assert sequences(consumer.drain()) == [200, 201]


def test_a_handler_that_leaves_a_reservation_open_ends_the_wait() -> None:
    producer, consumer = full()
    reservation = producer.reserve(1)

    def enter_and_make_room() -> None:
        reservation.__enter__()
        consumer.drain(2)

    with on_signal(signal.SIGUSR1, enter_and_make_room):
        sender = when_main_sleeps(send(signal.SIGUSR1))
        with pytest.raises(BusyError, match="reservation"):
            producer.emit_batch(batch(5, 6), timeout=None)
        sender.result()
    reservation.__exit__(None, None, None)
