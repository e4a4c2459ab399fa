"""``ThreadCall``: a call that blocks, made on another thread and awaited on an event loop, one at a time.

asyncio is imported when it is used: most followers are synchronous, and it takes long to import.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar, final

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["ThreadCall", "yield_to_loop"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


@final
class ThreadCall:
    """Runs a call on a thread of the loop's executor. A cancelled ``await`` does not stop it: whoever comes next waits.

    Thread safety
    -------------
    One caller at a time.
    """

    __slots__ = ("_running",)

    def __init__(self) -> None:
        # Not a loop's future: the loop may have ended when the next call waits for it.
        self._running: Future[None] | None = None

    async def run(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Makes the call, once the one before has ended; returns and raises what it does."""
        import asyncio
        from concurrent.futures import Future

        await self.finish_async()
        done: Future[None] = Future()
        returned: list[_T] = []
        raised: list[BaseException] = []

        def run() -> None:
            if not done.set_running_or_notify_cancel():
                return
            try:
                returned.append(work(*args, **kwargs))
            except BaseException as error:
                raised.append(error)
            finally:
                done.set_result(None)

        self._running = done
        try:
            asyncio.get_running_loop().run_in_executor(None, run)
        except BaseException:
            # Whether a thread has it is not known. If none has it yet, none will run it.
            if done.cancel():
                self._running = None
            raise
        await self.finish_async()
        if raised:
            raise raised[0]
        return returned[0]

    def finish(self) -> None:
        """Waits for the end of a call whose ``await`` was cancelled. What that returned or raised is dropped."""
        if self._running is not None:
            from concurrent.futures import wait

            wait([self._running])
            self._running = None

    async def finish_async(self) -> None:
        """As ``finish``, on an event loop."""
        if self._running is not None:
            import asyncio

            await asyncio.shield(asyncio.wrap_future(self._running))
            self._running = None


async def yield_to_loop() -> None:
    """Lets the other tasks of the event loop run."""
    import asyncio

    await asyncio.sleep(0)
