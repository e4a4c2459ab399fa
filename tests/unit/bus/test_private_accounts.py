"""How an event is numbered and counted: sequences, utilization, and the statistics of both ends."""

from __future__ import annotations

import dataclasses

import pytest

from nodedb_ring import ConsumerStats, EventBatch, ProducerStats
from tests.unit.builders import batch, event, fill, ring, sized

# numbers


def test_next_sequence_is_the_number_after_the_highest_tried() -> None:
    producer, _ = ring(2)
    assert (producer.emitted_sequence, producer.next_sequence) == (None, 1)
    assert producer.emit(event(producer.next_sequence))
    assert (producer.emitted_sequence, producer.next_sequence) == (1, 2)
    assert producer.emit(event(10))
    assert producer.next_sequence == 11


def test_a_dropped_event_uses_up_its_number() -> None:
    producer, _ = ring(1)
    assert producer.emit(event(1))
    assert not producer.emit(event(2))
    assert (producer.emitted_sequence, producer.next_sequence) == (2, 3)


def test_emitted_sequence_is_a_maximum() -> None:
    producer, _ = ring()
    for n, highest in ((5, 5), (3, 5), (6, 6), (0, 6)):
        assert producer.emit(event(n))
        assert producer.emitted_sequence == highest
    assert producer.emit_batch(EventBatch.from_events([event(9), event(2)])) == 2
    assert producer.emitted_sequence == 9


def test_nothing_tried_yet_is_a_separate_state() -> None:
    producer, _ = ring()
    before = [producer.emitted_sequence, producer.stats().emitted_sequence, producer.next_sequence]
    assert producer.emit(event(0))
    after = [producer.emitted_sequence, producer.stats().emitted_sequence, producer.next_sequence]
    assert (before, after) == ([None, None, 1], [0, 0, 1])


# utilization


def test_utilization_is_the_fuller_of_slots_and_arena_in_whole_percent() -> None:
    producer, consumer = ring(8, arena_bytes=200)
    assert producer.utilization == 0
    assert producer.emit(sized(1, 0))
    assert producer.utilization == 12  # 1 of 8 slots
    assert producer.emit(sized(2, 199))
    assert producer.utilization == 99  # 199 of 200 bytes
    assert producer.ring.slots_in_use == 2
    assert producer.ring.bytes_in_use == 199
    stats = producer.stats()
    assert (stats.slots_in_use, stats.bytes_in_use) == (2, 199)
    assert consumer.try_recv() == sized(1, 0)
    assert producer.utilization == 99
    assert consumer.try_recv() == sized(2, 199)
    assert producer.utilization == 0


@pytest.mark.parametrize("capacity", [1, 2, 64])
def test_utilization_goes_from_0_to_100(capacity: int) -> None:
    producer, _ = ring(capacity)
    seen = [producer.utilization]
    for n in range(1, capacity + 1):
        assert producer.emit(event(n))
        seen.append(producer.utilization)
    assert seen == [100 * n // capacity for n in range(capacity + 1)]
    assert not producer.emit(event(capacity + 1))
    assert producer.utilization == 100


def test_leased_rows_are_in_use() -> None:
    producer, consumer = ring(4)
    fill(producer, 1, 2)
    with consumer.lease():
        assert producer.utilization == 50
    assert producer.utilization == 0


# accounts


def test_every_attempt_is_accounted_for() -> None:
    producer, consumer = ring(4)
    tried = 0
    for n in range(1, 100):
        producer.emit(event(n))
        tried += 1
        if n % 7 == 0:
            tried += 5
            producer.emit_batch(batch(1000 + n, 1004 + n))
        if n % 5 == 0:
            consumer.drain(3)
        stats = producer.stats()
        assert stats.emitted + stats.dropped == tried
        assert stats.dropped == stats.dropped_full
        assert stats.emitted == consumer.stats().received + stats.slots_in_use
    assert producer.stats().dropped > 0


def test_fresh_accounts() -> None:
    producer, consumer = ring()
    assert producer.stats() == ProducerStats(
        emitted=0, dropped=0, dropped_full=0, dropped_disconnected=0, first_dropped_sequence=None,
        last_dropped_sequence=None, emitted_sequence=None, normal_transitions=0, throttle_transitions=0,
        suspend_transitions=0, slots_in_use=0, bytes_in_use=0, slots_high_water=0, bytes_high_water=0,
        high_water_mark=0,
    )  # fmt: skip
    assert consumer.stats() == ConsumerStats(received=0, batches=0, held=0, redelivered=0)


def test_first_and_last_sequence_dropped() -> None:
    producer, consumer = ring(1)
    assert producer.emit(event(1))
    for n in (5, 9, 7):
        assert not producer.emit(event(n))
    stats = producer.stats()
    assert (stats.first_dropped_sequence, stats.last_dropped_sequence) == (5, 7)
    consumer.drain()
    assert producer.emit(event(10))
    stats = producer.stats()
    assert (stats.first_dropped_sequence, stats.last_dropped_sequence, stats.dropped) == (5, 7, 3)


def test_high_water_marks() -> None:
    producer, consumer = ring(8, arena_bytes=100)
    assert producer.emit(sized(1, 10))
    assert producer.emit(sized(2, 20))
    assert producer.emit(sized(3, 5))
    consumer.drain()
    assert producer.emit(sized(4, 1))
    stats = producer.stats()
    assert (stats.slots_high_water, stats.bytes_high_water) == (3, 35)
    assert stats.high_water_mark == 37  # 3 of 8 slots
    consumer.drain()
    assert producer.emit(sized(5, 90))
    stats = producer.stats()
    assert (stats.slots_high_water, stats.bytes_high_water, stats.high_water_mark) == (3, 90, 90)
    assert (stats.slots_in_use, stats.bytes_in_use) == (1, 90)


def test_slots_have_a_high_water_mark_of_their_own() -> None:
    # Without payload: no byte count makes the producer measure.
    producer, consumer = ring(64)
    for most in (1, 2, 7, 20):
        for sequence in range(most):
            assert producer.emit(sized(sequence, 0))
        assert producer.stats().slots_high_water == most
        consumer.drain()
    assert producer.emit(sized(99, 0))
    assert producer.stats().slots_high_water == 20


def test_the_consumer_counts_what_it_received() -> None:
    producer, consumer = ring(16)
    fill(producer, 1, 10)
    consumer.drain(3)
    assert consumer.stats() == ConsumerStats(received=3, batches=1, held=0, redelivered=0)
    consumer.drain(3)
    consumer.try_recv()
    assert consumer.stats().received == 7
    with consumer.lease(2):
        assert consumer.stats() == ConsumerStats(received=9, batches=3, held=2, redelivered=0)
    consumer.drain()
    consumer.drain()
    with consumer.lease():
        pass
    assert consumer.stats() == ConsumerStats(received=10, batches=4, held=0, redelivered=0)


def test_stats_are_frozen_records() -> None:
    producer, consumer = ring()
    for record in (producer.stats(), consumer.stats()):
        name = dataclasses.fields(record)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, name, 1)
    assert producer.stats() == producer.stats()
