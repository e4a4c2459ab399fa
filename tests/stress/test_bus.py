"""The bus as Python programs use it: an emitting thread and a draining one, every call of both ends."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
import pytest

from nodedb_ring import (
    ClosedError,
    EventBatch,
    EventConsumer,
    EventProducer,
    Lease,
    OwnershipError,
    WriteEvent,
    WriteOp,
    create_event_bus,
)

from . import watchdog
from .native import NativeTraffic
from .test_native_traffic import EVENTS as NATIVE_EVENTS
from .test_native_traffic import TINY

EVENTS: Final = max(200, NATIVE_EVENTS // 10)


@pytest.fixture(autouse=True)
def _eager_switches() -> Iterator[None]:
    """Lets the interpreter change threads often: each change is a chance to meet a race."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


def event(sequence: int) -> WriteEvent:
    """Every field of it follows from its number; at most 60 bytes of payload."""
    text = f"{sequence:x}"
    return WriteEvent(
        sequence=sequence,
        collection="" if sequence % 5 == 0 else "t" * (sequence % 3),
        op=WriteOp(1 + sequence % 6),
        row_id=text,
        lsn=sequence * 7919 % 2**64,
        vshard_id=sequence % 2**32,
        new_value=None if sequence % 4 == 0 else text.encode() * (sequence % 5),
        user_id=None if sequence % 3 else "ü" * (sequence % 4),
    )


class Emitter:
    """Emits a range of events by all three calls; keeps the account of its own attempts."""

    def __init__(self, producer: EventProducer, events: int, seed: int, insists: bool, first: int = 1) -> None:
        self.producer = producer
        self.sequence, self.end = first, first + events
        self.random = random.Random(seed)
        self.insists = insists
        self.enqueued: list[int] = []
        self.attempts = 0

    def step(self) -> None:
        count = min(self.random.randint(1, 9), self.end - self.sequence)
        kind = self.random.choice(["emit", "emit_batch", "reserve"])
        done = 0
        if kind == "reserve":
            count, done = self.reserve(count)
            if count == 0:
                kind = "emit"
        if kind == "emit":
            count = 1
            done = int(self.producer.emit(event(self.sequence)))
        elif kind == "emit_batch":
            events = [event(self.sequence + i) for i in range(count)]
            done = self.producer.emit_batch(EventBatch.from_events(events))
        self.attempts += count
        self.enqueued += range(self.sequence, self.sequence + done)
        self.sequence += done if self.insists else count
        if done == 0:
            time.sleep(0)

    def reserve(self, count: int) -> tuple[int, int]:
        """Publishes rows out of one block of payload, in a ring that has room for it: rows got, and rows published."""
        block = EventBatch.from_events([event(self.sequence + i) for i in range(count)])
        if len(block.payload) > self.producer.ring.arena_bytes:
            return 0, 0
        with self.producer.reserve(count, len(block.payload)) as rows:
            n = len(rows)
            if n:
                rows.payload[:] = block.payload
                rows.records[:] = block.records[:n]
        return len(rows), int(rows.published)

    def run(self, close: bool = True) -> list[int]:
        while self.sequence < self.end and not self.producer.is_consumer_disconnected:
            self.step()
        if close:
            self.producer.close()
        return self.enqueued


class Taker:
    """Takes events by every call until the producer has gone, and checks each against its number."""

    def __init__(self, consumer: EventConsumer, seed: int) -> None:
        self.consumer = consumer
        self.random = random.Random(seed)
        self.received: list[int] = []
        self.leases: list[tuple[Lease, list[int]]] = []
        self.outliving: list[tuple[object, list[int]]] = []

    def check(self, events: Sequence[WriteEvent]) -> list[int]:
        for each in events:
            assert each == event(each.sequence)
        return [each.sequence for each in events]

    def step(self) -> None:
        kind = self.random.choice(["try_recv", "drain", "wait", "lease"])
        if kind == "try_recv":
            one = self.consumer.try_recv()
            self.received += self.check([] if one is None else [one])
        elif kind == "drain":
            self.received += self.check(list(self.consumer.drain(self.random.randint(1, 20))))
        elif kind == "wait":
            if self.leases or self.outliving:
                # What is held may be all that the producer waits for.
                self.end_a_lease()
            else:
                self.received += self.check(list(self.consumer.drain(self.random.randint(1, 20), timeout=None)))
        elif len(self.leases) + len(self.outliving) < 4:
            lease = self.consumer.lease(self.random.randint(1, 20))
            numbers = self.check(list(lease.batch))
            self.received += numbers
            self.leases.append((lease, numbers))
        else:
            self.end_a_lease()

    def end_a_lease(self) -> None:
        if self.outliving and (not self.leases or self.random.random() < 0.5):
            array, numbers = self.outliving.pop(self.random.randrange(len(self.outliving)))
            assert isinstance(array, np.ndarray)
            assert array.tolist() == numbers
            return
        if not self.leases:
            return
        lease, numbers = self.leases.pop(self.random.randrange(len(self.leases)))
        assert self.check(list(lease.batch)) == numbers
        way = self.random.randrange(3)
        if way == 0:
            lease.release()
        elif way == 1 and numbers:
            array = lease.batch.sequence
            with pytest.raises(BufferError):
                lease.release()
            self.outliving.append((array, numbers))

    def run(self) -> list[int]:
        while not self.consumer.is_producer_disconnected:
            self.step()
        while self.leases or self.outliving:
            self.end_a_lease()
        return self.received


