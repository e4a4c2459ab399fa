"""A lost wake: the waiter checks again. What two processes must agree on is stored in the block."""

from __future__ import annotations

import asyncio
import functools
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import cast

import pytest

from nodedb_ring import EventBus, EventConsumer
from tests.unit.builders import fill, ring, sequences
from tests.unit.bus.waiters import KINDS, is_silent, pair, producing_peer, readable
from tests.unit.ends.test_waiting import when_main_sleeps
from tests.unit.sandbox import Refusal, refused_from_here_on
from tests.unit.shared_buses import (
    ROOM_WAITING,
    SECONDS,
    WAITING,
    WAITING_FD,
    WAITING_THREAD,
    WAKER_FENCES,
    BusMaker,
    Held,
    Peer,
    claim_consumer,
    claim_producer,
    drain,
    emit,
    header_word,
    set_header_word,
)


def next_by_select(consumer: EventConsumer) -> list[int]:
    """The next events of one who waits as the documentation says."""
    while True:
        assert readable(consumer, SECONDS)
        if len(batch := consumer.drain()):
            return sequences(batch)


def next_on_a_loop(consumer: EventConsumer) -> list[int]:
    async def wait() -> list[int]:
        return sequences(await consumer.drain_async(timeout=SECONDS))

    return asyncio.run(wait())


WAITERS = [next_by_select, next_on_a_loop]


# Beside each other: a descriptor that somebody has, and other ways to wait.


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_that_waits_sleeps_though_somebody_has_the_descriptor(kind: str, make_bus: BusMaker) -> None:
    _producer, consumer = pair(kind, make_bus)
    consumer.fileno()
    consumer.spin = 0
    before = time.thread_time()
    assert len(consumer.drain(timeout=1.0)) == 0
    # Of a second: one who spins uses all that the machine gives it.
    assert time.thread_time() - before < 0.2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["timeout", "cancelled"])
