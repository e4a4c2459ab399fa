"""Waiting for many ends on an asyncio event loop: the loop watches one descriptor over all of their rings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..recovery.follower import Follower

if TYPE_CHECKING:
    import asyncio

    from ..ends._consumer import EventConsumer
    from ._wait_set import WaitSet

__all__ = ["until_ready"]


async def until_ready(ends: WaitSet, seconds: float | None) -> list[EventConsumer | Follower]:
    """``wait_async``: the ends that are ready, or get ready within that time; None sets no limit."""
    found = await _ready(ends)
    if found or not ends.ends:
        return found
    import asyncio

    try:
        async with asyncio.timeout(seconds):
            while not found:
                await _sleep(ends)
                found = await _ready(ends)
    except TimeoutError:
        pass
    return found


async def _ready(ends: WaitSet) -> list[EventConsumer | Follower]:
    return [
        end
        for end in ends.to_ask()
        if not isinstance(end, Follower) or await end._has_more_async()  # pyright: ignore[reportPrivateUsage]
    ]


async def _sleep(ends: WaitSet) -> None:
    """Until a ring is ready, or the ends have to be looked at again."""
    import asyncio

    loop = asyncio.get_running_loop()
    fd = ends.arm()
    if fd is None:
        return
    woken = loop.create_future()
    seconds = ends.longest_sleep
    timer = None if seconds is None else loop.call_later(seconds, _set, woken)
    if fd >= 0:
        loop.add_reader(fd, _set, woken)
    try:
        await woken
    finally:
        if timer is not None:
            timer.cancel()
        # A forked child shares the loop's epoll and the descriptors with its parent, who waits on.
        if not ends.is_inherited:
            if fd >= 0:
                loop.remove_reader(fd)
            ends.disarm()


def _set(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
