"""``stats()``, properties and scrapes from other threads, while ends work, come and go: each is a sound snapshot."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Generator, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest

from nodedb_ring import (
    ClosedError,
    EventBus,
    EventConsumer,
    EventProducer,
    Follower,
    PressureState,
    RoleTaken,
    create_event_bus,
    follow,
)
from nodedb_ring.ends.stats import ConsumerStats, ProducerStats
from nodedb_ring.metrics import RingCollector
from tests.unit.builders import event, events, sequences
from tests.unit.recovery.memory_log import MemoryLog

from . import watchdog
from .contention import eager_switches, rounds
from .journal import memory_directory

SLOTS: Final = 16
ARENA: Final = 1024


class Clock:
    """How far the threads of a test are, and whether it is over."""

    def __init__(self, count: int) -> None:
        self.count, self.done, self.is_over = count, 0, False

    def turns(self) -> Iterator[int]:
        """The rounds of the thread that sets the pace; when they are over, so is the test."""
        try:
            for number in range(self.count):
                if self.is_over:
                    return
                yield number
                self.done = number
        finally:
            self.is_over = True

    def until_over(self) -> Iterator[None]:
        """The turns of the others, of which each has one at least."""
        yield
        while not self.is_over:
            yield

    def run(self, *bodies: Callable[[], None]) -> None:
        def stop() -> None:
            self.is_over = True

        with eager_switches():
            watchdog.run(*bodies, progress=lambda: self.done, stop=stop)


class Watched:
    """What a watcher saw last of a ring: its counters never fall."""

    def __init__(self) -> None:
        self.sent: ProducerStats | None = None
        self.received: ConsumerStats | None = None

    def see(self, producer: EventProducer, consumer: EventConsumer) -> None:
        received, sent = consumer.stats(), producer.stats()
        assert received.received <= sent.emitted, "more came out than went in"
        assert 0 <= received.held <= SLOTS
        assert received.batches <= received.received
        assert sent.dropped == sent.dropped_full + sent.dropped_disconnected
        assert 0 <= sent.slots_in_use <= SLOTS
        assert 0 <= sent.bytes_in_use <= ARENA
        assert 0 <= sent.high_water_mark <= 100
        if self.sent is not None and self.received is not None:
            assert received.received >= self.received.received
            assert sent.emitted >= self.sent.emitted
            assert sent.dropped >= self.sent.dropped
            assert (sent.emitted_sequence or 0) >= (self.sent.emitted_sequence or 0)
        self.sent, self.received = sent, received
        assert 0 <= producer.utilization <= 100
        assert isinstance(producer.pressure_state, PressureState)
        assert isinstance(consumer.pressure_state, PressureState)
        assert producer.next_sequence > (sent.emitted_sequence or 0)
        assert (consumer.core_id, producer.capacity, consumer.spin >= 0) == (0, SLOTS, True)
        assert not producer.is_consumer_disconnected


def emit_all(producer: EventProducer, clock: Clock) -> None:
    for number in clock.turns():
        if number % 3:
            producer.emit(event(producer.next_sequence))
        else:
            with producer.reserve(2) as rows:
                rows["op"] = 1
    producer.close()


def take_all(consumer: EventConsumer) -> None:
    numbers: list[int] = []
    while not consumer.is_producer_disconnected:
        numbers += sequences(consumer.drain(3))
        with consumer.lease(3) as batch:
            numbers += sequences(batch)
    assert numbers == sorted(set(numbers))
    assert len(numbers) == consumer.stats().received


def test_counters_are_read_while_both_ends_work() -> None:
    [producer], [consumer] = create_event_bus(1, SLOTS, arena_bytes=ARENA)
    collector = RingCollector([producer], name="working")
    clock = Clock(rounds(40_000))

    def watch() -> None:
        watched = Watched()
        for _ in clock.until_over():
            watched.see(producer, consumer)

    def scrape() -> None:
        registry = CollectorRegistry()
        registry.register(collector)
        for _ in clock.until_over():
            assert b'nodedb_ring_up{bus="working",core="0"} 1' in generate_latest(registry)

    clock.run(lambda: emit_all(producer, clock), lambda: take_all(consumer), watch, scrape)
    sent, received = producer.stats(), consumer.stats()
    assert (sent.slots_in_use, sent.bytes_in_use) == (0, 0)
    assert received.received == sent.emitted


@contextlib.contextmanager
def shared() -> Generator[EventBus]:
    with (
        memory_directory() as directory,
        EventBus.create("stats", 2, SLOTS, arena_bytes=ARENA, directory=directory) as bus,
    ):
        yield bus


def test_a_bus_is_watched_while_its_ends_come_and_go() -> None:
    with shared() as bus:
        clock = Clock(rounds(1500))

        def come_and_go() -> None:
            for number in clock.turns():
                with bus.producer(0) as producer, bus.consumer(0) as consumer:
                    for _ in range(number % 5):
                        producer.emit(event(producer.next_sequence))
                    consumer.drain(2)

        def others_come_and_go() -> None:
            for _ in clock.until_over():
                # Core 1, and of core 0 what is free at that moment.
                with bus.producer(1) as producer:
                    producer.emit(event(producer.next_sequence))
                    del producer
                bus.consumer(1).drain()

        def watch() -> None:
            before = bus.stats()
            for _ in clock.until_over():
                now = bus.stats()
                for old, new in zip(before, now, strict=True):
                    assert new.producer.emitted >= old.producer.emitted
                    assert new.producer_claims >= old.producer_claims
                    assert new.consumer_claims >= old.consumer_claims
                    assert new.lag >= 0
                before = now

        def scrape() -> None:
            registry = CollectorRegistry()
            registry.register(RingCollector(bus))
            for _ in clock.until_over():
                text = generate_latest(registry)
                for core in "01":
                    assert f'nodedb_ring_up{{bus="stats",core="{core}"}} 1'.encode() in text

        clock.run(come_and_go, others_come_and_go, watch, scrape)
        assert [stats.producer_pid for stats in bus.stats()] == [None, None]


def test_a_bus_is_closed_while_it_is_watched() -> None:
    """Whoever asks a closed bus is told so, and never reads what its descriptor has become."""
    with memory_directory() as directory:
        EventBus.create("closing", 1, SLOTS, arena_bytes=ARENA, directory=directory).close()
        clock = Clock(rounds(1000))
        subject = [EventBus.open("closing", directory=directory)]

        def reopen() -> None:
            for _ in clock.turns():
                bus = EventBus.open("closing", directory=directory)
                subject[0] = bus
                bus.stats()
                bus.close()

        def watch() -> None:
            for _ in clock.until_over():
                with contextlib.suppress(ClosedError):
                    [stats] = subject[0].stats()
                    assert (stats.producer_pid, stats.consumer_pid) == (None, None)

        def claim() -> None:
            for _ in clock.until_over():
                with contextlib.suppress(ClosedError, RoleTaken):
                    subject[0].producer(0).close()

        clock.run(reopen, watch)
        clock = Clock(rounds(1000))
        clock.run(reopen, claim)


def test_a_collector_gets_and_loses_buses_and_followers_during_scrapes() -> None:
    collector = RingCollector()
    registry = CollectorRegistry()
    registry.register(collector)
    clock = Clock(rounds(1500))

    def one(name: str) -> None:
        [producer], [consumer] = create_event_bus(1, SLOTS, arena_bytes=ARENA)
        with follow(consumer, MemoryLog(), group="g") as follower:
            collector.add([producer], name=name, followers=[follower])
            for each in events(1, 3):
                producer.emit(each)
            assert sequences(follower.next_batch(0)) == [1, 2, 3]
            del consumer
            text = generate_latest(registry)
            assert f'nodedb_ring_emitted_events_total{{bus="{name}",core="0"}} 3.0'.encode() in text
            assert f'bus="{name}",core="0",group="g"}} 3.0'.encode() in text
        collector.remove(name)

    def come_and_go() -> None:
        for number in clock.turns():
            one(f"a{number}")

    def others() -> None:
        for number, _ in enumerate(clock.until_over()):
            one(f"b{number}")

    def scrape() -> None:
        for _ in clock.until_over():
            generate_latest(registry)

    clock.run(come_and_go, others, scrape)
    gc.collect()
    assert b'bus="' not in generate_latest(registry)


def test_a_follower_is_watched_while_it_works() -> None:
    [producer], [consumer] = create_event_bus(1, SLOTS, arena_bytes=ARENA)
    follower: Follower = follow(consumer, MemoryLog(), group="g")
    clock = Clock(rounds(20_000))

    def emit() -> None:
        for number in clock.turns():
            # What is tried and dropped would be a gap: this log has nothing.
            while not producer.wait_for_room(1, timeout=0.1):
                if clock.is_over:
                    return
            assert producer.emit(event(number + 1))
        producer.close()

    def take() -> None:
        for batch in follower:
            assert len(batch)

    def watch() -> None:
        position = 0
        for _ in clock.until_over():
            stats = follower.stats()
            assert stats.delivered >= 0
            assert (stats.position or 0) >= position
            assert stats.lag >= 0
            position = stats.position or 0
            assert (follower.position or 0) >= position
            repr(follower)

    clock.run(emit, take, watch)
    assert follower.stats().delivered == clock.count
