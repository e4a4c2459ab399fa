"""What ``nodedb-ring top`` knows: samples of a bus, rates, lag, and what becomes of a name."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import pytest

from nodedb_ring import EventBus, LayoutError, RingStats
from nodedb_ring.command.top.watch import BusSample, CorruptRing, Rates, RingSample, Watch
from tests.unit.builders import events
from tests.unit.shared_buses import (
    BusMaker,
    Peer,
    another_users,
    claim_consumer,
    claim_producer,
    close_consumer,
    drain,
    emit,
    lease,
)

PAGE = 4096
# Of a ring's header, in its block: what docs/layout.md and _ring.pxd say.
PUBLISHED_AT, TAKEN_AT = 128, 512


class Clock:
    """Does not advance until the test advances it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def watch(bus: EventBus, clock: Clock) -> Watch:
    return Watch(bus.name, bus.directory, clock)


def sound(sample: BusSample, core_id: int = 0) -> RingSample:
    ring = sample.rings[core_id]
    assert isinstance(ring, RingSample)
    assert ring.core_id == ring.stats.core_id == core_id
    return ring


def rates(sample: BusSample, core_id: int = 0) -> tuple[float, float, float]:
    found = sound(sample, core_id).rates
    assert found is not None
    return found.emitted, found.received, found.dropped


def overwrite(bus: EventBus, at: int, value: int) -> None:
    """Writes a word into the first ring's block, as only somebody else would."""
    with bus.path.open("r+b") as file:
        file.seek(PAGE + at)
        file.write(struct.pack("<Q", value))


# Rates and lag


def test_rates_are_of_the_time_between_two_samples(make_bus: BusMaker, clock: Clock) -> None:
    bus = make_bus(2)
    with watch(bus, clock) as watching, bus.producer(0) as producer, Peer(bus) as other:
        other.ask(claim_consumer)
        assert [producer.emit(each) for each in events(1, 5)] == 5 * [True]
        first = watching.sample()
        assert first.seconds is None
        assert sound(first).rates is None
        assert sound(first).stats.lag == 5

        assert other.ask(drain, 3) == [1, 2, 3]
        assert sum(producer.emit(each) for each in events(6, 30)) == 14
        clock.now += 0.5
        second = watching.sample()
        assert second.seconds == 0.5
        assert rates(second) == (28.0, 6.0, 22.0)
        assert rates(second, 1) == (0.0, 0.0, 0.0)
        assert sound(second).stats.lag == 16
        assert sound(second).stats == bus.stats()[0]
        assert sound(second).stats.consumer_pid == other.pid

        clock.now += 2
        third = watching.sample()
        assert (third.seconds, rates(third)) == (2.0, (0.0, 0.0, 0.0))


def test_without_elapsed_time_there_are_no_rates(bus: EventBus, clock: Clock) -> None:
    with watch(bus, clock) as watching:
        watching.sample()
        sample = watching.sample()
        assert sample.seconds is None
        assert sound(sample).rates is None


def test_leased_and_dropped_events_are_not_lag(bus: EventBus, clock: Clock) -> None:
    with watch(bus, clock) as watching, bus.producer(0) as producer, bus.consumer(0) as consumer:
        assert sum(producer.emit(each) for each in events(1, 20)) == 16
        with consumer.lease(6):
            ring = sound(watching.sample())
            assert (ring.stats.lag, ring.stats.consumer.held, ring.stats.producer.dropped) == (10, 6, 4)
            assert ring.stats.producer.slots_in_use == 16
        ring = sound(watching.sample())
        assert (ring.stats.lag, ring.stats.consumer.held) == (10, 0)


