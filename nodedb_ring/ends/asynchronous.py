"""Waiting for events on an asyncio event loop: the loop watches a file descriptor, the producer signals it once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .event_loop import check_event_loop

if TYPE_CHECKING:
    import asyncio

    from ..batch.event_batch import EventBatch
    from ._consumer import EventConsumer

__all__ = ["drain_when_ready", "next_batch"]


async def drain_when_ready(consumer: EventConsumer, max_events: int, timeout: float | None) -> EventBatch:
    """``EventConsumer.drain_async``: waiting events, or those that come within `timeout` seconds, or an empty batch."""
    check_event_loop(f"consumer of core {consumer.core_id}")
    batch = consumer.drain(max_events)
    if len(batch):
        return batch
    import asyncio

    try:
        async with asyncio.timeout(timeout):
            while not consumer._is_ready:
                await _signalled(consumer)
    except TimeoutError:
        return batch
    return batch if consumer._closed else consumer.drain(max_events)


async def next_batch(consumer: EventConsumer, max_events: int) -> EventBatch:
    """``EventConsumer.__anext__``."""
    if not consumer._closed:
        batch = await drain_when_ready(consumer, max_events, None)
        if len(batch):
            return batch
    raise StopAsyncIteration


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
