"""One thread at a time moves events at each end; after fork the child's ends refuse."""

from __future__ import annotations

import asyncio
import functools
import gc
import mmap
import multiprocessing
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nodedb_ring import (
    EventConsumer,
    EventProducer,
    ForkError,
    OwnershipError,
    PressureState,
    RingError,
    create_event_bus,
)
from tests.unit.builders import event, events, fill, ring, sequences
from tests.unit.forks import FORKS
from tests.unit.runners import Running, in_child, in_thread, until_asleep

from .end_calls import consuming, kind_of, producing


def receiving(consumer: EventConsumer) -> list[Callable[[], object]]:
    return [*consuming(consumer), lambda: asyncio.run(take_one(consumer))]


async def take_one(consumer: EventConsumer) -> object:
    return await consumer.drain_async()


# threads


@pytest.mark.parametrize("which", range(3))
def test_emitting_from_a_thread_that_does_not_own_the_end(which: int) -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 1)
    with pytest.raises(OwnershipError, match=r"core 0.*bind"):
        in_thread(producing(producer)[which])
    assert producer.stats().emitted == 1
    assert producer.emitted_sequence == 1
    fill(producer, 2, 2)
    assert sequences(consumer.drain()) == [1, 2]


@pytest.mark.parametrize("which", range(7))
def test_receiving_in_a_thread_that_does_not_own_the_end(which: int) -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 2)
    assert consumer.try_recv() == event(1)
    with pytest.raises(OwnershipError, match=r"core 0.*bind"):
        in_thread(receiving(consumer)[which])
    assert consumer.try_recv() == event(2)
    assert consumer.stats().received == 2


def test_an_ownership_error_is_a_ring_error() -> None:
    assert issubclass(OwnershipError, RingError)


def test_an_end_belongs_to_the_first_thread_that_uses_it() -> None:
    producer, consumer = ring(8)
    # Created and inspected here, but first used in another thread.
    assert producer.utilization == 0
    assert producer.stats().emitted == consumer.stats().received == 0
    assert producer.pressure_state is consumer.pressure_state
    assert in_thread(lambda: producer.emit(event(1)))
    assert in_thread(consumer.try_recv) == event(1)
    with pytest.raises(OwnershipError):
        producer.emit(event(2))
    with pytest.raises(OwnershipError):
        consumer.try_recv()


def test_the_two_ends_may_belong_to_two_threads_or_to_one() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 3)
    assert in_thread(lambda: sequences(consumer.drain())) == [1, 2, 3]
    fill(producer, 4, 5)


def test_bind_hands_it_on() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 2)
    assert consumer.try_recv() == event(1)

    def elsewhere() -> list[int]:
        producer.bind()
        consumer.bind()
        fill(producer, 3, 4)
        return sequences(consumer.drain())

    assert in_thread(elsewhere) == [2, 3, 4]
    for call in producing(producer) + receiving(consumer):
        with pytest.raises(OwnershipError):
            call()
    producer.bind()
    consumer.bind()
    fill(producer, 5, 6)
    assert sequences(consumer.drain()) == [5, 6]


def test_bind_during_a_wait_is_an_ownership_error() -> None:
    producer, consumer = ring(8)
    waiter = Running(lambda: sequences(consumer.drain(timeout=None)))
    waiter.until_asleep()
    with pytest.raises(OwnershipError, match="wait"):
        consumer.bind()
    fill(producer, 1, 1)
    assert waiter.result() == [1]
    consumer.bind()
    fill(producer, 2, 2)
    assert sequences(consumer.drain()) == [2]


def test_bind_during_an_asynchronous_wait_is_an_ownership_error() -> None:
    producer, consumer = ring(8)

    async def wait() -> list[int]:
        waiting = asyncio.ensure_future(consumer.drain_async())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(OwnershipError):
            consumer.bind()
        fill(producer, 1, 1)
        return sequences(await waiting)

    assert asyncio.run(wait()) == [1]


@pytest.fixture
def a_stack_of_their_own() -> Iterator[None]:
    """Threads get stacks of a size that no other has: glibc takes a free one of that very size before any other."""
    before = threading.stack_size((1 << 20) + 5 * mmap.PAGESIZE)
    yield
    threading.stack_size(before)