def test_redelivered_events_are_lag_again_and_count_in_the_rate_out(bus: EventBus, clock: Clock) -> None:
    with watch(bus, clock) as watching, bus.producer(0) as producer:
        assert all(producer.emit(each) for each in events(1, 12))
        with Peer(bus) as consumer:
            consumer.ask(claim_consumer)
            assert consumer.ask(lease, 5) == [1, 2, 3, 4, 5]
            first = watching.sample()
            assert sound(first).stats.lag == 7
            consumer.kill()
        clock.now += 1
        second = watching.sample()
        assert sound(second).stats.consumer_pid is None
        # Held by the dead: until somebody succeeds it nobody can have it.
        assert (sound(second).stats.lag, sound(second).stats.consumer.held) == (7, 5)
        assert rates(second) == (0.0, 0.0, 0.0)
        with bus.consumer(0) as successor:
            clock.now += 1
            third = watching.sample()
            assert sound(third).stats.consumer.received == 0
            assert (sound(third).stats.lag, rates(third)) == (12, (0.0, 0.0, 0.0))
            assert len(successor.drain()) == 12
            clock.now += 1
            assert rates(watching.sample()) == (0.0, 12.0, 0.0)


def test_a_successor_that_takes_over_between_two_samples_takes_what_it_takes(bus: EventBus, clock: Clock) -> None:
    with watch(bus, clock) as watching, bus.producer(0) as producer:
        assert all(producer.emit(each) for each in events(1, 12))
        with Peer(bus) as consumer:
            consumer.ask(claim_consumer)
            assert consumer.ask(lease, 5) == [1, 2, 3, 4, 5]
            watching.sample()
            consumer.kill()
        with bus.consumer(0) as successor:
            assert len(successor.drain(8)) == 8
        clock.now += 1
        sample = watching.sample()
        # It received 5 before and 8 now, of which 5 again.
        assert (sound(sample).stats.lag, rates(sample)) == (4, (0.0, 8.0, 0.0))


def test_a_sample_in_the_middle_of_a_succession_gives_no_negative_rate(bus: EventBus) -> None:
    [before] = bus.stats()
    taken = dataclasses.replace(before, consumer=dataclasses.replace(before.consumer, received=10))
    counted = dataclasses.replace(taken, consumer=dataclasses.replace(taken.consumer, redelivered=4))
    done = dataclasses.replace(counted, consumer=dataclasses.replace(counted.consumer, received=6))

    def received(one: RingStats, other: RingStats) -> float:
        return Rates.between(one, other, 1.0).received

    assert received(taken, done) == 0.0
    assert received(counted, done) == 0.0
    assert received(before, taken) == 10.0


def test_a_producers_successor_continues_the_same_counts(bus: EventBus, clock: Clock) -> None:
    with watch(bus, clock) as watching:
        with Peer(bus) as first:
            first.ask(claim_producer)
            assert all(first.ask(emit, 1, 4))
            first.kill()
        watching.sample()
        with Peer(bus) as second:
            second.ask(claim_producer)
            assert all(second.ask(emit, 5, 7))
            clock.now += 1
            sample = watching.sample()
            assert rates(sample) == (3.0, 0.0, 0.0)
            assert (sound(sample).stats.producer_pid, sound(sample).stats.producer_claims) == (second.pid, 2)


def test_a_sample_claims_and_changes_nothing(bus: EventBus, clock: Clock) -> None:
    with bus.producer(0) as producer, bus.consumer(0) as consumer:
        assert all(producer.emit(each) for each in events(1, 3))
        before = bus.path.read_bytes()
        with watch(bus, clock) as watching:
            for _ in range(3):
                watching.sample()
        assert bus.path.read_bytes() == before
        assert consumer.drain().sequence.tolist() == [1, 2, 3]


# Corrupt rings


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        (PUBLISHED_AT, 2**40, "published position"),
        (TAKEN_AT, 17, "taken position 17: is not within"),
        (TAKEN_AT, 2**64 - 1, "taken position"),
    ],
)
def test_a_corrupt_ring_is_reported_and_the_others_continue(
    make_bus: BusMaker, clock: Clock, at: int, value: int, said: str
) -> None:
    bus = make_bus(2)
    with watch(bus, clock) as watching, bus.producer(1) as producer, bus.producer(0) as first:
        with bus.consumer(0) as consumer:
            assert all(first.emit(each) for each in events(1, 16))
            assert len(consumer.drain()) == 16
        watching.sample()
        overwrite(bus, at, value)
        assert all(producer.emit(each) for each in events(1, 4))
        clock.now += 1
        sample = watching.sample()
        corrupt = sample.rings[0]
        assert isinstance(corrupt, CorruptRing)
        assert corrupt.core_id == 0
        assert f"core 0: {said}" in corrupt.error
        assert rates(sample, 1) == (4.0, 0.0, 0.0)
        # Should it come to be what a ring may hold, its rates begin again.
        overwrite(bus, at, 16)
        clock.now += 1
        assert sound(watching.sample()).rates is None


