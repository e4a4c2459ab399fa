"""Takes on an event loop, and merges, that a signal interrupts at every bytecode: no batch is lost."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine

import pytest

from nodedb_ring import (
    EventBatch,
    EventConsumer,
    EventProducer,
    Follower,
    WriteEvent,
    create_event_bus,
    follow,
    merge,
)
from tests.unit.builders import batch, fill, sequences
from tests.unit.log.interrupting import Interrupts, interrupted_at_each
from tests.unit.recovery.memory_log import MemoryLog

LAST = 4
MOST = 2

# Slow: each take runs once for each of its bytecodes.
pytestmark = pytest.mark.slow

Got = list[tuple[int, EventBatch | WriteEvent | None]]
Take = Callable[[list[EventConsumer | Follower], Got], Coroutine[None, None, None]]


def filled(follows: bool) -> tuple[list[EventProducer], list[EventConsumer | Follower]]:
    """Two cores with events for several batches each, which the log of a follower has, too."""
    producers, consumers = create_event_bus(2, 16)
    log = MemoryLog()
    for producer in producers:
        fill(producer, 1, LAST)
        log.append(producer.core_id, batch(1, LAST))
    if follows:
        return producers, [follow(consumer, log, group="g", max_events=MOST) for consumer in consumers]
    return producers, list(consumers)


async def merge_on_a_loop(ends: list[EventConsumer | Follower], got: Got) -> None:
    async for core_id, each in merge(ends, MOST):
        got.append((core_id, each))


async def merge_in_a_thread(ends: list[EventConsumer | Follower], got: Got) -> None:
    for core_id, each in merge(ends, MOST):
        got.append((core_id, each))


async def merge_what_waits(ends: list[EventConsumer | Follower], got: Got) -> None:
    """So that followers do not ask their logs, which takes another thread."""
    merged = merge(ends, MOST)
    for _ in range(len(ends) * LAST // MOST):
        core_id, each = await anext(merged)
        got.append((core_id, each))


async def drain(ends: list[EventConsumer | Follower], got: Got) -> None:
    """Each end by ``drain_async``, to its end."""
    for end in ends:
        assert isinstance(end, EventConsumer)
        core_id = end.core_id
        for _ in range(LAST // MOST + 1):
            got.append((core_id, await end.drain_async(MOST)))


async def receive(ends: list[EventConsumer | Follower], got: Got) -> None:
    """Each end by ``recv_async``, to its end."""
    for end in ends:
        assert isinstance(end, EventConsumer)
        core_id = end.core_id
        for _ in range(LAST + 1):
            got.append((core_id, await end.recv_async()))


async def iterate(ends: list[EventConsumer | Follower], got: Got) -> None:
    for end in ends:
        core_id = end.core_id
        async for each in end:
            got.append((core_id, each))


def driven(work: Coroutine[None, None, None]) -> None:
    """Runs a coroutine that only ever yields to its loop, without the loop's own bytecodes."""
    for _ in work.__await__():
        pass


# The signal may come between the making of a coroutine and its await.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize(
    ("take", "follows"),
    [
        (merge_on_a_loop, False),
        (merge_in_a_thread, False),
        (drain, False),
        (receive, False),
        (iterate, False),
        (merge_what_waits, True),
        (merge_in_a_thread, True),
    ],
)
def test_what_a_handler_interrupts_is_taken_next(interrupts: Interrupts, take: Take, follows: bool) -> None:
    producers: list[EventProducer] = []
    ends: list[EventConsumer | Follower] = []
    got: Got = []

    def begin() -> Callable[[], None]:
        nonlocal producers, ends, got
        producers, ends = filled(follows)
        got = []
        if take is not merge_what_waits:
            close_all(producers)
        return lambda: driven(take(ends, got))

    async def main() -> None:
        # The runner of the loop has its own handler, which cancels this task.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        taken: set[int] = set()
        for _ in interrupted_at_each(interrupts, begin):
            taken.add(len(got))
            close_all(producers)
            driven(merge_in_a_thread(ends, got))
            check(got)
        check(got)
        # It came before the first batch and after each of the others.
        assert taken >= set(range(len(got)))

    before = signal.getsignal(signal.SIGINT)
    try:
        asyncio.run(main())
    finally:
        signal.signal(signal.SIGINT, before)


def close_all(producers: list[EventProducer]) -> None:
    for producer in producers:
        producer.close()


def check(got: Got) -> None:
    for core in range(2):
        assert [number for core_id, each in got if core_id == core for number in numbers(each)] == [*range(1, LAST + 1)]


def numbers(taken: EventBatch | WriteEvent | None) -> list[int]:
    if isinstance(taken, EventBatch):
        return sequences(taken)
    return [] if taken is None else [taken.sequence]
