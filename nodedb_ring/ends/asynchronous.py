"""Waiting for events on an asyncio event loop: the loop watches a file descriptor, the producer signals it once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..batch._event_batch import EventBatch
from .event_loop import check_event_loop

if TYPE_CHECKING:
    import asyncio

    from ..batch._event import WriteEvent
    from ._consumer import EventConsumer

__all__ = ["drain_when_ready", "next_batch", "recv_when_ready"]

NOTHING: Final = EventBatch.from_events([])
"""What a wait that took nothing returns; compared by identity."""


async def drain_when_ready(consumer: EventConsumer, max_events: int, timeout: float | None) -> EventBatch:
    """``EventConsumer.drain_async``: waiting events, or those that come within `timeout` seconds, or an empty batch."""
    check_event_loop(f"consumer of core {consumer.core_id}")
    # Between the taking of a batch and the caller is no call, after which a signal handler could raise and lose it.
    batch = await consumer._drain_now(max_events)
    if batch is not None:
        return batch
    if await _ready_within(consumer, timeout):
        batch = await consumer._drain_now(max_events)
        if batch is not None:
            return batch
    return NOTHING


async def recv_when_ready(consumer: EventConsumer, timeout: float | None) -> WriteEvent | None:
    """``EventConsumer.recv_async``: the next event, or the one that comes within `timeout` seconds, or None."""
    check_event_loop(f"consumer of core {consumer.core_id}")
    event = await consumer._recv_now()
    if event is None and await _ready_within(consumer, timeout):
        event = await consumer._recv_now()
    return event


async def next_batch(consumer: EventConsumer, max_events: int) -> EventBatch:
    """``EventConsumer.__anext__``."""
    if not consumer._closed:
        batch = await drain_when_ready(consumer, max_events, None)
        if batch is not NOTHING:
            return batch
    raise StopAsyncIteration


async def _ready_within(consumer: EventConsumer, timeout: float | None) -> bool:
    """Whether there was something to take within `timeout` seconds, or an end had gone, and this one is still open."""
    import asyncio

    try:
        async with asyncio.timeout(timeout):
            while not consumer._is_ready:
                await _signalled(consumer)
    except TimeoutError:
        return False
    return not consumer._closed


async def _signalled(consumer: EventConsumer) -> None:
    import asyncio

    loop = asyncio.get_running_loop()
    fd = consumer._arm()
    if fd is None:
        return
    signalled = loop.create_future()
    loop.add_reader(fd, _set, signalled)
    try:
        await signalled
    finally:
        # A forked child shares the loop's epoll and the eventfd with its parent, who waits on.
        if not consumer._is_inherited:
            loop.remove_reader(fd)
            consumer._disarm()


def _set(signalled: asyncio.Future[None]) -> None:
    if not signalled.done():
        signalled.set_result(None)
