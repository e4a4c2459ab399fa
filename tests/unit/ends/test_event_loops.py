"""Event loops other than asyncio's own: uvloop, and by ``fileno()`` trio, anyio, gevent and eventlet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import anyio
import pytest
import trio
import uvloop

from nodedb_ring import EventBatch, EventConsumer, EventLoopError, EventProducer, Follower, RingError, follow
from tests.absent_libraries import needs
from tests.unit.builders import batch, event, fill, ring, sequences
from tests.unit.recovery.memory_log import MemoryLog
from tests.unit.runners import Running, in_new_interpreter, in_thread
from tests.unit.shared_buses import BusMaker, Peer, claim_producer, emit

Wait = Callable[[int], Awaitable[Any]]


async def taken(consumer: EventConsumer, wait_readable: Wait) -> AsyncIterator[EventBatch]:
    """The recipe of the page: what ``async for batch in consumer`` is on asyncio."""
    while True:
        batch = consumer.drain()
        if len(batch):
            yield batch
        elif consumer.is_producer_disconnected:
            return
        else:
            await wait_readable(consumer.fileno())


async def all_of(consumer: EventConsumer, wait_readable: Wait) -> list[int]:
    seen: list[int] = []
    async for each in taken(consumer, wait_readable):
        seen += sequences(each)
    return seen


# ---- the asynchronous methods are asyncio's


async def first_of(consumer: EventConsumer) -> EventBatch:
    async for each in consumer:
        return each
    raise AssertionError("nothing came")


CALLS: dict[str, Callable[[EventConsumer, Follower], Coroutine[Any, Any, EventBatch]]] = {
    "drain_async": lambda consumer, _: consumer.drain_async(),
    "drain_async, no wait": lambda consumer, _: consumer.drain_async(timeout=0),
    "async for": lambda consumer, _: first_of(consumer),
    "next_batch_async": lambda _, follower: follower.next_batch_async(0.01),
    "anext": lambda _, follower: follower.__anext__(),
}


@pytest.mark.parametrize("has_events", [False, True])
@pytest.mark.parametrize("what", CALLS)
def test_the_first_call_on_another_loop_says_so(what: str, has_events: bool) -> None:
    producer, consumer = ring()
    other, followed = ring()
    follower = follow(followed, MemoryLog(), group="g")
    if has_events:
        # On this side of a wait it would work, until one day it had to wait.
        fill(producer, 1, 3)
        fill(other, 1, 3)

    async def call() -> EventBatch:
        return await CALLS[what](consumer, follower)

    with pytest.raises(EventLoopError, match=r"(consumer|follower) of core 0: needs asyncio's event loop.*fileno"):
        trio.run(call)
    with pytest.raises(EventLoopError):
        anyio.run(call, backend="trio")
    # Without any loop, as by hand.
    with pytest.raises(EventLoopError):
        call().send(None)
    # Nothing was taken, and no wait was left behind.
    for each in (consumer, followed):
        assert sequences(each.drain()) == ([1, 2, 3] if has_events else [])


def test_what_it_is() -> None:
    assert issubclass(EventLoopError, RingError)
    assert issubclass(EventLoopError, RuntimeError)


def test_a_closed_consumer_ends_on_any_loop() -> None:
    _, consumer = ring()
    consumer.close()

    async def nothing() -> list[EventBatch]:
        return [each async for each in Closing(consumer)]

    assert trio.run(nothing) == []


class Closing:
    """``async for`` over a consumer that was closed before it began: ``aiter`` would refuse."""

    def __init__(self, consumer: EventConsumer) -> None:
        self._consumer = consumer

    def __aiter__(self) -> EventConsumer:
        return self._consumer


# ---- asyncio's interface, another loop's work


@pytest.mark.parametrize("run", [uvloop.run, lambda main: anyio.run(lambda: main), asyncio.run])
def test_asyncio_by_any_other_name(run: Callable[[Coroutine[Any, Any, list[int]]], list[int]]) -> None:
    producer, consumer = ring(64)

    async def collect() -> list[int]:
        seen: list[int] = []
        async for each in consumer:
            seen += sequences(each)
        return seen

    async def both() -> list[int]:
        waiting = asyncio.create_task(collect())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        fill(producer, 1, 3)
        while consumer.stats().received < 3:
            await asyncio.sleep(0)
        thread = Running(lambda: emit_and_close(producer))
        seen = await waiting
        thread.result()
        return seen

    assert run(both()) == list(range(1, 51))


def emit_and_close(producer: EventProducer) -> None:
    producer.bind()
    for number in range(4, 51):
        assert producer.emit(event(number))
    producer.close()


def test_uvloop_over_processes(make_bus: BusMaker) -> None:
    bus = make_bus(capacity=64)
    consumer = bus.consumer(0)

    async def collect() -> list[int]:
        seen: list[int] = []
        async for each in consumer:
            seen += sequences(each)
            if len(seen) == 20:
                peer.kill()
        return seen

    with Peer(bus) as peer:
        peer.ask(claim_producer)
        peer.post(emit, 1, 20)
        # The process that dies is noticed, too.
        assert uvloop.run(asyncio.wait_for(collect(), 60)) == list(range(1, 21))


def test_uvloop_time_outs_and_cancels() -> None:
    producer, consumer = ring()

    async def main() -> None:
        assert len(await consumer.drain_async(timeout=0.01)) == 0
        waiting = asyncio.create_task(consumer.drain_async(timeout=float("inf")))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        fill(producer, 1, 1)
        assert sequences(await consumer.drain_async()) == [1]

    uvloop.run(main())


# ---- the recipe


def on_trio(main: Callable[[Wait], Coroutine[Any, Any, list[int]]]) -> list[int]:
    return trio.run(main, trio.lowlevel.wait_readable)


def on_anyio_and_trio(main: Callable[[Wait], Coroutine[Any, Any, list[int]]]) -> list[int]:
    return anyio.run(main, anyio.wait_readable, backend="trio")


def on_anyio_and_asyncio(main: Callable[[Wait], Coroutine[Any, Any, list[int]]]) -> list[int]:
    return anyio.run(main, anyio.wait_readable)


RUNS = [on_trio, on_anyio_and_trio, on_anyio_and_asyncio]


@pytest.mark.parametrize("run", RUNS)
def test_the_recipe_in_one_process(run: Callable[..., list[int]]) -> None:
    producer, consumer = ring(16)
    waits: list[int] = []

    async def main(wait_readable: Wait) -> list[int]:
        async def counted(fd: int) -> None:
            # Each time that it waits, the next few are emitted elsewhere: it has to wake.
            waits.append(fd)
            thread = Running(lambda: emit_some(len(waits)))
            await wait_readable(fd)
            thread.result()

        return await all_of(consumer, counted)

    def emit_some(turn: int) -> None:
        producer.bind()
        assert producer.emit_batch(batch(turn * 5 - 4, turn * 5)) == 5
        if turn == 20:
            producer.close()

    assert run(main) == list(range(1, 101))
    assert len(waits) == 20


@pytest.mark.parametrize("run", RUNS)
def test_the_recipe_over_processes(run: Callable[..., list[int]], make_bus: BusMaker) -> None:
    bus = make_bus(capacity=64)
    consumer = bus.consumer(0)
    with Peer(bus) as peer:
        peer.ask(claim_producer)

        async def main(wait_readable: Wait) -> list[int]:
            seen: list[int] = []
            peer.post(emit, 1, 20)
            async for each in taken(consumer, wait_readable):
                seen += sequences(each)
                if len(seen) == 20:
                    peer.kill()
            return seen

        # It ends by the death.
        assert run(main) == list(range(1, 21))


def test_a_wait_on_trio_that_is_cancelled_takes_nothing() -> None:
    producer, consumer = ring()

    def emit_three() -> None:
        producer.bind()
        fill(producer, 1, 3)

    async def main() -> None:
        with trio.move_on_after(0.01) as scope:
            await all_of(consumer, trio.lowlevel.wait_readable)
        assert scope.cancelled_caught
        in_thread(emit_three)
        with trio.fail_after(60):
            await trio.lowlevel.wait_readable(consumer.fileno())
        assert sequences(consumer.drain()) == [1, 2, 3]

    trio.run(main)


def test_a_follower_on_trio() -> None:
    """It also polls now and then: a drop, and an event that only the log has, signal no descriptor."""
    producer, consumer = ring(4)
    log = MemoryLog()
    follower = follow(consumer, log, group="g")
    log.put(1, 30)

    async def main() -> list[int]:
        seen: list[int] = []
        while len(seen) < 30:
            found = follower.next_batch(0)
            seen += sequences(found)
            if not len(found):
                with trio.move_on_after(0.1):
                    await trio.lowlevel.wait_readable(consumer.fileno())
        return seen

    producer.emit_batch(batch(1, 30))
    assert trio.run(main) == list(range(1, 31))


GREENLETS = """
import threading
{start}
import numpy as np
from nodedb_ring import EventBatch, create_event_bus

