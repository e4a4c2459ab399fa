"""``LoopThread``: an event loop on a thread of its own, and calls to it from other threads.

The two sides share no lock, and so no ``concurrent.futures.Future``, ``threading.Event``, ``Condition`` or
``Semaphore``: these are Python code that holds a lock for some bytecodes. A signal handler may interrupt the calling
thread there. If the handler then calls the loop, and the loop waits for that lock, all of them wait for ever.
``SimpleQueue`` is written in C, and its ``put`` may be called while a ``get`` is interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar, final

from ...errors import BusyError
from ..nested_waits import NestedWaits

__all__ = ["LoopCall", "LoopEndedError", "LoopThread"]

_T = TypeVar("_T")


class LoopEndedError(Exception):
    """The loop was stopped and takes no more calls."""


@final
class LoopCall(Generic[_T]):
    """A coroutine that the loop was asked to run. Made by ``LoopThread.begin``.

    Thread safety
    -------------
    ``result`` and ``cancel`` from any thread but the loop's.
    """

    __slots__ = ("_answered", "_ended", "_error", "_on_end", "_owner", "_task", "_value", "_work")

    def __init__(
        self,
        owner: LoopThread,
        work: Callable[[], Coroutine[Any, Any, _T]],
        on_end: Callable[[], object] | None,
    ) -> None:
        self._owner = owner
        self._work = work
        self._on_end = on_end
        # While it runs.
        self._task: asyncio.Task[_T] | None = None
        # How it ended: what it returned, in a list, or what it raised. Neither if it was cancelled.
        self._value: list[_T] = []
        self._error: BaseException | None = None
        self._ended = False
        self._answered: SimpleQueue[None] = SimpleQueue()

    def result(self) -> _T:
        """Waits for what the coroutine returns or raises.

        Raises
        ------
        concurrent.futures.CancelledError
            It was cancelled, or the loop ended before it did.
        BusyError
            Too many calls of this thread are waiting: see ``NestedWaits``.
        """
        if not self._ended:
            self._owner.waits.wait(self._wait)
        # For another thread, or an interrupted call, that waits for the same result.
        self._answered.put(None)
        if self._error is not None:
            try:
                raise self._error
            finally:
                # The exception refers to this frame from now on.
                del self
        if not self._value:
            raise CancelledError
        return self._value[0]

    def _wait(self) -> None:
        while not self._ended:
            self._answered.get()

    def cancel(self) -> None:
        """Cancels it, if it is running. Does not wait."""
        with contextlib.suppress(LoopEndedError):
            self._owner.call_soon(self._cancel)

    # ---- on the loop's thread

    def start(self) -> None:
        """Starts the coroutine."""
        self._task = self._owner.loop.create_task(self._work())
        self._task.add_done_callback(self._done)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _done(self, task: asyncio.Task[_T]) -> None:
        if not task.cancelled():
            self._error = task.exception()
            if self._error is None:
                self._value.append(task.result())
        # The task is freed here, on the loop's thread. If the main thread freed it, a signal handler might raise in the
        # callback of asyncio's weak reference to it, and the exception would be lost.
        self._task = None
        self.end()

    def end(self) -> None:
        """Wakes those who wait for the result."""
        self._ended = True
        self._owner.forget(self)
        if self._on_end is not None:
            self._on_end()
        self._answered.put(None)


@final
class LoopThread:
    """Runs an event loop, from ``start()`` to ``stop()``.

    Parameters
    ----------
    name : str
        The thread's name; it is a daemon.
    last : callable
        Returns the coroutine that the loop runs when it is stopped. Afterwards the remaining tasks are cancelled.

    Thread safety
    -------------
    Any thread, and a signal handler that interrupts any call.
    """

    def __init__(self, name: str, last: Callable[[], Coroutine[Any, Any, object]]) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.new_event_loop()
        self.waits: NestedWaits = NestedWaits()
        self._last = last
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._calls: set[LoopCall[Any]] = set()
        self._stopping: asyncio.Task[None] | None = None
        self._has_ended = False
        # Held from the one join on.
        self._joining = threading.Lock()
        self._waiting_for_end: set[SimpleQueue[None]] = set()

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Stops the loop, and waits at most `timeout` seconds until it has ended. May be repeated.

        On the loop's own thread it does not wait.
        """
        with contextlib.suppress(LoopEndedError):
            self.call_soon(self._begin_to_stop)
        if self._is_here() or not self._thread.ident:
            return
        ended: SimpleQueue[None] = SimpleQueue()
        try:
            # _run sets the flag and then reads the set, so either this sees the flag or _run sees this queue.
            self._waiting_for_end.add(ended)
            if not self._has_ended:
                with contextlib.suppress(Empty):
                    ended.get(timeout=min(timeout, threading.TIMEOUT_MAX))
        finally:
            self._waiting_for_end.discard(ended)
        # Joined once: a join that a signal handler interrupts may hold the lock that another join waits for.
        if self._has_ended and self._joining.acquire(blocking=False):
            self._thread.join(min(timeout, threading.TIMEOUT_MAX))

    def begin(
        self, work: Callable[[], Coroutine[Any, Any, _T]], on_end: Callable[[], object] | None = None
    ) -> LoopCall[_T]:
        """Runs a coroutine on the loop. `on_end` is called on the loop's thread when it has ended, in any way.

        Raises
        ------
        LoopEndedError
            The loop was stopped.
        BusyError
            Called on the loop's own thread, which would wait for itself; or as ``LoopCall.result``.
        """
        self.check_elsewhere()
        self.waits.check()
        call = LoopCall(self, work, on_end)
        self._calls.add(call)
        try:
            self.call_soon(call.start)
        except BaseException:
            self._calls.discard(call)
            raise
        return call

    def call_soon(self, callback: Callable[..., object], *arguments: object) -> None:
        """Has the loop call something. Does not wait."""
        try:
            self.loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError as error:
            if not self.loop.is_closed():
                raise
            raise LoopEndedError from error

    def check_elsewhere(self) -> None:
        """Refuses a call on the loop's own thread."""
        if self._is_here():
            raise BusyError(
                f"{self._thread.name}: called on the thread of its own connection, which the call would wait for;"
                " have a callback of the connection hand its work to another thread"
            )

    def forget(self, call: LoopCall[Any]) -> None:
        """Removes a call that has ended."""
        self._calls.discard(call)

    def _is_here(self) -> bool:
        return threading.get_ident() == self._thread.ident

    # ---- on the loop's thread

    def _run(self) -> None:
        try:
            asyncio.set_event_loop(self.loop)
            self.loop.run_forever()
            # A call that came after the stop has a thread that waits for it.
            self.loop.run_until_complete(self._end_tasks())
        finally:
            self.loop.close()
            self._has_ended = True
            # A copy is made in one step, whoever comes or goes meanwhile; a tuple is not.
            for call in self._calls.copy():
                call.end()
            for ended in self._waiting_for_end.copy():
                ended.put(None)

    def _begin_to_stop(self) -> None:
        if self._stopping is None:
            self._stopping = self.loop.create_task(self._end())

    async def _end(self) -> None:
        try:
            with contextlib.suppress(Exception):
                await self._last()
            await self._end_tasks()
        finally:
            self.loop.stop()

    async def _end_tasks(self) -> None:
        mine = asyncio.current_task()
        await asyncio.sleep(0)
        others = [task for task in asyncio.all_tasks() if task is not mine]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
