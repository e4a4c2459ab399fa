"""wait_async: the same on an event loop, and a cancelled wait leaves no trace."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from nodedb_ring import (
    ArgumentError,
    EventConsumer,
    EventLoopError,
    OwnershipError,
    create_event_bus,
    follow,
    wait,
    wait_async,
)
from tests.unit.builders import event, fill, sequences
from tests.unit.bus.waiters import is_silent, producing_peer, readable
from tests.unit.recovery.memory_log import MemoryLog
from tests.unit.runners import in_thread
from tests.unit.shared_buses import BusMaker, emit

from .many import KINDS, rings

kinds = pytest.mark.parametrize("kind", KINDS)


async def asleep() -> None:
    """Lets a task that was just started come to its wait."""
    for _ in range(5):
        await asyncio.sleep(0)


async def places(ends: list[EventConsumer], timeout: float | None = None) -> list[int]:
    return [ends.index(end) for end in await wait_async(ends, timeout)]


@kinds
def test_what_is_ready_is_returned_at_once(kind: str, make_bus: BusMaker) -> None:
    producers, consumers = rings(kind, make_bus)
    fill(producers[3], 1, 1)
    producers[1].close()
    consumers[2].close()
    assert asyncio.run(places(consumers)) == [1, 2, 3]
    assert asyncio.run(places(consumers[:1], 0)) == []
    assert asyncio.run(places([])) == []


@kinds
@pytest.mark.parametrize("by", ["event", "producer", "consumer"])
def test_what_wakes_it(kind: str, by: str, make_bus: BusMaker) -> None:
    producers, consumers = rings(kind, make_bus)

    async def both() -> list[int]:
        for place in range(len(consumers)):
            waiting = asyncio.create_task(places(consumers[place:]))
            await asleep()
            assert not waiting.done()
            if by == "event":
                assert producers[place].emit(event(1))
            elif by == "producer":
                producers[place].close()
            else:
                consumers[place].close()
            assert await waiting == [0]
        return [len(consumer.drain()) for consumer in consumers if by != "consumer"]

    assert asyncio.run(both()) == ([] if by == "consumer" else [int(by == "event")] * 4)


def test_another_thread_wakes_the_loop() -> None:
    producers, consumers = create_event_bus(3, 16)

    async def both() -> list[int]:
        waiting = asyncio.create_task(places(consumers))
        await asleep()
        await asyncio.to_thread(producers[2].emit, event(1))
        return await waiting

    assert asyncio.run(both()) == [2]


def test_an_event_and_the_death_of_another_process_wake_it(make_bus: BusMaker) -> None:
    bus = make_bus(2)
    consumers = bus.consumers()
    with producing_peer(bus, 1) as other:

        async def both() -> None:
            waiting = asyncio.create_task(places(consumers))
            await asleep()
            assert await asyncio.to_thread(other.ask, emit, 1, 1) == [True]
            assert await waiting == [1]
            assert sequences(consumers[1].drain()) == [1]
            waiting = asyncio.create_task(places(consumers))
            await asleep()
            await asyncio.to_thread(other.kill)
            assert await waiting == [1]

        asyncio.run(both())


@kinds
@pytest.mark.parametrize("how", ["timeout", "cancelled"])
def test_a_wait_that_ends_early_leaves_no_trace(kind: str, how: str, make_bus: BusMaker) -> None:
    producers, consumers = rings(kind, make_bus)
    for consumer in consumers[1:]:
        consumer.fileno()

    async def wait_in_vain() -> None:
        if how == "timeout":
            assert await places(consumers, 0.2) == []
            return
        waiting = asyncio.create_task(places(consumers))
        await asleep()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(wait_in_vain())
    # Nothing waits on them; who has the descriptor of one is signalled again.
    assert len(consumers[0].drain(timeout=0.001)) == 0
    for place in range(1, 4):
        assert is_silent(consumers[place])
        fill(producers[place], 1, 1)
        assert readable(consumers[place], 10)
    assert wait(consumers) == consumers[1:]


def test_the_loop_goes_on_meanwhile() -> None:
    _producers, consumers = create_event_bus(2, 16)

    async def both() -> int:
        waiting = asyncio.create_task(places(consumers, 0.1))
        turns = 0
        while not waiting.done():
            await asyncio.sleep(0)
            turns += 1
        return turns

    assert asyncio.run(both()) > 10


def test_it_refuses_what_wait_refuses() -> None:
    _producers, consumers = create_event_bus(2, 16)
    in_thread(consumers[1].drain)
    with pytest.raises(OwnershipError, match="consumer of core 1"):
        asyncio.run(places(consumers))
    with pytest.raises(ArgumentError, match="twice"):
        asyncio.run(places([consumers[0], consumers[0]]))
    with pytest.raises(ArgumentError, match="-1"):
        asyncio.run(places(consumers[:1], -1))


def test_another_loop_is_refused() -> None:
    import trio

    _producers, consumers = create_event_bus(1, 16)
    with pytest.raises(EventLoopError, match="wait_async"):
        trio.run(places, consumers)


def test_uvloop() -> None:
    import uvloop

    producers, consumers = create_event_bus(2, 16)

    async def both() -> list[int]:
        waiting = asyncio.create_task(places(consumers))
        await asleep()
        threading.Timer(0.01, producers[1].close).start()
        return await waiting

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(both()) == [1]


def test_many_waits_leak_no_descriptor() -> None:
    _producers, consumers = create_event_bus(4, 16)
    asyncio.run(places(consumers, 0.001))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        asyncio.run(places(consumers, 0.001))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_follower_among_them() -> None:
    producers, consumers = create_event_bus(2, 16)
    log = MemoryLog()
    follower = follow(consumers[1], log, group="g")

    async def both() -> None:
        assert await wait_async([consumers[0], follower], 0.001) == []
        waiting = asyncio.create_task(wait_async([consumers[0], follower]))
        await asyncio.sleep(0.02)
        log.put(1, 1, core_id=1)
        fill(producers[1], 1, 1)
        assert await waiting == [follower]
        assert sequences(await follower.next_batch_async(0)) == [1]

    asyncio.run(both())