def watch(producers: Sequence[EventProducer], consumers: Sequence[EventConsumer]) -> Callable[[], object]:
    return lambda: [(p.stats().emitted, c.stats().received) for p, c in zip(producers, consumers, strict=True)]


def close_all(producers: Sequence[EventProducer], consumers: Sequence[EventConsumer]) -> Callable[[], None]:
    def close() -> None:
        for producer, consumer in zip(producers, consumers, strict=True):
            producer.close()
            consumer.close()

    return close


def settle(emitter: Emitter, received: list[int], consumer: EventConsumer) -> None:
    """Every event was received once, in order, or counted as dropped."""
    stats = emitter.producer.stats()
    assert received == emitter.enqueued
    assert stats.emitted == len(received) == consumer.stats().received
    assert stats.emitted + stats.dropped == emitter.attempts
    assert stats.dropped_disconnected == 0
    assert stats.emitted_sequence == emitter.end - 1
    assert consumer.stats().held == stats.slots_in_use == stats.bytes_in_use == 0


@pytest.mark.parametrize("insists", [True, False])
@pytest.mark.parametrize(
    ("capacity", "arena_bytes"), [(1, TINY), (1, None), (2, TINY), (16, TINY), (16, 300), (1024, TINY), (1024, None)]
)
def test_one_core(capacity: int, arena_bytes: int | None, insists: bool) -> None:
    (producer,), (consumer,) = create_event_bus(1, capacity, arena_bytes=arena_bytes)
    emitter = Emitter(producer, EVENTS, 1, insists)
    ends = ([producer], [consumer])
    _, received = watchdog.run(emitter.run, Taker(consumer, 2).run, progress=watch(*ends), stop=close_all(*ends))
    if insists:
        assert received == list(range(1, EVENTS + 1))
    settle(emitter, received, consumer)


