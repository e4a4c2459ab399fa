"""async for and drain_async, on the loop's own thread."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import threading

import pytest

from nodedb_ring import BusyError, ClosedError, EventBatch, EventConsumer, OwnershipError
from tests.unit.builders import batch, event, fill, ring, sequences
from tests.unit.runners import Running, in_thread


async def collect(consumer: EventConsumer) -> list[int]:
    seen: list[int] = []
    async for each in consumer:
        seen += sequences(each)
    return seen


async def drain(consumer: EventConsumer, timeout: float | None = None) -> EventBatch:
    return await consumer.drain_async(timeout=timeout)


async def asleep() -> None:
    """Lets a task that was just started come to its wait."""
    for _ in range(3):
        await asyncio.sleep(0)


def test_drain_async_takes_waiting_events() -> None:
    producer, consumer = ring()
    fill(producer, 1, 5)

    async def take() -> list[int]:
        return sequences(await consumer.drain_async(3)) + sequences(await consumer.drain_async(max_events=9))

    assert asyncio.run(take()) == [1, 2, 3, 4, 5]


def test_drain_async_waits_for_the_first_event() -> None:
    producer, consumer = ring()

    async def both() -> list[int]:
        waiting = asyncio.create_task(drain(consumer))
        await asleep()
        assert not waiting.done()
        fill(producer, 1, 1)
        return sequences(await waiting)

    assert asyncio.run(both()) == [1]


def test_a_producer_in_another_thread_wakes_the_loop() -> None:
    producer, consumer = ring(4)
    room = threading.Semaphore(4)

    def produce() -> None:
        for n in range(1, 501):
            assert room.acquire(timeout=30)
            assert producer.emit(event(n))
        producer.close()

    async def consume() -> list[int]:
        seen: list[int] = []
        async for each in consumer:
            seen += sequences(each)
            room.release(len(each))
        return seen

    writer = Running(produce)
    assert asyncio.run(consume()) == list(range(1, 501))
    writer.result()


def test_async_for_ends_once_the_producer_has_gone_and_the_ring_is_empty() -> None:
    producer, consumer = ring(4096)
    assert producer.emit_batch(batch(1, 3000)) == 3000
    producer.close()
    assert asyncio.run(collect(consumer)) == list(range(1, 3001))
    assert asyncio.run(collect(consumer)) == []


@pytest.mark.parametrize("end", ["close", "collect"])
def test_a_producer_that_goes_ends_a_wait(end: str) -> None:
    producer, consumer = ring()
    producers = [producer]
    del producer

    async def wait() -> list[int]:
        waiting = asyncio.create_task(collect(consumer))
        await asleep()
        if end == "close":
            producers[0].close()
        else:
            producers.clear()
        # The signal is there now, so a few turns of the loop see it; without one this would wait forever.
        for _ in range(10):
            await asyncio.sleep(0)
        assert waiting.done()
        return await waiting

    assert asyncio.run(wait()) == []


@pytest.mark.parametrize("elsewhere", [False, True])
def test_closing_the_consumer_ends_a_wait(elsewhere: bool) -> None:
    _, consumer = ring()

    async def wait() -> tuple[int, list[int]]:
        one = asyncio.create_task(drain(consumer))
        await asleep()
        if elsewhere:
            in_thread(consumer.close)
        else:
            consumer.close()
        taken = len(await one)
        with pytest.raises(ClosedError):
            await drain(consumer)
        return taken, []

    assert asyncio.run(wait()) == (0, [])


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_a_timeout_returns_an_empty_batch(timeout: float) -> None:
    producer, consumer = ring()

    async def wait() -> None:
        assert len(await drain(consumer, timeout)) == 0
        fill(producer, 1, 1)
        assert sequences(await drain(consumer, timeout)) == [1]

    asyncio.run(wait())


def test_an_event_within_the_timeout() -> None:
    producer, consumer = ring()

    async def wait() -> list[int]:
        waiting = asyncio.create_task(drain(consumer, 1e6))
        await asleep()
        fill(producer, 1, 1)
        return sequences(await waiting)

    assert asyncio.run(wait()) == [1]


@pytest.mark.parametrize("timeout", [-1, math.nan])
@pytest.mark.parametrize("waiting", [0, 1])
def test_a_timeout_below_0_or_nan_is_refused(timeout: float, waiting: int) -> None:
    producer, consumer = ring()
    fill(producer, 1, waiting)
    with pytest.raises(ValueError, match=str(timeout)):
        asyncio.run(drain(consumer, timeout))
    assert len(consumer.drain()) == waiting


def test_max_events_is_at_least_1() -> None:
    _, consumer = ring()

    async def none() -> object:
        return await consumer.drain_async(0)

    with pytest.raises(ValueError, match="max_events 0:"):
        asyncio.run(none())


def test_a_cancelled_wait_loses_nothing() -> None:
    producer, consumer = ring()

    async def cancel(emit_first: bool, number: int) -> None:
        waiting = asyncio.create_task(drain(consumer))
        await asleep()
        if emit_first:
            fill(producer, number, number)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
            pytest.fail("it was not cancelled")
        if not emit_first:
            fill(producer, number, number)
        assert sequences(await drain(consumer)) == [number]

    async def turns() -> None:
        for number in range(1, 20):
            await cancel(bool(number % 2), number)

    asyncio.run(turns())
    assert consumer.stats().received == 19


def test_an_outer_timeout_loses_nothing() -> None:
    producer, consumer = ring()

    async def wait() -> list[int]:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await drain(consumer)
        fill(producer, 1, 1)
        return sequences(await drain(consumer))

    assert asyncio.run(wait()) == [1]


def test_one_waiter_at_a_time() -> None:
    producer, consumer = ring()

    async def two() -> list[int]:
        first = asyncio.create_task(drain(consumer))
        await asleep()
        with pytest.raises(BusyError, match="core 0"):
            await drain(consumer)
        with pytest.raises(BusyError):
            await collect(consumer)
        with pytest.raises(BusyError):
            consumer.drain(timeout=1)
        assert not first.done()
        fill(producer, 1, 1)
        return sequences(await first)

    assert asyncio.run(two()) == [1]


def test_other_calls_of_the_loop_thread_work_beside_a_waiter() -> None:
    producer, consumer = ring()

    async def both() -> list[int]:
        waiting = asyncio.create_task(drain(consumer))
        await asleep()
        fill(producer, 1, 1)
        # Taken before the loop comes round: the waiter waits on for the next.
        assert consumer.try_recv() == event(1)
        await asyncio.sleep(0.01)
        assert not waiting.done()
        fill(producer, 2, 2)
        return sequences(await waiting)

    assert asyncio.run(both()) == [2]


def test_several_rings_on_one_loop() -> None:
    ends = [ring() for _ in range(5)]

    async def wait() -> list[list[int]]:
        tasks = [asyncio.create_task(collect(consumer)) for _, consumer in ends]
        await asleep()
        for n, (producer, _) in enumerate(ends):
            fill(producer, n, n)
        await asyncio.sleep(0.01)
        for producer, _ in ends:
            producer.close()
        return list(await asyncio.gather(*tasks))

    assert asyncio.run(wait()) == [[0], [1], [2], [3], [4]]


def test_asynchronous_methods_stay_on_the_loop_thread() -> None:
    producer, consumer = ring()
    fill(producer, 1, 1)
    assert consumer.try_recv() == event(1)
    with pytest.raises(OwnershipError):
        in_thread(lambda: asyncio.run(drain(consumer)))


def test_one_loop_after_another() -> None:
    producer, consumer = ring()

    async def wait(number: int) -> list[int]:
        waiting = asyncio.create_task(drain(consumer))
        await asleep()
        fill(producer, number, number)
        return sequences(await waiting)

    assert [asyncio.run(wait(n)) for n in range(1, 6)] == [[n] for n in range(1, 6)]


def test_a_loop_that_is_stopped_during_a_wait() -> None:
    producer, consumer = ring()

    async def leave() -> None:
        asyncio.create_task(drain(consumer))  # noqa: RUF006
        await asleep()

    asyncio.run(leave())
    fill(producer, 1, 1)
    assert sequences(consumer.drain(timeout=None)) == [1]
    consumer.bind()


def test_no_file_descriptor_stays_behind() -> None:
    def once() -> None:
        producer, consumer = ring()

        async def wait() -> None:
            waiting = asyncio.create_task(drain(consumer))
            await asleep()
            fill(producer, 1, 1)
            await waiting

        asyncio.run(wait())

    once()
    gc.collect()  # what earlier tests left must not go meanwhile
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        once()
    assert len(os.listdir("/proc/self/fd")) == before
