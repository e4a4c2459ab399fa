"""Asynchronous waits for another process, on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from nodedb_ring import BusyError, EventBus, EventConsumer
from tests.unit.builders import fill, sequences
from tests.unit.shared_buses import BusMaker, Peer, close_producer, emit, emit_whole

from .waiters import KINDS, has_gone, pair, producing_peer


async def collect(consumer: EventConsumer) -> list[int]:
    seen: list[int] = []
    async for each in consumer:
        seen += sequences(each)
    return seen


async def in_the_background(call: Callable[[], object]) -> None:
    """Runs what blocks beside the loop, a moment after it began to wait."""
    await asyncio.sleep(0.01)
    await asyncio.to_thread(call)


@pytest.mark.parametrize("how", ["close", "kill"])
def test_async_for_ends_once_the_producer_has_gone(how: str, bus: EventBus) -> None:
    consumer = bus.consumer(0)

    async def both(other: Peer) -> list[int]:
        waiting = asyncio.create_task(collect(consumer))
        await in_the_background(lambda: other.ask(emit_whole, 1, 400))
        await in_the_background(lambda: other.ask(emit_whole, 401, 800))
        await in_the_background(lambda: other.ask(close_producer) if how == "close" else other.kill())
        return await waiting

    for _ in range(2):
        # The second time a successor, and another loop: the same consumer continues.
        with producing_peer(bus) as other:
            assert asyncio.run(both(other)) == list(range(1, 801))
        assert has_gone(consumer)


def test_drain_async_waits_for_another_process(bus: EventBus) -> None:
    consumer = bus.consumer(0)

    async def turns(other: Peer) -> None:
        assert len(await consumer.drain_async(timeout=0.01)) == 0
        for number in range(1, 30):
            waiting = asyncio.create_task(consumer.drain_async())
            await asyncio.sleep(0)
            other.post(emit, number, number)
            assert sequences(await waiting) == [number]
            assert await asyncio.to_thread(other.answer) == [True]

    with producing_peer(bus) as other:
        asyncio.run(turns(other))


def test_a_cancelled_wait_loses_nothing(bus: EventBus) -> None:
    consumer = bus.consumer(0)

    async def turns(other: Peer) -> None:
        for number in range(1, 11):
            waiting = asyncio.create_task(consumer.drain_async())
            await asyncio.sleep(0)
            if number % 2:
                other.ask(emit, number, number)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            if number % 2 == 0:
                other.ask(emit, number, number)
            assert sequences(await consumer.drain_async()) == [number]

    with producing_peer(bus) as other:
        asyncio.run(turns(other))
    assert consumer.stats().received == 10


def test_closing_the_consumer_ends_an_asynchronous_wait(bus: EventBus) -> None:
    consumer = bus.consumer(0)

    async def wait() -> int:
        waiting = asyncio.create_task(consumer.drain_async())
        await in_the_background(consumer.close)
        return len(await waiting)

    with producing_peer(bus):
        assert asyncio.run(wait()) == 0


def test_two_processes_feed_one_loop(make_bus: BusMaker) -> None:
    bus = make_bus(2)
    consumers = [bus.consumer(core_id) for core_id in range(2)]

    async def both(peers: list[Peer]) -> list[list[int]]:
        tasks = [asyncio.create_task(collect(consumer)) for consumer in consumers]
        for peer in peers:
            peer.post(emit_whole, 1, 300)
        for peer in peers:
            await asyncio.to_thread(peer.answer)
        await asyncio.to_thread(peers[0].kill)
        first = await tasks[0]
        assert not tasks[1].done()
        await asyncio.to_thread(peers[1].kill)
        return [first, await tasks[1]]

    with producing_peer(bus, 0) as one, producing_peer(bus, 1) as two:
        assert asyncio.run(both([one, two])) == [list(range(1, 301))] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_one_waiter_at_a_time_on_a_loop(kind: str, make_bus: BusMaker) -> None:
    producer, consumer = pair(kind, make_bus)

    async def two() -> list[int]:
        first = asyncio.create_task(consumer.drain_async())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="core 0"):
            await consumer.drain_async()
        with pytest.raises(BusyError):
            consumer.drain(timeout=1)
        fill(producer, 1, 1)
        return sequences(await first)

    assert asyncio.run(two()) == [1]


@pytest.mark.parametrize("how", ["close", "kill"])
def test_a_reader_of_the_loop(how: str, bus: EventBus) -> None:
    # add_reader with fileno(), for those who bring their own loop.
    consumer = bus.consumer(0)

    async def read(other: Peer) -> list[int]:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        seen: list[int] = []

        def on_ready() -> None:
            while len(batch := consumer.drain(7)):
                seen.extend(sequences(batch))
            if consumer.is_producer_disconnected and not done.done():
                done.set_result(None)

        loop.add_reader(consumer.fileno(), on_ready)
        await in_the_background(lambda: other.ask(emit_whole, 1, 300))
        await in_the_background(lambda: other.ask(close_producer) if how == "close" else other.kill())
        await done
        loop.remove_reader(consumer.fileno())
        return seen

    with producing_peer(bus) as other:
        assert asyncio.run(read(other)) == list(range(1, 301))
