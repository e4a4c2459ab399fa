"""Whose event loop runs a coroutine: the asynchronous methods wait on asyncio's, uvloop's included, and on no other."""

from __future__ import annotations

from ..errors import EventLoopError

__all__ = ["check_event_loop"]


def check_event_loop(what: str) -> None:
    """Refuses a coroutine of another loop at its first step: not only once it has to wait.

    Raises
    ------
    EventLoopError
        No asyncio loop runs in this thread; `what` says who was called.
    """
    # Not at the top: importing asyncio takes as long as all of this package, and who runs a loop of it has imported it.
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise EventLoopError(
            f"{what}: needs asyncio's event loop, and none runs here; on another, such as trio's, wait until"
            " consumer.fileno() is readable, and then take events without a time-out until none is left"
        ) from None