def test_a_ring_cannot_have_more_to_take_than_it_has_slots(bus: EventBus, clock: Clock) -> None:
    with bus.producer(0) as producer, bus.consumer(0) as consumer, watch(bus, clock) as watching:
        for first in (1, 17):
            assert all(producer.emit(each) for each in events(first, first + 15))
            if first == 1:
                assert len(consumer.drain()) == 16
        assert sound(watching.sample()).stats.lag == 16
        overwrite(bus, TAKEN_AT, 15)
        [ring] = watching.sample().rings
        assert isinstance(ring, CorruptRing)
        assert "taken position 15: is not within" in ring.error


def test_the_places_that_were_overwritten_are_those(bus: EventBus) -> None:
    with bus.producer(0) as producer, bus.consumer(0) as consumer:
        assert all(producer.emit(each) for each in events(1, 9))
        assert len(consumer.drain(4)) == 4
        content = bus.path.read_bytes()
    assert struct.unpack_from("<Q", content, PAGE + PUBLISHED_AT) == (9,)
    assert struct.unpack_from("<Q", content, PAGE + TAKEN_AT) == (4,)


# The name


def test_it_stays_with_a_bus_that_was_unlinked(bus: EventBus, clock: Clock) -> None:
    with watch(bus, clock) as watching, bus.producer(0) as producer:
        assert watching.sample().is_linked
        bus.unlink()
        assert all(producer.emit(each) for each in events(1, 3))
        clock.now += 1
        sample = watching.sample()
        assert not sample.is_linked
        assert (sample.incarnation, rates(sample)) == (1, (3.0, 0.0, 0.0))


def test_it_continues_with_the_bus_that_is_created_again(make_bus: BusMaker, clock: Clock) -> None:
    old = make_bus()
    with watch(old, clock) as watching:
        with old.producer(0) as producer:
            assert all(producer.emit(each) for each in events(1, 9))
        watching.sample()
        old.unlink()
        clock.now += 1
        assert not watching.sample().is_linked
        new = make_bus(3, 32, name=old.name)
        assert (old.is_linked, new.is_linked) == (False, True)
        with new.producer(2) as producer:
            assert producer.emit(events(1, 1)[0])
            clock.now += 1
            first = watching.sample()
            assert (first.incarnation, first.is_linked, first.seconds) == (2, True, None)
            assert (first.bus.num_cores, first.bus.capacity) == (3, 32)
            assert [sound(first, core_id).rates for core_id in range(3)] == 3 * [None]
            assert all(producer.emit(each) for each in events(2, 7))
            clock.now += 1
            second = watching.sample()
            assert (second.incarnation, rates(second, 2)) == (2, (6.0, 0.0, 0.0))


def test_another_file_of_the_name_is_refused(bus: EventBus, clock: Clock) -> None:
    with watch(bus, clock) as watching:
        watching.sample()
        bus.unlink()
        bus.path.write_bytes(b"not a bus\n" * 1000)
        with pytest.raises(LayoutError, match="is not a bus"):
            watching.sample()


def test_another_user_s_file_of_the_name_is_refused(bus: EventBus, clock: Clock, tmp_path: Path) -> None:
    with watch(bus, clock) as watching:
        watching.sample()
        bus.unlink()
        bus.path.touch()
        with another_users(bus.path), pytest.raises(PermissionError, match="belongs to user"):
            watching.sample()


def test_an_end_that_was_closed_has_no_holder(bus: EventBus, clock: Clock) -> None:
    with watch(bus, clock) as watching, Peer(bus) as consumer:
        assert sound(watching.sample()).stats.consumer_claims == 0
        consumer.ask(claim_consumer)
        assert sound(watching.sample()).stats.consumer_pid == consumer.pid
        consumer.ask(close_consumer)
        stats = sound(watching.sample()).stats
        assert (stats.consumer_pid, stats.consumer_claims) == (None, 1)
