"""wait and signals: Ctrl-C, handlers that return, close, take, wait as well, or fork."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from nodedb_ring import BusyError, ForkError, OwnershipError, create_event_bus, merge, wait
from tests.unit.builders import event, fill, sequences
from tests.unit.ends.test_waiting import Interrupted, on_signal, send, when_main_sleeps
from tests.unit.runners import Running, until_asleep
from tests.unit.shared_buses import BusMaker

from .many import KINDS, rings


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Also where a shell that runs us in the background had it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_interrupts_it_and_nothing_is_lost(kind: str, make_bus: BusMaker, sleep: str) -> None:
    producers, consumers = rings(kind, make_bus)
    for call in (lambda: wait(consumers), lambda: next(merge(consumers))):
        sender = when_main_sleeps(send(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            call()
        sender.result()
    fill(producers[2], 1, 2)
    assert wait(consumers) == [consumers[2]]
    # No call waits on any of them still.
    assert [sequences(consumer.drain(timeout=0.001)) for consumer in consumers] == [[], [], [1, 2], []]


def test_a_handler_that_returns_lets_it_wait_on(sleep: str) -> None:
    producers, consumers = create_event_bus(3, 16)
    handled: list[int] = []

    def signals_then_an_event() -> None:
        main = threading.main_thread()
        assert main.native_id is not None
        for n in range(3):
            send(signal.SIGUSR1)()
            while len(handled) <= n:
                time.sleep(0.001)
            until_asleep(main.native_id)
        fill(producers[2], 1, 1)

    with on_signal(signal.SIGUSR1, lambda: handled.append(1)):
        sender = when_main_sleeps(signals_then_an_event)
        assert wait(consumers) == [consumers[2]]
        sender.result()
    assert len(handled) == 3


def test_signals_do_not_stretch_the_timeout(sleep: str) -> None:
    _producers, consumers = create_event_bus(3, 16)
    stop = threading.Event()

    def pester() -> None:
        while not stop.wait(0.005):
            send(signal.SIGUSR1)()

    with on_signal(signal.SIGUSR1, lambda: None):
        sender = Running(pester)
        started = time.monotonic()
        assert wait(consumers, 0.1) == []
        assert time.monotonic() - started >= 0.1
        stop.set()
        sender.result()


def test_a_handler_that_raises_as_events_come(sleep: str) -> None:
    producers, consumers = create_event_bus(3, 16)

    def emit_and_raise() -> None:
        fill(producers[1], 1, 3)
        raise Interrupted

    with on_signal(signal.SIGUSR1, emit_and_raise):
        sender = when_main_sleeps(send(signal.SIGUSR1))
        with pytest.raises(Interrupted):
            wait(consumers)
        sender.result()
    assert wait(consumers) == [consumers[1]]
    assert sequences(consumers[1].drain()) == [1, 2, 3]


def test_it_waits_on_when_a_handler_took_the_event(sleep: str) -> None:
    producers, consumers = create_event_bus(3, 16)
    taken: list[object] = []

    def take() -> None:
        producers[1].emit(event(1))
        taken.append(consumers[1].try_recv())

    def signal_then_an_event() -> None:
        send(signal.SIGUSR1)()
        while not taken:
            time.sleep(0.001)
        fill(producers[0], 1, 1)

    with on_signal(signal.SIGUSR1, take):
        sender = when_main_sleeps(signal_then_an_event)
        assert wait(consumers) == [consumers[0]]
        sender.result()
    assert taken == [event(1)]


def test_a_handler_may_close_an_end(sleep: str) -> None:
    _producers, consumers = create_event_bus(3, 16)
    with on_signal(signal.SIGUSR1, consumers[1].close):
        sender = when_main_sleeps(send(signal.SIGUSR1))
        assert wait(consumers) == [consumers[1]]
        sender.result()


def test_one_waiter_at_a_time(sleep: str) -> None:
    producers, consumers = create_event_bus(3, 16)
    refused: list[str] = []

    def wait_as_well() -> None:
        assert wait(consumers, 0) == []  # this does not wait
        for call in (
            lambda: wait(consumers[1:], 1),
            lambda: consumers[2].drain(timeout=1),
            consumers[2].bind,
        ):
            try:
                call()
            except BusyError as error:
                refused.append(str(error))

    def signal_then_an_event() -> None:
        send(signal.SIGUSR1)()
        while len(refused) < 3:
            time.sleep(0.001)
        fill(producers[2], 1, 1)

    with on_signal(signal.SIGUSR1, wait_as_well):
        sender = when_main_sleeps(signal_then_an_event)
        assert wait(consumers) == [consumers[2]]
        sender.result()
    assert [text.partition(":")[0] for text in refused] == [f"consumer of core {core}" for core in (1, 2, 2)]


def test_a_refused_wait_marks_no_end_as_waited_on(sleep: str) -> None:
    producers, consumers = create_event_bus(3, 16)
    found: list[int] = []

    def wait_as_well() -> None:
        # The first is free, the second is waited on.
        with pytest.raises(BusyError, match="core 1"):
            wait(consumers[:2], 1)
        found.append(len(consumers[0].drain(timeout=0.001)))

    def signal_then_an_event() -> None:
        send(signal.SIGUSR1)()
        while not found:
            time.sleep(0.001)
        fill(producers[1], 1, 1)

    with on_signal(signal.SIGUSR1, wait_as_well):
        sender = when_main_sleeps(signal_then_an_event)
        assert wait(consumers[1:]) == [consumers[1]]
        sender.result()
    assert found == [0]


def test_a_waited_on_end_is_not_bound_away(sleep: str) -> None:
    producers, consumers = create_event_bus(2, 16)

    def take_over_and_wait() -> int:
        consumers[0].bind()
        consumers[1].bind()
        return len(wait(consumers))

    waiter = Running(take_over_and_wait)
    waiter.until_asleep()
    for consumer in consumers:
        with pytest.raises(BusyError):
            consumer.bind()
        with pytest.raises(OwnershipError):
            consumer.drain(timeout=1)
    fill(producers[0], 1, 1)
    assert waiter.result() == 1


def test_the_child_of_a_handler_that_forks_is_refused_and_the_parent_waits_on(sleep: str) -> None:
    producers, consumers = create_event_bus(3, 16)
    children: list[int] = []

    def fork() -> None:
        children.append(os.fork())

    def signal_then_an_event() -> None:
        send(signal.SIGUSR1)()
        while not children:
            time.sleep(0.001)
        fill(producers[1], 1, 1)

    with on_signal(signal.SIGUSR1, fork):
        sender = when_main_sleeps(signal_then_an_event)
        try:
            found = wait(consumers)
        except ForkError:
            os._exit(7)
        except BaseException:
            os._exit(8)
        if children[0] == 0:
            os._exit(9)
        sender.result()
    assert found == [consumers[1]]
    _, status = os.waitpid(children[0], 0)
    assert os.waitstatus_to_exitcode(status) == 7