def test_cores_do_not_see_each_other() -> None:
    """Four cores at once, of which one has a consumer that has gone and one a consumer that never takes."""
    producers, consumers = create_event_bus(4, 16, arena_bytes=300)
    emitters = [Emitter(producer, EVENTS // 2, core, core < 2) for core, producer in enumerate(producers)]
    for emitter in emitters[2:]:
        emitter.insists = False
    consumers[2].close()
    bodies: list[Callable[[], list[int]]] = [emitters[0].run, emitters[1].run]
    bodies += [Taker(consumers[0], 5).run, Taker(consumers[1], 6).run, emitters[3].run]

    def into_the_void() -> list[int]:
        while emitters[2].sequence < emitters[2].end:
            emitters[2].step()
        return emitters[2].enqueued

    results = watchdog.run(
        *bodies, into_the_void, progress=watch(producers, consumers), stop=close_all(producers, consumers)
    )
    for core in (0, 1):
        settle(emitters[core], results[2 + core], consumers[core])
        assert results[2 + core] == list(range(1, EVENTS // 2 + 1))
        assert not producers[core].is_consumer_disconnected
        assert producers[core].core_id == core
    gone, slow = producers[2].stats(), producers[3].stats()
    assert (gone.emitted, gone.dropped_full) == (0, 0)
    assert gone.dropped_disconnected == emitters[2].attempts
    assert slow.dropped_disconnected == 0
    assert slow.emitted + slow.dropped_full == emitters[3].attempts
    assert producers[2].is_consumer_disconnected
    assert not producers[3].is_consumer_disconnected
    left = [each.sequence for each in consumers[3].drain()]
    assert left == emitters[3].enqueued


def test_ends_are_handed_from_thread_to_thread_under_load() -> None:
    """Three threads take turns at each end, while one that never binds tries both and is refused."""
    (producer,), (consumer,) = create_event_bus(1, 16, arena_bytes=300)
    emitter, taker = Emitter(producer, EVENTS, 3, insists=True), Taker(consumer, 4)
    seats, chunk = 3, 40
    turns = {"emit": 0, "take": 0}
    # One end each: a closed producer refuses bind(), so the thread that closes it says so before the next one starts.
    ended = {"emit": threading.Event(), "take": threading.Event()}

    def emit_some() -> None:
        for _ in range(chunk):
            if emitter.sequence < emitter.end:
                emitter.step()
            else:
                producer.close()
                ended["emit"].set()
                return

    def take_some() -> None:
        for _ in range(chunk):
            if consumer.is_producer_disconnected:
                ended["take"].set()
                return
            taker.step()

    def sit(end: str, seat: int, bind: Callable[[], None], move: Callable[[], None]) -> int:
        mine = 0
        while not ended[end].is_set():
            if turns[end] % seats != seat:
                time.sleep(0)
                continue
            bind()
            move()
            turns[end] += 1
            mine += 1
        return mine

    def intrude() -> int:
        refusals = 0
        while not ended["take"].is_set():
            if min(turns.values()) > 0 and emitter.sequence < emitter.end:
                for call in (lambda: producer.emit(event(1)), consumer.try_recv, consumer.lease):
                    try:
                        call()
                    except (OwnershipError, ClosedError):
                        refusals += 1
                    else:
                        raise AssertionError("a thread that owns nothing moved an event")
            time.sleep(0)
        return refusals

    def stop() -> None:
        for each in ended.values():
            each.set()
        close_all([producer], [consumer])()

    def body(end: str, seat: int) -> Callable[[], int]:
        if end == "emit":
            return lambda: sit(end, seat, producer.bind, emit_some)
        return lambda: sit(end, seat, consumer.bind, take_some)

    bodies = [body(end, seat) for end in turns for seat in range(seats)]
    *moves, refusals = watchdog.run(*bodies, intrude, progress=watch([producer], [consumer]), stop=stop)
    while taker.leases or taker.outliving:
        taker.end_a_lease()
    assert taker.received == list(range(1, EVENTS + 1)) == emitter.enqueued
    assert min(moves) > 0, "a thread never had its turn"
    assert refusals > 0
    settle(emitter, taker.received, consumer)


def test_close_ends_a_wait() -> None:
    """Either end closes while a drain is about to sleep, sleeps, or has just been woken."""
    for attempt in range(max(30, EVENTS // 30)):
        (producer,), (consumer,) = create_event_bus(1, 4)
        asleep = threading.Event()

        def wait(consumer: EventConsumer = consumer, asleep: threading.Event = asleep) -> list[int]:
            asleep.set()
            numbers: list[int] = []
            try:
                while len(batch := consumer.drain(timeout=None)):
                    numbers += batch.sequence.tolist()
            except ClosedError:
                numbers.append(-1)
            return numbers

        def close(
            producer: EventProducer = producer,
            consumer: EventConsumer = consumer,
            asleep: threading.Event = asleep,
            attempt: int = attempt,
        ) -> list[int]:
            asleep.wait()
            for _ in range(attempt % 7 * 200):
                pass
            producer.emit(event(1))
            (producer if attempt % 2 else consumer).close()
            return []

        received, _ = watchdog.run(
            wait, close, progress=watch([producer], [consumer]), stop=close_all([producer], [consumer])
        )
        if attempt % 2:
            # A closed producer's events are delivered to the last one.
            assert received == [1]
        else:
            # A consumer closed by another thread may have had the event, or not.
            assert received in ([], [1], [-1], [1, -1])


@pytest.mark.parametrize("capacity", [1, 16])
def test_an_event_loop_is_woken(capacity: int) -> None:
    (producer,), (consumer,) = create_event_bus(1, capacity, arena_bytes=TINY)
    emitter = Emitter(producer, EVENTS // 2, 9, insists=True)

    async def take() -> list[int]:
        numbers: list[int] = []
        async for batch in consumer:
            for each in batch:
                assert each == event(each.sequence)
            numbers += batch.sequence.tolist()
        return numbers

    _, received = watchdog.run(
        emitter.run,
        lambda: asyncio.run(take()),
        progress=watch([producer], [consumer]),
        stop=close_all([producer], [consumer]),
    )
    assert received == list(range(1, EVENTS // 2 + 1))
    settle(emitter, received, consumer)


def test_an_event_loop_misses_no_wake(native: NativeTraffic) -> None:
    """A native producer continues only once the last event was taken, so one lost wake stops both forever."""
    (producer,), (consumer,) = create_event_bus(1, 4)
    stop, enqueued = native.Stop(), bytearray(3 * EVENTS)

    def emit() -> list[int]:
        # The jitter spans the way of a woken loop back to its next sleep.
        native.produce(
            producer.ring,
            stop,
            enqueued,
            first=1,
            how=native.PUSH,
            most=0,
            seed=1,
            insists=True,
            in_step=True,
            jitter=8000,
        )
        return []

    async def take() -> list[int]:
        return [number async for batch in consumer for number in batch.sequence.tolist()]

    def end() -> None:
        stop.set()
        native.close_both(producer.ring)

    _, received = watchdog.run(
        emit, lambda: asyncio.run(take()), progress=lambda: native.progress(producer.ring), stop=end
    )
    assert received == list(range(1, 3 * EVENTS + 1))