(producer,), (consumer,) = create_event_bus(1, capacity=1024)
seen, ticks = [], []

def reader():
    while True:
        batch = consumer.drain()
        if len(batch):
            seen.extend(batch.sequence.tolist())
        elif consumer.is_producer_disconnected:
            return
        else:
            {wait}

def other():
    # What would stand still if the reader blocked the thread; at the fifth turn the reader waits.
    while len(ticks) < 5:
        ticks.append(len(seen))
        {sleep}
    writer.start()

def write():
    producer.bind()
    for first in range(1, 1000, 100):
        producer.emit_batch(EventBatch.from_columns(
            sequence=np.arange(first, first + 100), lsn=1, op=1, collection="t", row_id="r"), timeout=None)
    producer.close()

writer = {thread}
{run}
writer.join()
print(ticks, seen == list(range(1, 1001)))
"""


@needs("gevent")
@pytest.mark.parametrize("patched", ["", "from gevent import monkey; monkey.patch_all()"])
def test_gevent(patched: str) -> None:
    source = GREENLETS.format(
        start=f"{patched}\nimport gevent, gevent.socket",
        wait="gevent.socket.wait_read(consumer.fileno())",
        sleep="gevent.sleep(0.01)",
        thread="threading.Thread(target=write)",
        run="gevent.joinall([gevent.spawn(reader), gevent.spawn(other)], raise_error=True)",
    )
    assert in_new_interpreter(source) == "[0, 0, 0, 0, 0] True\n"


def test_eventlet() -> None:
    source = GREENLETS.format(
        start=(
            "import warnings\nwarnings.simplefilter('ignore')\nimport eventlet, eventlet.hubs\n"
            "warnings.simplefilter('error')"
        ),
        wait="eventlet.hubs.trampoline(consumer.fileno(), read=True)",
        sleep="eventlet.sleep(0.01)",
        thread="threading.Thread(target=write)",
        run="waited = [eventlet.spawn(reader), eventlet.spawn(other)]\nfor each in waited: each.wait()",
    )
    assert in_new_interpreter(source) == "[0, 0, 0, 0, 0] True\n"