@pytest.mark.usefixtures("a_stack_of_their_own")
def test_a_new_thread_with_an_old_thread_id_is_another_thread() -> None:
    """A thread's id is the address of its stack."""
    producer, consumer = ring(8)
    idents: list[int] = []

    def run(call: Callable[[], object]) -> None:
        native: list[int] = []

        def work() -> None:
            native.append(threading.get_native_id())
            idents.append(threading.get_ident())
            call()

        try:
            in_thread(work)
        finally:
            # Joined, it may still be on its way out; the kernel gives the stack back before the task is gone.
            while Path(f"/proc/self/task/{native[0]}").exists():
                time.sleep(0.001)

    def use() -> None:
        producer.emit(event(1))
        consumer.try_recv()

    run(use)
    for _ in range(3):
        with pytest.raises(OwnershipError):
            run(use)
    assert len(set(idents)) == 1, "no thread got the id of the first: the test shows nothing here"


@pytest.mark.parametrize("thread", [True, False])
def test_properties_stats_and_close_from_any_thread(thread: bool) -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 4)
    assert consumer.try_recv() == event(1)

    def observe() -> list[object]:
        return [
            producer.core_id, producer.capacity, producer.utilization, producer.pressure_state,
            producer.is_consumer_disconnected, producer.emitted_sequence, producer.next_sequence,
            producer.stats().emitted, consumer.core_id, consumer.pressure_state, consumer.is_producer_disconnected,
            consumer.stats().received,
        ]  # fmt: skip

    wanted = [0, 8, 37, PressureState.NORMAL, False, 4, 5, 4, 0, PressureState.NORMAL, False, 1]
    assert (in_thread(observe) if thread else observe()) == wanted
    in_thread(producer.close)
    with pytest.raises(ValueError, match="closed"):
        producer.emit(event(5))
    assert sequences(consumer.drain()) == [2, 3, 4]
    assert consumer.is_producer_disconnected
    in_thread(consumer.close)
    with pytest.raises(ValueError, match="closed"):
        consumer.drain()


@pytest.mark.parametrize("end", ["producer", "consumer"])
@pytest.mark.parametrize("how", ["close", "collect"])
def test_close_from_any_thread_wakes_a_waiter(end: str, how: str) -> None:
    producer: EventProducer | None
    producer, consumer = ring(8)
    waiter = Running(lambda: len(consumer.drain(timeout=None)))
    waiter.until_asleep()
    if end == "consumer":
        consumer.close()
    elif how == "close":
        producer.close()
    else:
        producer = None
    assert waiter.result() == 0


# fork


def in_forked_child(fork: Callable[[], int]) -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 4)
    assert consumer.try_recv() == event(1)
    lease = consumer.lease(1)

    def child() -> list[str]:
        refused: list[str] = []
        calls: list[Callable[[], object]] = [
            *producing(producer),
            *receiving(consumer),
            producer.bind,
            consumer.bind,
        ]
        for call in calls:
            try:
                call()
            except ForkError as error:
                refused.append(str(error))
        refused += [in_thread(functools.partial(kind_of, call)) for call in calls]
        return refused

    reported = in_child(child, fork)
    assert len(reported) == 2 * 12
    assert all("fork" in each or each == "ForkError" for each in reported)
    # The parent's ends work on.
    fill(producer, 5, 6)
    assert sequences(lease.batch) == [2]
    lease.release()
    assert sequences(consumer.drain()) == [3, 4, 5, 6]
    assert not producer.is_consumer_disconnected
    assert not consumer.is_producer_disconnected


@pytest.mark.parametrize("fork", FORKS)
def test_inherited_ends_refuse(fork: Callable[[], int]) -> None:
    in_forked_child(fork)


@pytest.mark.parametrize("fork", FORKS)
def test_unowned_ends_refuse_too(fork: Callable[[], int]) -> None:
    producer, consumer = ring(8)

    def child() -> list[str]:
        return [kind_of(call) for call in producing(producer) + receiving(consumer)]

    assert in_child(child, fork) == ["ForkError"] * 10
    assert producer.emit(event())
    assert consumer.try_recv() == event()


def test_an_end_that_another_thread_owned_refuses_in_its_own_name() -> None:
    producer, consumer = ring(8)
    assert in_thread(lambda: producer.emit(event(1)))
    assert in_child(lambda: kind_of(lambda: producer.emit(event(2)))) == "ForkError"
    assert consumer.try_recv() == event(1)


