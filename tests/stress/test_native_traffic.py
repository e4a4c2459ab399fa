"""A native producer against a native consumer, truly in parallel: every event is accounted for, byte by byte."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from typing import Final

import pytest

from nodedb_ring import EventBus, EventConsumer, EventProducer, WriteEvent, WriteOp, create_event_bus
from tests.unit.runners import until_asleep

from . import watchdog
from .native import NativeTraffic

EVENTS: Final = int(os.environ.get("STRESS_EVENTS", "30000"))

TINY: Final = 64
"""Bytes of an arena that a few events fill."""

GEOMETRIES: Final = [(1, TINY), (2, TINY), (2, 4096), (16, TINY), (16, 700), (16, 65536), (1024, TINY), (1024, 20000)]
EMITS: Final = ["PUSH", "ROWS", "SCATTERED", "RESERVE", "MIXED"]
TAKES: Final = ["POP", "PEEK", "TAKE", "LEASE", "COPY", "MIXED"]


def ends(capacity: int, arena_bytes: int | None) -> tuple[EventProducer, EventConsumer]:
    (producer,), (consumer,) = create_event_bus(1, capacity, arena_bytes=arena_bytes)
    return producer, consumer


def race(
    native: NativeTraffic,
    producer: EventProducer,
    consumer: EventConsumer,
    *,
    emit: str = "MIXED",
    take: str = "MIXED",
    events: int = EVENTS,
    most: int = 48,
    insists: bool = True,
    spins: int = -1,
    in_step: bool = False,
    room_spins: int = -1,
    seed: int = 1,
) -> None:
    """Runs both ends to the last event, and checks the account."""
    # One object on a private bus; on a shared one a ring an end, over one mapping.
    ring, other = producer.ring, consumer.ring
    stop = native.Stop()
    enqueued, received = bytearray(events), bytearray(events)
    before = producer.stats()

    def produce() -> tuple[int, int]:
        how = int(getattr(native, emit))
        attempts = native.produce(
            ring,
            stop,
            enqueued,
            first=1,
            how=how,
            most=most,
            seed=seed,
            insists=insists,
            in_step=in_step,
            spins=room_spins,
        )
        return attempts, 0

    def consume() -> tuple[int, int]:
        how = int(getattr(native, take))
        return native.consume(other, stop, received, first=1, how=how, most=most, seed=seed + 7, spins=spins)

    def end() -> None:
        stop.set()
        native.close_both(ring)

    (attempts, _), (wrong, sequence) = watchdog.run(produce, consume, progress=lambda: native.progress(ring), stop=end)
    reasons = ["nothing", "out of order", "torn", "torn while leased", "a run that is longer than the arena"]
    assert wrong == 0, f"event {sequence}: {reasons[wrong]}"
    # Each enqueued event exactly once, and nothing else.
    assert received == enqueued
    stats = producer.stats()
    went_in = sum(enqueued)
    assert stats.emitted - before.emitted == went_in
    assert stats.emitted + stats.dropped == attempts + before.emitted
    assert stats.dropped_disconnected == 0
    assert stats.emitted_sequence == events
    assert consumer.stats().received == stats.emitted
    assert consumer.stats().held == 0
    assert stats.slots_in_use == 0
    assert stats.bytes_in_use == 0
    if insists:
        assert went_in == events
    assert consumer.is_producer_disconnected


@pytest.mark.parametrize("take", TAKES)
@pytest.mark.parametrize("emit", EMITS)
def test_every_pair_of_calls(native: NativeTraffic, emit: str, take: str) -> None:
    for capacity, arena_bytes in [(2, TINY), (16, 700)]:
        race(native, *ends(capacity, arena_bytes), emit=emit, take=take, events=EVENTS // 4)


@pytest.fixture
def shared() -> Iterator[Callable[[int, int], tuple[EventProducer, EventConsumer]]]:
    """Makes both ends of a shared bus in this process, where TSan can see both sides of each store."""
    with contextlib.ExitStack() as stack:

        def make(capacity: int, arena_bytes: int) -> tuple[EventProducer, EventConsumer]:
            name = f"native-{os.getpid()}-{capacity}-{arena_bytes}"
            bus = stack.enter_context(EventBus.create(name, 1, capacity, arena_bytes=arena_bytes))
            stack.callback(bus.unlink)
            return bus.producer(0), bus.consumer(0)

        yield make


@pytest.mark.parametrize("take", TAKES)
@pytest.mark.parametrize("emit", ["PUSH", "ROWS", "MIXED"])
def test_every_pair_of_calls_on_a_shared_ring(
    native: NativeTraffic, shared: Callable[[int, int], tuple[EventProducer, EventConsumer]], emit: str, take: str
) -> None:
    for capacity, arena_bytes in [(2, TINY), (16, 700)]:
        race(native, *shared(capacity, arena_bytes), emit=emit, take=take, events=EVENTS // 4)


@pytest.mark.parametrize("insists", [True, False])
@pytest.mark.parametrize(("capacity", "arena_bytes"), GEOMETRIES)
def test_every_geometry(native: NativeTraffic, capacity: int, arena_bytes: int, insists: bool) -> None:
    for seed in range(2):
        race(native, *ends(capacity, arena_bytes), insists=insists, events=EVENTS, seed=1000 * seed)


@pytest.mark.parametrize("capacity", [1, 16])
def test_payload_as_large_as_the_arena(native: NativeTraffic, capacity: int) -> None:
    race(native, *ends(capacity, TINY), most=TINY, events=EVENTS)


@pytest.mark.parametrize("take", ["LEASE", "COPY", "MIXED"])
@pytest.mark.parametrize("capacity", [1, 2, 16])
def test_positions_wrap_with_their_type(native: NativeTraffic, capacity: int, take: str) -> None:
    """All counts start just below 2**64 and pass it in the run."""
    producer, consumer = ends(capacity, 200)
    native.start_at(producer.ring, 2**64 - EVENTS // 8, 2**64 - EVENTS)
    stop = native.Stop()
    events = EVENTS // 2
    enqueued, received = bytearray(events), bytearray(events)
    ring = producer.ring
    how = int(getattr(native, take))

    def end() -> None:
        stop.set()
        native.close_both(ring)

    _, (wrong, sequence) = watchdog.run(
        lambda: (native.produce(ring, stop, enqueued, first=1, how=0, most=40, seed=3, insists=True), 0),
        lambda: native.consume(ring, stop, received, first=1, how=how, most=40, seed=4),
        progress=lambda: native.progress(ring),
        stop=end,
    )
    assert wrong == 0, f"event {sequence}"
    assert received == enqueued == b"\1" * events
    assert native.progress(ring) == (events - EVENTS // 8, events - EVENTS // 8)
    assert consumer.stats().held == producer.stats().bytes_in_use == 0


def test_a_wait_checks_again_after_it_announced_itself(native: NativeTraffic) -> None:
    """An event published between the last check and the announcement woke nobody: without this check it would wait."""
    producer, consumer = ends(2, TINY)
    assert native.waits_see_what_came_before(producer.ring) == (False, False)
    producer.emit(WriteEvent(sequence=1, collection="c", op=WriteOp.INSERT, row_id="r", lsn=1))
    assert native.waits_see_what_came_before(producer.ring) == (True, True)
    assert len(consumer.drain()) == 1
    producer.close()
    assert native.waits_see_what_came_before(producer.ring) == (True, True)


@pytest.mark.parametrize("by", ["an event", "a close"])
def test_one_that_sleeps_is_woken(native: NativeTraffic, by: str) -> None:
    """It is asleep for certain, and sleeps without limit: nothing but the wake ends it."""
    producer, _consumer = ends(2, TINY)
    ring = producer.ring
    asleep: Queue[int] = Queue()

    def sleep() -> bool:
        asleep.put(threading.get_native_id())
        return native.sleep(ring)

    def wake() -> bool:
        until_asleep(asleep.get())
        if by == "a close":
            producer.close()
            return True
        return producer.emit(WriteEvent(sequence=1, collection="c", op=WriteOp.INSERT, row_id="r", lsn=1))

    assert watchdog.run(sleep, wake, progress=lambda: native.progress(ring), stop=lambda: None) == [True, True]


def one(sequence: int, size: int = 0) -> WriteEvent:
    return WriteEvent(
        sequence=sequence, collection="", op=WriteOp.INSERT, row_id="", lsn=sequence, new_value=bytes(size)
    )


def test_a_wait_for_room_checks_again_after_it_announced_itself(native: NativeTraffic) -> None:
    producer, consumer = ends(2, TINY)
    assert native.room_waits_see_what_came_before(producer.ring)
    assert producer.emit(one(1))
    assert producer.emit(one(2))
    assert not native.room_waits_see_what_came_before(producer.ring)
    assert len(consumer.drain(1)) == 1
    assert native.room_waits_see_what_came_before(producer.ring)
    assert producer.emit(one(3))
    consumer.close()
    assert native.room_waits_see_what_came_before(producer.ring)


@pytest.mark.parametrize("by", ["a slot", "bytes", "bytes of the next lap", "all", "the consumer's end", "its own end"])
def test_a_producer_that_sleeps_is_woken(native: NativeTraffic, by: str) -> None:
    """It is asleep for certain, and sleeps without limit: nothing but the wake ends it."""
    producer, consumer = ends(4, TINY)
    ring = producer.ring
    asleep: Queue[int] = Queue()
    wanted = {"bytes": (1, 32), "bytes of the next lap": (1, 24), "all": (4, TINY)}.get(by, (1, 0))
    if by.startswith("bytes"):
        # Half of the arena each, or 24, 24 and 16: what is wanted fits behind the second only from its beginning on.
        sizes = (32, 32) if by == "bytes" else (24, 24)
        for number, size in enumerate(sizes, 1):
            assert producer.emit(one(number, size))
    else:
        for number in range(1, 5):
            assert producer.emit(one(number, 8))

    def sleep() -> bool:
        asleep.put(threading.get_native_id())
        return native.sleep_until_room(ring, *wanted, wanted[0])

    def wake() -> bool:
        until_asleep(asleep.get())
        if by == "the consumer's end":
            consumer.close()
        elif by == "its own end":
            producer.close()
        else:
            assert len(consumer.drain(4 if by == "all" else 1)) > 0
        return True

    assert watchdog.run(sleep, wake, progress=lambda: native.progress(ring), stop=lambda: None) == [True, True]


def test_a_producer_sleeps_on_while_what_it_waits_for_is_not_there(native: NativeTraffic) -> None:
    """Each wake is a system call of the consumer's: it is not woken for a slot when it waits for four."""
    producer, consumer = ends(4, 4096)
    ring = producer.ring
    asleep: Queue[int] = Queue()
    naps: list[int] = []
    for number in range(1, 5):
        assert producer.emit(one(number))

    def switches(thread: int) -> int:
        status = Path(f"/proc/self/task/{thread}/status").read_text()
        return int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.MULTILINE)[1])  # type: ignore[index]

    def sleep() -> bool:
        asleep.put(threading.get_native_id())
        return native.sleep_until_room(ring, 4, 0, 4)

    def wake() -> bool:
        thread = asleep.get()
        until_asleep(thread)
        before = switches(thread)
        for _ in range(3):
            assert len(consumer.drain(1)) == 1
            until_asleep(thread)
        naps.append(switches(thread) - before)
        assert len(consumer.drain(1)) == 1
        return True

    assert watchdog.run(sleep, wake, progress=lambda: native.progress(ring), stop=lambda: None) == [True, True]
    assert naps == [0]


