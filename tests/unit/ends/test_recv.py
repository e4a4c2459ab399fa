"""recv and recv_async: one event, waiting."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

import pytest

from nodedb_ring import BusyError, ClosedError, EventConsumer, EventProducer, WriteEvent
from tests.unit.builders import event, fill, ring, sequences
from tests.unit.runners import Running
from tests.unit.shared_buses import BusMaker

Ends = tuple[EventProducer, EventConsumer]
Receive = Callable[..., WriteEvent | None]


@pytest.fixture(params=["private", "shared"])
def ends(request: pytest.FixtureRequest, make_bus: BusMaker) -> Ends:
    if request.param == "private":
        return ring(8)
    bus = make_bus(1, 8)
    return bus.producer(0), bus.consumer(0)


async def recv_async(consumer: EventConsumer, timeout: float | None = None) -> WriteEvent | None:
    return await consumer.recv_async(timeout)


def on_a_loop(consumer: EventConsumer, timeout: float | None = None) -> WriteEvent | None:
    return asyncio.run(recv_async(consumer, timeout))


receives = pytest.mark.parametrize("receive", [EventConsumer.recv, on_a_loop], ids=["recv", "recv_async"])


@receives
def test_events_that_wait_come_one_by_one(ends: Ends, receive: Receive) -> None:
    producer, consumer = ends
    fill(producer, 1, 3)
    assert receive(consumer) == event(1)
    assert receive(consumer, 0) == event(2)
    assert receive(consumer, timeout=5.0) == event(3)
    assert consumer.stats().received == 3
    assert producer.stats().slots_in_use == 0


@receives
def test_it_waits_for_the_event_that_comes(ends: Ends, receive: Receive) -> None:
    producer, consumer = ends
    running = Running(lambda: receive(consumer))
    running.until_asleep()
    fill(producer, 1, 1)
    assert running.result() == event(1)


@receives
@pytest.mark.parametrize("timeout", [0, 0.001])
def test_none_when_the_time_is_over(ends: Ends, receive: Receive, timeout: float) -> None:
    _, consumer = ends
    assert receive(consumer, timeout) is None
    assert not consumer.is_producer_disconnected


@receives
def test_none_at_the_end_and_not_before(ends: Ends, receive: Receive) -> None:
    producer, consumer = ends
    fill(producer, 1, 2)
    producer.close()
    assert receive(consumer) == event(1)
    assert receive(consumer) == event(2)
    assert receive(consumer) is None
    assert consumer.is_producer_disconnected


@receives
@pytest.mark.parametrize("end", ["producer", "consumer"])
def test_an_end_that_closes_ends_the_wait(ends: Ends, receive: Receive, end: str) -> None:
    producer, consumer = ends
    running = Running(lambda: receive(consumer))
    running.until_asleep()
    (producer if end == "producer" else consumer).close()
    assert running.result() is None
    if end == "consumer":
        with pytest.raises(ClosedError):
            receive(consumer)


def test_a_handler_that_raises_takes_nothing() -> None:
    producer, consumer = ring(8)

    def fill_and_raise(*_: object) -> None:
        fill(producer, 1, 1)
        raise KeyError("handler")

    before = signal.signal(signal.SIGALRM, fill_and_raise)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(KeyError, match="handler"):
            consumer.recv(30)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert consumer.recv() == event(1)


def test_one_waiter_at_a_time() -> None:
    _, consumer = ring(8)

    async def twice() -> None:
        first = asyncio.ensure_future(consumer.recv_async())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second: list[Awaitable[object]] = [consumer.recv_async(), consumer.drain_async()]
        for each in second:
            with pytest.raises(BusyError):
                await each
        with pytest.raises(BusyError):
            consumer.recv(1)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    asyncio.run(twice())


def test_a_cancelled_wait_takes_nothing() -> None:
    producer, consumer = ring(8)

    async def cancelled() -> list[int]:
        waiting = asyncio.ensure_future(consumer.recv_async())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        # Both at once: the loop learns of the event, and the task is cancelled before it runs again.
        fill(producer, 1, 2)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert waiting.cancelled()
        return sequences(await consumer.drain_async())

    assert asyncio.run(cancelled()) == [1, 2]
