"""The lock that the logs' calls are made under: threads take turns, and no signal makes it hang or leaves it held."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest

from nodedb_ring.errors import BusyError
from nodedb_ring.log.call_lock import CallLock
from nodedb_ring.log.nested_waits import MOST_WAITING
from tests.unit.runners import Running, in_thread, until_asleep

from .interrupting import Interrupts, handled, interrupted_at_each, send_in_a_row


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


def test_an_exception_at_any_bytecode_of_a_wait_leaves_it_free(interrupts: Interrupts) -> None:
    lock = CallLock()
    main = threading.main_thread()
    at, came = 0, True
    while came:
        with held(lock) as release:

            def release_after(release: Callable[[], None] = release) -> None:
                until_asleep(main.native_id or 0)
                release()

            releasing = Running(release_after)
            try:
                came = interrupts.call_interrupted(lambda: lock.run(divmod, 17, 5), at, signal.SIGINT)
            except KeyboardInterrupt:
                assert not lock._waits._threads  # pyright: ignore[reportPrivateUsage]
            releasing.result()
        assert in_thread(lambda: lock.run(divmod, 17, 5)) == (3, 2)
        at += 1
    assert at > 30


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


def test_handlers_that_arrive_in_a_row_do_not_nest_without_end() -> None:
    """While another thread has it: some wait, the others are refused."""
    lock = CallLock()
    order: list[str] = []
    # The first call waits too.
    waited, signals = MOST_WAITING - 1, 3 * MOST_WAITING
    with held(lock) as release, handled(lambda: lock.run(order.append, "handler")) as done:
        sending = Running(lambda: send_in_a_row(signals, waited, done, release))
        lock.run(order.append, "interrupted")
        sending.result()
    assert order == ["handler"] * waited + ["interrupted"]
    refused = [error for error in done if error is not None]
    assert len(refused) == signals - waited
    assert {type(error) for error in refused} == {BusyError}
    assert f"{MOST_WAITING} calls of this thread wait for their turn" in str(refused[0])
    assert not lock._waits._threads  # pyright: ignore[reportPrivateUsage]


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
