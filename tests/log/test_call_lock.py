"""The lock that the logs' calls are made under: threads take turns, and no signal makes it hang or leaves it held."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest

from nodedb_ring.log.call_lock import CallLock
from tests.unit.running import Running, in_thread, until_asleep

from .interrupting import Interrupts, handled, interrupted_at_each


class StopError(Exception):
    """What a handler raises here."""


@contextmanager
def raising() -> Generator[None]:
    """SIGTERM raises within the block."""

    def stop(*_: object) -> None:
        raise StopError

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def held(lock: CallLock) -> Generator[Callable[[], None]]:
    """Another thread has the lock, until what this yields is called."""
    entered, release = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        assert release.wait(30)

    holder = Running(lambda: lock.run(hold))
    assert entered.wait(30)
    yield release.set
    release.set()
    holder.result()


def interrupt_when_asleep(number: int) -> Running[None]:
    """Sends the main thread a signal once it sleeps."""
    main = threading.main_thread()
    assert main.native_id is not None

    def send() -> None:
        until_asleep(main.native_id or 0)
        signal.pthread_kill(main.ident or 0, number)

    return Running(send)


def test_it_passes_arguments_results_and_exceptions_on() -> None:
    lock = CallLock()
    assert lock.run(divmod, 17, 5) == (3, 2)
    assert lock.run(int, "f", base=16) == 15
    with pytest.raises(ZeroDivisionError):
        lock.run(divmod, 1, 0)
    assert in_thread(lambda: lock.run(divmod, 17, 5)) == (3, 2)


def test_threads_take_turns() -> None:
    lock = CallLock()
    with held(lock) as release:
        order: list[str] = []
        waiting = Running(lambda: lock.run(order.append, "second"))
        waiting.until_asleep()
        order.append("first")
        release()
        waiting.result()
    assert order == ["first", "second"]


def test_a_handler_is_let_through() -> None:
    lock = CallLock()
    order: list[str] = []

    def work() -> None:
        signal.raise_signal(signal.SIGTERM)
        order.append("interrupted")

    with handled(lambda: lock.run(order.append, "handler")):
        lock.run(work)
    assert order == ["handler", "interrupted"]
    in_thread(lambda: lock.run(order.clear))


def test_an_exception_at_any_bytecode_leaves_it_free(interrupts: Interrupts) -> None:
    lock = CallLock()
    count = 0
    for _ in interrupted_at_each(interrupts, lambda: lambda: lock.run(divmod, 17, 5)):
        assert in_thread(lambda: lock.run(divmod, 17, 5)) == (3, 2)
        count += 1
    assert count > 10


def test_a_handler_that_raises_while_this_waits_does_not_let_the_other_go() -> None:
    lock = CallLock()
    with held(lock), raising():
        sending = interrupt_when_asleep(signal.SIGTERM)
        with pytest.raises(StopError):
            lock.run(divmod, 17, 5)
        sending.result()
        third = Running(lambda: lock.run(divmod, 17, 5))
        third.until_asleep()
    assert third.result() == (3, 2)


def test_a_handler_waits_in_the_midst_of_a_wait_and_both_are_done() -> None:
    lock = CallLock()
    order: list[str] = []
    with held(lock) as release:

        def work() -> None:
            release()
            lock.run(order.append, "handler")

        with handled(work):
            sending = interrupt_when_asleep(signal.SIGTERM)
            lock.run(order.append, "interrupted")
            sending.result()
    assert order == ["handler", "interrupted"]
