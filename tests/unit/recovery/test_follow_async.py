"""``async for`` over a follower: the same stream, and a cancelled call loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from nodedb_ring import BusyError, ClosedError, Follower, GapError, follow
from nodedb_ring.log.producer import logged
from tests.unit.builders import batch, event, fill, ring, sequences
from tests.unit.shared_buses import BusMaker, Peer, claim_producer, emit

from .memory_log import LiveMemoryLog, LogDownError, MemoryLog


async def collect(follower: Follower) -> list[int]:
    return [number async for each in follower for number in sequences(each)]


async def taken(follower: Follower) -> list[int]:
    """What comes without a wait."""
    got: list[int] = []
    while len(each := await follower.next_batch_async(0)):
        got += sequences(each)
    return got


async def until_at_gate(log: MemoryLog) -> None:
    while not log.at_gate.is_set():
        await asyncio.sleep(0.001)
    log.at_gate.clear()


def test_async_for_goes_to_the_end() -> None:
    producer, consumer = ring(2)
    log = MemoryLog()
    with logged(producer, log) as source:
        source.emit_batch(batch(1, 7))
        log.put(8, 9)
    follower = follow(consumer, log, group="g")
    assert asyncio.run(collect(follower)) == list(range(1, 10))
    assert follower.ended
    assert follower.stats().replayed == 7


def test_async_for_takes_what_another_task_emits() -> None:
    producer, consumer = ring(2)
    log = MemoryLog()
    follower = follow(consumer, log, group="g")

    async def both() -> list[int]:
        collecting = asyncio.create_task(collect(follower))
        source = logged(producer, log)
        for first in range(1, 40, 5):
            source.emit_batch(batch(first, first + 4))
            await asyncio.sleep(0)
        source.close()
        return await collecting

    assert asyncio.run(both()) == list(range(1, 41))


def test_the_end_of_a_shared_ring(make_bus: BusMaker) -> None:
    bus = make_bus(capacity=4)
    log = MemoryLog()
    with bus.consumer(0) as consumer, Peer(bus) as peer:
        peer.ask(claim_producer)
        assert peer.ask(emit, 1, 6) == [True] * 4 + [False] * 2
        log.put(1, 7)
        peer.kill()
        follower = follow(consumer, log, group="g")
        assert asyncio.run(collect(follower)) == [1, 2, 3, 4, 5, 6, 7]


def test_a_timeout_returns_an_empty_batch_and_does_not_end_the_stream() -> None:
    _producer, consumer = ring(2)
    follower = follow(consumer, MemoryLog(), group="g")
    for timeout in (0, 0.01, 0.15):
        assert len(asyncio.run(follower.next_batch_async(timeout))) == 0
        assert not follower.ended


@pytest.mark.parametrize("with_ring", [False, True])
@pytest.mark.parametrize("live", [False, True])
def test_close_ends_a_waiting_loop(with_ring: bool, live: bool) -> None:
    _producer, consumer = ring(2)
    log = LiveMemoryLog() if live else MemoryLog()
    log.put(1, 2)
    follower = follow(consumer if with_ring else None, log, group="g", core_id=0)

    async def both() -> list[int]:
        collecting = asyncio.create_task(collect(follower))
        while follower.position != 2:
            await asyncio.sleep(0.001)
        closing = threading.Thread(target=follower.close)
        closing.start()
        got = await collecting
        closing.join()
        return got

    assert asyncio.run(both()) == [1, 2]
    with pytest.raises(ClosedError):
        asyncio.run(follower.next_batch_async(0))
    assert asyncio.run(collect(follower)) == []


def test_the_loop_runs_on_while_the_log_is_read() -> None:
    _producer, consumer = ring(2)
    log = MemoryLog()
    log.put(1, 2)
    log.gate = threading.Event()
    follower = follow(consumer, log, group="g", after=0)

    async def both() -> list[int]:
        reading = asyncio.create_task(follower.next_batch_async())
        await until_at_gate(log)
        assert not reading.done()
        assert log.gate is not None
        log.gate.set()
        return sequences(await reading)

    assert asyncio.run(both()) == [1, 2]


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("goes_on", ["same loop", "another loop", "no loop"])
def test_a_call_cancelled_in_the_midst_of_a_read_loses_nothing(failing: bool, goes_on: str) -> None:
    producer, consumer = ring(2)
    log = MemoryLog()
    for first in (1, 4, 7):
        log.put(first, first + 2)
    fill(producer, 10, 11)
    log.gate = threading.Event()
    follower = follow(consumer, log, group="g", after=0)

    async def cancel() -> list[int]:
        gate = log.gate
        assert gate is not None
        for is_again in (False, True):
            reading = asyncio.create_task(follower.next_batch_async())
            if not is_again:
                await until_at_gate(log)
            else:
                # It waits for the thread of the first.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading
            assert reading.cancelled()
        if failing:
            log.fail_after = 0
        gate.set()
        return await taken(follower) if goes_on == "same loop" else []

    got = asyncio.run(cancel())
    if goes_on == "another loop":
        got = asyncio.run(taken(follower))
    elif goes_on == "no loop":
        while len(each := follower.next_batch(0)):
            got += sequences(each)
    assert got == list(range(1, 12))
    assert log.at_gate.is_set()
    assert follower.stats().delivered == 11


def test_a_call_cancelled_while_it_waits_for_the_ring_loses_nothing() -> None:
    producer, consumer = ring(4)
    log = MemoryLog()
    follower = follow(consumer, log, group="g")
    source = logged(producer, log)

    async def both() -> list[int]:
        got: list[int] = []
        for number in range(1, 41):
            waiting = asyncio.create_task(follower.next_batch_async())
            for _ in range(number % 7):
                await asyncio.sleep(0)
            source.emit(event(number))
            for _ in range(number % 3):
                await asyncio.sleep(0)
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                got += sequences(await waiting)
        source.close()
        return got + await collect(follower)

    assert asyncio.run(both()) == list(range(1, 41))


def test_a_second_call_in_the_midst_of_one_is_refused() -> None:
    """Two tasks would be handed batches in an order that nobody knows."""
    producer, consumer = ring(4)
    log = MemoryLog()
    follower = follow(consumer, log, group="g")

    async def both() -> list[int]:
        first = asyncio.create_task(follower.next_batch_async())
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="follower of core 0: a call for its next batch is in progress"):
            await follower.next_batch_async(0)
        with pytest.raises(BusyError):
            follower.next_batch(0)
        logged(producer, log).emit_batch(batch(1, 2))
        return sequences(await first)

    assert asyncio.run(both()) == [1, 2]
    assert len(follower.next_batch(0)) == 0


def test_a_log_that_fails_can_be_asked_again_in_another_loop() -> None:
    producer, consumer = ring(2)
    log = MemoryLog()
    log.put(1, 6)
    fill(producer, 5, 6)
    follower = follow(consumer, log, group="g", after=0)
    log.fail_after = 0
    with pytest.raises(LogDownError):
        asyncio.run(follower.next_batch_async())
    assert asyncio.run(taken(follower)) == [1, 2, 3, 4, 5, 6]


def test_a_gap_is_raised_by_each_call_until_it_is_skipped() -> None:
    producer, consumer = ring(4)
    follower = follow(consumer, MemoryLog(), group="g")
    fill(producer, 3, 4)
    with pytest.raises(GapError):
        asyncio.run(follower.next_batch_async())
    with pytest.raises(GapError) as raised:
        asyncio.run(follower.next_batch_async())
    assert (raised.value.first, raised.value.last) == (1, 2)
    follower.skip(raised.value)
    producer.close()
    assert asyncio.run(collect(follower)) == [3, 4]


def test_what_a_cancelled_call_found_does_not_end_the_next(make_bus: BusMaker) -> None:
    """The thread of a cancelled call finds the producer gone; a successor has come by the next call."""
    bus = make_bus()
    log = MemoryLog()
    consumer = bus.consumer(0)
    first = bus.producer(0)
    fill(first, 1, 1)
    log.put(1, 1)
    follower = follow(consumer, log, group="g")
    assert sequences(follower.next_batch()) == [1]
    first.close()
    entered, go_on = threading.Event(), threading.Event()
    last_sequence = log.last_sequence

    class Slow(MemoryLog):
        def last_sequence(self, core_id: int) -> int | None:
            if threading.current_thread() is not threading.main_thread():
                entered.set()
                assert go_on.wait(30)
            return last_sequence(core_id)

    slow = follow(consumer, Slow(), group="g", after=1)

    async def cancel() -> None:
        waiting = asyncio.create_task(slow.next_batch_async())
        while not entered.is_set():
            await asyncio.sleep(0.001)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        second = bus.producer(0)
        go_on.set()
        fill(second, 2, 2)
        assert sequences(await slow.next_batch_async()) == [2]
        assert not slow.ended
        assert len(await slow.next_batch_async(0)) == 0
        assert not slow.ended
        second.close()

    asyncio.run(cancel())
    consumer.close()