def test_a_descriptor_is_signalled_after_an_asynchronous_wait(kind: str, how: str, make_bus: BusMaker) -> None:
    producer, consumer = pair(kind, make_bus)
    consumer.fileno()

    async def wait_in_vain() -> None:
        if how == "timeout":
            assert len(await consumer.drain_async(timeout=0.01)) == 0
            return
        waiting = asyncio.create_task(anext(consumer.__aiter__()))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(wait_in_vain())
    assert is_silent(consumer)
    fill(producer, 1, 1)
    assert next_by_select(consumer) == [1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_of_the_loop_beside_an_asynchronous_wait(kind: str, make_bus: BusMaker) -> None:
    producer, consumer = pair(kind, make_bus)

    async def both() -> None:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        waiting = asyncio.create_task(consumer.drain_async())
        await asyncio.sleep(0)
        loop.add_reader(consumer.fileno(), readable.set)
        fill(producer, 1, 1)
        assert sequences(await waiting) == [1]
        readable.clear()
        # The wait is over, and the reader is there still.
        assert await consumer.drain_async(timeout=0.01) is not None
        fill(producer, 2, 2)
        await asyncio.wait_for(readable.wait(), SECONDS)
        assert loop.remove_reader(consumer.fileno())
        assert sequences(consumer.drain()) == [2]

    asyncio.run(both())


# The way of the signal.


@pytest.mark.parametrize("wait", WAITERS)
def test_an_unlinked_bus_wakes(wait: Callable[[EventConsumer], list[int]], bus: EventBus) -> None:
    consumer = bus.consumer(0)
    with producing_peer(bus) as other:
        bus.unlink()
        other.post(emit, 1, 1)
        assert wait(consumer) == [1]
        other.answer()
        # The signal came by the FIFO that both had open: the waiter asks for the next.
        assert header_word_of_unlinked(other) & WAITING_FD == 0


def header_word_of_unlinked(other: Peer) -> int:
    return other.ask(_waiting_word)


def _waiting_word(held: Held) -> int:
    file = held.bus._file.opened()  # pyright: ignore[reportPrivateUsage]
    return int.from_bytes(os.pread(file.fd, 4, 4096 + WAITING), "little")


@pytest.mark.parametrize("wait", WAITERS)
@pytest.mark.parametrize("late", ["producer", "consumer", "both"])
def test_an_end_that_is_claimed_after_unlink_waits_and_wakes(
    late: str, wait: Callable[[EventConsumer], list[int]], bus: EventBus
) -> None:
    with Peer(bus) as other:
        early = bus.consumer(0) if late == "producer" else None
        if late == "consumer":
            other.ask(claim_producer)
        bus.unlink()
        consumer = early or bus.consumer(0)
        if late != "consumer":
            other.ask(claim_producer)
        for number in range(1, 4):
            other.post(emit, number, number)
            assert wait(consumer) == [number]
            other.answer()
        other.kill()
        assert wait_for_the_end(consumer) == []


def wait_for_the_end(consumer: EventConsumer) -> list[int]:
    async def collect() -> list[int]:
        return [number async for batch in consumer for number in sequences(batch)]

    return asyncio.run(collect())


def use_up_descriptors(held: Held) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        while True:
            held.others.append(os.dup(0))
    except OSError:
        pass


@pytest.mark.parametrize("wait", WAITERS)
def test_a_producer_without_descriptors_wakes(wait: Callable[[EventConsumer], list[int]], bus: EventBus) -> None:
    consumer = bus.consumer(0)
    with producing_peer(bus) as other:
        other.ask(use_up_descriptors)
        other.post(emit, 1, 1)
        assert wait(consumer) == [1]
        assert other.answer() == [True]


def test_a_claim_without_descriptors_is_an_error_and_claims_nothing(bus: EventBus) -> None:
    with Peer(bus) as other:
        other.ask(use_up_descriptors)
        for claim in (claim_producer, claim_consumer):
            assert other.ask(_error_of, claim) == ("OSError", "Too many open files")
    bus.producer(0).close()
    bus.consumer(0).close()


def _error_of(held: Held, call: Callable[[Held], object]) -> tuple[str, str | None]:
    # One is free, which the lock takes: it is the FIFO's that is missing.
    os.close(cast("int", held.others.pop()))
    try:
        call(held)
    except OSError as error:
        return type(error).__name__, error.strerror
    finally:
        held.others.append(os.dup(0))
    return "nothing", None


@contextmanager
def without_descriptors() -> Generator[None, None, None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_pidfd_that_could_not_be_opened_is_opened_later(bus: EventBus) -> None:
    consumer = bus.consumer(0)
    consumer.fileno()
    with producing_peer(bus):
        with without_descriptors():
            assert not consumer.is_producer_disconnected
        assert not pidfds()
        assert not consumer.is_producer_disconnected
        assert len(pidfds()) == 1


def pidfds() -> list[str]:
    """Descriptors of this process that stand for a process."""
    found: list[str] = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue  # that of the listing itself
    return [target for target in found if "pidfd" in target]


# Between two steps.


@pytest.mark.parametrize("wait", WAITERS)
def test_a_producer_that_took_the_bit_and_did_not_signal(
    wait: Callable[[EventConsumer], list[int]], bus: EventBus
) -> None:
    """Killed or stopped between the two: here the bit is taken for it, and so it publishes without a signal."""
    producer, consumer = bus.producer(0), bus.consumer(0)

    def take_the_bit_and_emit() -> None:
        while not header_word(bus, WAITING) & WAITING_FD:
            time.sleep(0.001)
        set_header_word(bus, WAITING, 0)
        fill(producer, 1, 1)

    consumer.fileno()
    waiter = when_main_sleeps(take_the_bit_and_emit)
    assert wait(consumer) == [1]
    waiter.result()


def stop(held: Held) -> None:
    held.others.append(held)
    os.kill(os.getpid(), signal.SIGSTOP)


def test_a_producer_that_is_stopped_while_somebody_waits(bus: EventBus) -> None:
    consumer = bus.consumer(0)
    with producing_peer(bus) as other:
        other.post(stop)

        async def waits() -> list[int]:
            waiting = asyncio.create_task(consumer.drain_async())
            await asyncio.sleep(0.2)
            os.kill(other.pid, signal.SIGCONT)
            await asyncio.to_thread(other.answer)
            other.post(emit, 1, 1)
            return sequences(await waiting)

        assert asyncio.run(waits()) == [1]
        other.answer()


# membarrier, refused to one of the two.


def refuse_membarrier(_held: Held) -> None:
    refused_from_here_on(Refusal("membarrier"))


def drain_in_vain(held: Held) -> list[int]:
    return sequences(held.consumer.drain(timeout=0.001))


def wait_in_vain(held: Held) -> bool:
    return held.producer.wait_for_room(16, timeout=0.001)


@pytest.mark.parametrize("when", ["before the claim", "after it"])
def test_a_consumer_without_membarrier_says_so(when: str, bus: EventBus) -> None:
    producer = bus.producer(0)
    with Peer(bus) as other:
        if when == "before the claim":
            other.ask(refuse_membarrier)
        other.ask(claim_consumer)
        if when == "after it":
            assert header_word(bus, WAITING) == 0
            other.ask(refuse_membarrier)
            other.ask(drain_in_vain)
        assert header_word(bus, WAITING) == WAKER_FENCES
        fill(producer, 1, 3)
        assert other.ask(drain) == [1, 2, 3]
        assert header_word(bus, WAITING) == WAKER_FENCES
        # It waits with it, and is woken.
        other.post(drain_long)
        while header_word(bus, WAITING) != WAKER_FENCES | WAITING_THREAD:
            time.sleep(0.001)
        fill(producer, 4, 4)
        assert other.answer() == [4]
    # A successor that has one takes it back.
    with bus.consumer(0):
        assert header_word(bus, WAITING) == 0


def drain_long(held: Held) -> list[int]:
    return sequences(held.consumer.drain(timeout=None))


@pytest.mark.parametrize("when", ["before the claim", "after it"])
def test_a_producer_without_membarrier_says_so(when: str, bus: EventBus) -> None:
    with Peer(bus) as other, bus.consumer(0) as consumer:
        if when == "before the claim":
            other.ask(refuse_membarrier)
        other.ask(claim_producer)
        other.ask(emit, 1, 16)
        if when == "after it":
            assert header_word(bus, ROOM_WAITING) == 0
            other.ask(refuse_membarrier)
            assert not other.ask(wait_in_vain)
        assert header_word(bus, ROOM_WAITING) == WAKER_FENCES
        other.post(wait_for_all)
        while header_word(bus, ROOM_WAITING) != WAKER_FENCES | WAITING_THREAD:
            time.sleep(0.001)
        assert sequences(consumer.drain()) == list(range(1, 17))
        assert other.answer()
        assert header_word(bus, ROOM_WAITING) == WAKER_FENCES
        other.kill()
        with bus.producer(0):
            assert header_word(bus, ROOM_WAITING) == 0


def wait_for_all(held: Held) -> bool:
    return held.producer.wait_for_room(16)


def test_a_private_ring_of_a_process_that_lost_membarrier() -> None:
    """Both ends are this process's: from the next sleep on the other end fences."""

    def rounds() -> None:
        producer, consumer = ring()

        def bind_and_fill(number: int) -> None:
            producer.bind()
            fill(producer, number, number)

        assert len(consumer.drain(timeout=0.001)) == 0
        refused_from_here_on(Refusal("membarrier"))
        for number in range(1, 200):
            waiter = when_main_sleeps(functools.partial(bind_and_fill, number))
            assert sequences(consumer.drain(timeout=SECONDS)) == [number]
            waiter.result()

    child = os.fork()
    if child == 0:
        try:
            rounds()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status == 0