@pytest.mark.parametrize("fork", FORKS)
@pytest.mark.parametrize("how", ["close", "collect", "with"])
def test_finalizers_of_the_child_touch_nothing_that_is_shared(how: str, fork: Callable[[], int]) -> None:
    ends: list[Any] = [*ring(8)]
    fill(ends[0], 1, 3)
    ends.append(ends[1].lease(1))

    def child() -> bool:
        if how == "close":
            ends[0].close()
            ends[1].close()
            ends[2].release()
        elif how == "with":
            with ends[0], ends[1], ends[2]:
                pass
        ends.clear()
        gc.collect()
        return True

    assert in_child(child, fork)
    producer, consumer, lease = ends
    assert not producer.is_consumer_disconnected
    assert not consumer.is_producer_disconnected
    assert consumer.stats().held == 1
    fill(producer, 4, 8)
    assert sequences(lease.batch) == [1]
    assert sequences(consumer.drain()) == [2, 3, 4, 5, 6, 7, 8]


def test_a_child_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    producer, consumer = ring(1)
    fill(producer, 1, 1)
    consumer.close()

    def child() -> int:
        before = len(caplog.records)
        producer.is_consumer_disconnected  # noqa: B018
        producer.pressure_state  # noqa: B018
        producer.close()
        return len(caplog.records) - before

    assert in_child(child) == 0


@pytest.mark.parametrize("fork", FORKS)
def test_a_reservation_open_over_a_fork_publishes_in_the_parent_only(fork: Callable[[], int]) -> None:
    producer, consumer = ring(8)
    with producer.reserve(2) as rows:
        rows["op"] = 1
        assert in_child(lambda: kind_of(lambda: rows.__exit__(None, None, None)), fork) == "ForkError"
    assert sequences(consumer.drain()) == [1, 2]


@pytest.mark.parametrize("fork", FORKS)
def test_a_waiter_in_another_thread_survives_a_fork(fork: Callable[[], int]) -> None:
    producer, consumer = ring(8)
    waiter = Running(lambda: sequences(consumer.drain(timeout=None)))
    waiter.until_asleep()
    assert in_child(lambda: [kind_of(consumer.close), kind_of(producer.close)], fork) == ["nothing"] * 2
    fill(producer, 1, 1)
    assert waiter.result() == [1]


@pytest.mark.parametrize("fork", FORKS)
def test_an_asynchronous_waiter_survives_a_fork(fork: Callable[[], int]) -> None:
    # The child inherits the coroutine and the very eventfd and epoll of the parent's loop.
    producer, consumer = ring(8)

    async def wait() -> list[int]:
        task: asyncio.Task[Any] = asyncio.ensure_future(consumer.drain_async(timeout=10))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        coroutine: Any = task.get_coro()
        assert in_child(lambda: kind_of(coroutine.close), fork) == "nothing"
        started = time.monotonic()
        fill(producer, 1, 1)
        got = sequences(await task)
        assert time.monotonic() - started < 9, "it came with the timeout, not with the event"
        return got

    assert asyncio.run(wait()) == [1]


def multiprocessing_child(producer: EventProducer, consumer: EventConsumer, reported: Any) -> None:
    reported.send([kind_of(call) for call in producing(producer) + receiving(consumer)])
    reported.close()


def test_multiprocessing_with_fork() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 2)
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=multiprocessing_child, args=(producer, consumer, sending))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    sending.close()
    assert receiving.poll(30)
    assert receiving.recv() == ["ForkError"] * 10
    process.join(30)
    assert process.exitcode == 0
    assert not producer.is_consumer_disconnected
    assert sequences(consumer.drain()) == [1, 2]


def test_a_child_may_make_a_bus_of_its_own() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 1)

    def child() -> list[int]:
        [mine], [my_consumer] = create_event_bus(1, 8)
        fill(mine, 5, 7)
        return sequences(my_consumer.drain())

    assert in_child(child) == [5, 6, 7]
    assert sequences(consumer.drain()) == [1]


def test_a_drained_batch_serves_in_the_child() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 3)
    drained = consumer.drain()
    assert in_child(lambda: list(drained)) == events(1, 3)


def test_until_asleep_sees_a_sleeper() -> None:
    # The other tests rely on it.
    gate = threading.Event()
    waiter = Running(gate.wait)
    waiter.until_asleep()
    gate.set()
    assert waiter.result()
    with pytest.raises(FileNotFoundError):
        until_asleep(2**22 - 1)
