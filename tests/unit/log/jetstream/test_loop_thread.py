"""The event loop on a thread of its own: calls, their end, and signals at every bytecode of the calling thread."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from functools import partial

import pytest

from nodedb_ring.errors import BusyError
from nodedb_ring.log.jetstream.loop_thread import LoopCall, LoopEndedError, LoopThread
from nodedb_ring.log.nested_waits import MOST_WAITING
from tests.unit.log.interrupting import Interrupts, handled, interrupted_at_each, send_in_a_row
from tests.unit.runners import Running


async def nothing() -> None:
    return None


async def echo(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def forever() -> None:
    await asyncio.Event().wait()


def started(last: Callable[[], object] = nothing) -> LoopThread:
    thread = LoopThread("of this test", last)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    thread.start()
    return thread


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    made = started()
    yield made
    made.stop(30)


def call(thread: LoopThread, value: int) -> int:
    return thread.begin(lambda: echo(value)).result()


def test_a_call_returns_and_raises(thread: LoopThread) -> None:
    assert call(thread, 7) == 7
    begun = thread.begin(lambda: echo(8))
    assert [begun.result(), begun.result()] == [8, 8]

    async def fail() -> None:
        raise KeyError("no")

    with pytest.raises(KeyError, match="no"):
        thread.begin(fail).result()


def test_a_cancelled_call_ends_and_says_so(thread: LoopThread) -> None:
    ended: list[str] = []
    running = thread.begin(forever, lambda: ended.append("running"))
    call(thread, 1)
    running.cancel()
    with pytest.raises(CancelledError):
        running.result()
    assert ended == ["running"]
    running.cancel()

    # Cancelled before the loop comes to it.
    go_on = threading.Event()
    thread.call_soon(go_on.wait, 30)
    waiting = thread.begin(forever, lambda: ended.append("waiting"))
    waiting.cancel()
    go_on.set()
    with pytest.raises(CancelledError):
        waiting.result()
    assert ended == ["running", "waiting"]


def test_on_its_own_thread_a_call_is_refused(thread: LoopThread) -> None:
    async def inner() -> str:
        with pytest.raises(BusyError) as refused:
            thread.begin(nothing)
        return str(refused.value)

    assert "of this test: called on the thread of its own connection" in thread.begin(inner).result()


def test_stop_ends_what_runs_and_what_comes_later() -> None:
    order: list[str] = []

    async def last() -> None:
        order.append("last")

    thread = started(last)
    running = thread.begin(forever, lambda: order.append("ended"))
    waiting = Running(running.result)
    thread.stop(30)
    thread.stop(30)
    with pytest.raises(CancelledError):
        waiting.result()
    assert order == ["last", "ended"]
    with pytest.raises(LoopEndedError):
        thread.begin(nothing)
    with pytest.raises(LoopEndedError):
        thread.call_soon(print)
    assert not [each for each in threading.enumerate() if each.name == "of this test"]


def test_a_last_act_that_fails_does_not_keep_it_running() -> None:
    async def last() -> None:
        raise OSError("gone")

    thread = started(last)
    thread.stop(30)
    assert thread.loop.is_closed()


def test_stop_on_its_own_thread_waits_for_nothing() -> None:
    thread = started()
    thread.call_soon(thread.stop, 1e9)
    thread.stop(30)
    assert thread.loop.is_closed()


def test_a_call_that_comes_while_the_loop_is_closed_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was taken, and the loop will never come to it."""
    thread = started()
    late: list[LoopCall[None]] = []
    close = thread.loop.close

    def close_late() -> None:
        begun = Running(lambda: late.append(thread.begin(nothing)))
        begun.result()
        close()

    monkeypatch.setattr(thread.loop, "close", close_late)
    thread.stop(30)
    [call_] = late
    with pytest.raises(CancelledError):
        call_.result()


def test_a_handler_may_call_the_loop_in_the_midst_of_a_call(thread: LoopThread, interrupts: Interrupts) -> None:
    """The loop is never kept by what the handler interrupts."""
    got: list[int] = []
    results: list[int] = []
    at, came = 0, True
    with handled(lambda: got.append(call(thread, at))) as done:
        while came:
            came = interrupts.call_interrupted(lambda: results.append(call(thread, -1)), at, signal.SIGTERM)
            at += 1
    assert results == [-1] * at
    assert done == [None] * (at - 1)
    assert got == list(range(at - 1))
    assert at > 100


def test_an_interrupted_call_leaves_the_loop_at_work(thread: LoopThread, interrupts: Interrupts) -> None:
    count = 0
    for count in interrupted_at_each(interrupts, lambda: lambda: call(thread, 1)):  # noqa: B007
        assert call(thread, 2) == 2
    assert count > 100


def test_handlers_that_arrive_in_a_row_do_not_nest_without_end(thread: LoopThread) -> None:
    """While the loop does not answer: some wait, the others are refused before anything is begun."""
    answered = asyncio.Event()
    waited, signals = MOST_WAITING - 1, 3 * MOST_WAITING
    begun = 0

    async def answer() -> None:
        nonlocal begun
        begun += 1
        await answered.wait()

    with handled(lambda: thread.begin(answer).result()) as done:
        release = partial(thread.call_soon, answered.set)
        sending = Running(lambda: send_in_a_row(signals, waited, done, release))
        thread.begin(answer).result()
        sending.result()
    assert begun == MOST_WAITING
    refused = [error for error in done if error is not None]
    assert len(refused) == signals - waited
    assert {type(error) for error in refused} == {BusyError}
    assert call(thread, 1) == 1


@pytest.mark.parametrize("raises", [False, True])
def test_a_stop_in_the_midst_of_a_stop(interrupts: Interrupts, raises: bool) -> None:
    """The handler's is done when it returns, or the next one's is."""
    thread = started()

    def stop() -> None:
        thread.stop(30)
        assert thread.loop.is_closed()

    def begin() -> Callable[[], None]:
        nonlocal thread
        thread = started()
        return lambda: thread.stop(30)

    number = signal.SIGINT if raises else signal.SIGTERM
    thread.stop(30)
    with handled(stop) as done:
        count = 0
        for count in interrupted_at_each(interrupts, begin, number):  # noqa: B007
            stop()
            assert threading.active_count() < 5
    assert count > 100
    assert len(done) == (0 if raises else count + 1)
    thread.stop(30)