@pytest.mark.parametrize("take", TAKES)
@pytest.mark.parametrize(("capacity", "arena_bytes"), [(1, TINY), (2, TINY), (16, 700), (1024, 20000)])
def test_a_producer_that_waits_for_room(native: NativeTraffic, capacity: int, arena_bytes: int, take: str) -> None:
    """One lost wake stops both forever: the consumer sleeps too."""
    for spins, room_spins in [(0, 0), (20, 0), (0, 2000), (-1, 0)]:
        race(native, *ends(capacity, arena_bytes), take=take, events=EVENTS // 8, spins=spins, room_spins=room_spins)


@pytest.mark.parametrize("capacity", [2, 16])
def test_a_producer_that_waits_for_room_on_a_shared_ring(
    native: NativeTraffic, shared: Callable[[int, int], tuple[EventProducer, EventConsumer]], capacity: int
) -> None:
    race(native, *shared(capacity, 700), events=EVENTS // 4, spins=0, room_spins=0)


@pytest.mark.parametrize("spins", [0, 20])
@pytest.mark.parametrize("capacity", [1, 2, 16, 1024])
def test_a_sleeping_consumer_is_woken(native: NativeTraffic, capacity: int, spins: int) -> None:
    """The producer continues only once all was taken, so one lost wake stops both forever."""
    race(native, *ends(capacity, 4096), emit="PUSH", take="POP", events=EVENTS // 4, in_step=True, spins=spins)


@pytest.mark.parametrize("capacity", [2, 16, 1024])
def test_sleeping_under_load(native: NativeTraffic, capacity: int) -> None:
    race(native, *ends(capacity, 700), events=EVENTS, spins=0)
    race(native, *ends(capacity, 700), events=EVENTS, spins=0, insists=False)


def test_the_last_event_before_a_close_is_delivered(native: NativeTraffic) -> None:
    """A producer emits one event and closes at once, just as the consumer checks whether it has gone."""
    producer, _consumer = ends(2, TINY)
    ring, stop, turns, rounds = producer.ring, native.Stop(), native.Turns(), 5 * EVENTS
    _, lost = watchdog.run(
        lambda: native.close_after_one(ring, stop, turns, rounds, 1),
        lambda: native.look_for_the_last(ring, stop, turns, rounds),
        progress=lambda: native.progress(ring),
        stop=stop.set,
    )
    assert lost == 0
    assert native.progress(ring) == (rounds, rounds)


def test_a_sleeper_sees_the_last_event_and_the_close(native: NativeTraffic) -> None:
    for seed in range(max(50, EVENTS // 300)):
        race(native, *ends(2, TINY), events=1, emit="PUSH", take="POP", spins=seed % 3 * 10 - 1, seed=seed)


def test_a_consumer_that_closes_turns_every_later_event_away(native: NativeTraffic) -> None:
    producer, consumer = ends(16, 700)
    ring, stop = producer.ring, native.Stop()
    enqueued = bytearray(EVENTS)

    def close_early() -> int:
        while producer.stats().emitted < 4:
            pass
        consumer.close()
        return 0

    attempts, _ = watchdog.run(
        lambda: native.produce(ring, stop, enqueued, first=1, how=0, most=40, seed=5, insists=True, closes=False),
        close_early,
        progress=lambda: producer.stats().emitted + producer.stats().dropped,
        stop=stop.set,
    )
    stats = producer.stats()
    assert stats.emitted == sum(enqueued)
    assert stats.emitted + stats.dropped == attempts
    assert stats.dropped_disconnected >= EVENTS - 16 - 24
    assert stats.emitted_sequence == EVENTS
    assert producer.is_consumer_disconnected
