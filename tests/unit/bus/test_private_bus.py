"""create_event_bus, emit, emit_batch, try_recv, drain: what fits, in which order, and how it is counted."""

from __future__ import annotations

import dataclasses
import gc
from typing import Any

import pytest

from nodedb_ring import (
    DEFAULT_EVENT_BUS_CAPACITY,
    CapacityError,
    ConsumerStats,
    EventBatch,
    EventConsumer,
    EventProducer,
    EventTooLargeError,
    ProducerStats,
    create_event_bus,
)
from tests.unit.builders import batch, event, events, fill, ring, sequences, sized
from tests.unit.runners import resident_bytes

KIB = 1024


# making a bus


def test_a_bus_is_an_end_of_each_kind_for_each_core() -> None:
    producers, consumers = create_event_bus(3, 8)
    assert [type(end) for end in producers] == [EventProducer] * 3
    assert [type(end) for end in consumers] == [EventConsumer] * 3
    assert [end.core_id for end in producers] == [end.core_id for end in consumers] == [0, 1, 2]


def test_no_ring_is_shared_by_two_cores() -> None:
    producers, consumers = create_event_bus(3, 4)
    for core, producer in enumerate(producers):
        fill(producer, 10 * core + 1, 10 * core + 2)
    assert [sequences(consumer.drain()) for consumer in consumers] == [[1, 2], [11, 12], [21, 22]]


def test_one_core_trouble_never_shows_on_another() -> None:
    producers, consumers = create_event_bus(3, 4)
    fill(producers[0], 1, 4)
    assert not producers[0].emit(event(5))
    consumers[1].close()
    assert not producers[1].emit(event(1))
    assert producers[2].utilization == 0
    assert not producers[2].is_consumer_disconnected
    assert not producers[0].is_consumer_disconnected
    assert producers[2].stats().dropped == 0
    assert producers[2].pressure_state.name == "NORMAL"
    producers[2].close()
    assert not consumers[0].is_producer_disconnected
    assert sequences(consumers[0].drain()) == [1, 2, 3, 4]


def test_the_default_capacity() -> None:
    assert DEFAULT_EVENT_BUS_CAPACITY == 65_536
    [producer], [consumer] = create_event_bus(1)
    assert producer.capacity == 65_536
    assert producer.ring.arena_bytes == 65_536 * 256
    del consumer


@pytest.mark.parametrize(
    ("asked", "given"), [(1, 1), (2, 2), (3, 4), (5, 8), (64, 64), (65, 128), (1000, 1024), (1025, 2048)]
)
def test_a_capacity_is_rounded_up_to_a_power_of_two(asked: int, given: int) -> None:
    producer, _ = ring(asked)
    assert producer.capacity == given


@pytest.mark.parametrize("capacity", [1, 2, 3, 16, 1000])
def test_every_slot_is_usable(capacity: int) -> None:
    producer, consumer = ring(capacity)
    slots = producer.capacity
    for first in (1, slots + 1, 2 * slots + 1):
        fill(producer, first, first + slots - 1)
        assert producer.utilization == 100
        assert not producer.emit(event(first + slots))
        assert sequences(consumer.drain(2 * slots)) == list(range(first, first + slots))


@pytest.mark.parametrize(("capacity", "arena"), [(1, 64 * KIB), (256, 64 * KIB), (512, 128 * KIB), (1000, 256 * KIB)])
def test_the_default_arena_is_256_bytes_a_slot_and_at_least_64_kib(capacity: int, arena: int) -> None:
    producer, consumer = ring(capacity)
    assert producer.ring.arena_bytes == consumer.ring.arena_bytes == arena


def test_arena_bytes_sets_the_payload_room() -> None:
    producer, _ = ring(8, arena_bytes=100)
    assert producer.ring.arena_bytes == 100
    assert producer.emit(sized(1, 60))
    assert not producer.emit(sized(2, 41))
    assert producer.emit(sized(3, 40))


@pytest.mark.parametrize("capacity", [0, -1, -(2**70), 2**32 + 1, 2**62, 2**63, 2**64, 2**200])
def test_a_capacity_that_cannot_be(capacity: int) -> None:
    with pytest.raises(CapacityError, match=rf"capacity {capacity}:") as refused:
        create_event_bus(1, capacity)
    assert isinstance(refused.value, ValueError)


@pytest.mark.parametrize("cores", [0, -1, -(2**70), 2**16 + 1, 2**63, 2**200])
def test_a_number_of_cores_that_cannot_be(cores: int) -> None:
    with pytest.raises(CapacityError, match=rf"num_cores {cores}:") as refused:
        create_event_bus(cores)
    assert isinstance(refused.value, ValueError)


@pytest.mark.parametrize("arena", [0, -1, 2**32, 2**64, 2**200])
def test_an_arena_that_cannot_be(arena: int) -> None:
    with pytest.raises(CapacityError, match=rf"arena_bytes {arena}:") as refused:
        create_event_bus(1, 8, arena_bytes=arena)
    assert isinstance(refused.value, ValueError)


def test_a_default_arena_that_cannot_be() -> None:
    # 256 bytes a slot would be 2**32: the message names the way out.
    with pytest.raises(CapacityError, match=r"4294967296.*arena_bytes"):
        create_event_bus(1, 2**24)


@pytest.mark.parametrize("wrong", [1.0, "8", None, True])
def test_sizes_are_ints(wrong: Any) -> None:
    with pytest.raises(TypeError, match=repr(wrong)):
        create_event_bus(wrong)
    with pytest.raises(TypeError, match=repr(wrong)):
        create_event_bus(1, wrong)
    if wrong is not None:
        with pytest.raises(TypeError, match=repr(wrong)):
            create_event_bus(1, 8, arena_bytes=wrong)


def test_all_of_the_memory_is_touched_at_creation() -> None:
    gc.collect()  # what earlier tests left must not go meanwhile
    before = resident_bytes()
    ends = ring(4096, arena_bytes=16 * KIB * KIB)
    touched = resident_bytes() - before
    assert touched >= 16 * KIB * KIB
    del ends


# emit and receive, one by one


def test_emit_says_whether_it_enqueued() -> None:
    producer, consumer = ring(2)
    assert [producer.emit(event(n)) for n in (1, 2, 3, 4)] == [True, True, False, False]
    assert consumer.try_recv() == event(1)
    assert producer.emit(event(5)) is True
    assert [consumer.try_recv() for _ in range(3)] == [event(2), event(5), None]


def test_events_come_in_order() -> None:
    producer, consumer = ring(4)
    seen: list[int] = []
    for n in range(1, 1000):
        assert producer.emit(event(n))
        if n % 3 == 0:
            while (got := consumer.try_recv()) is not None:
                seen.append(got.sequence)
    assert seen == list(range(1, 1000))


def test_try_recv_of_an_empty_ring() -> None:
    _, consumer = ring()
    assert consumer.try_recv() is None


def test_a_heartbeat_passes_like_any_event() -> None:
    producer, consumer = ring()
    beat = event(1, op=6, collection="", row_id="", lsn=0)
    assert producer.emit(beat)
    assert consumer.try_recv() == beat


@pytest.mark.parametrize("made", [None, "event", {"sequence": 1}, 7])
def test_emit_takes_events_only(made: Any) -> None:
    producer, consumer = ring()
    with pytest.raises(TypeError):
        producer.emit(made)
    assert consumer.try_recv() is None
    assert producer.stats().emitted == 0


def test_the_ring_carries_any_sequence() -> None:
    producer, consumer = ring()
    numbers = [7, 0, 2**64 - 1, 3, 3]
    assert [producer.emit(event(n)) for n in numbers] == [True] * 5
    assert sequences(consumer.drain()) == numbers


# drain


def test_drain_takes_at_most_max_events() -> None:
    producer, consumer = ring(16)
    fill(producer, 1, 10)
    assert sequences(consumer.drain(4)) == [1, 2, 3, 4]
    assert sequences(consumer.drain(max_events=1)) == [5]
    assert sequences(consumer.drain(6)) == [6, 7, 8, 9, 10]
    assert len(consumer.drain(1)) == 0


def test_drain_takes_1024_by_default() -> None:
    producer, consumer = ring(4096)
    fill(producer, 1, 1500)
    assert len(consumer.drain()) == 1024
    assert len(consumer.drain()) == 476


@pytest.mark.parametrize("wrong", [0, -1])
def test_max_events_is_at_least_1(wrong: int) -> None:
    producer, consumer = ring()
    fill(producer, 1, 2)
    for call in (consumer.drain, consumer.lease):
        with pytest.raises(ValueError, match=f"max_events {wrong}:"):
            call(wrong)
    assert sequences(consumer.drain()) == [1, 2]


def test_a_drain_over_the_end_of_the_ring_is_one_batch() -> None:
    producer, consumer = ring(8, arena_bytes=64)
    for first in range(1, 400, 5):
        fresh = [event(n, collection="", row_id="", new_value=str(n).encode()) for n in range(first, first + 5)]
        assert all(producer.emit(each) for each in fresh)
        assert list(consumer.drain()) == fresh


# emit_batch


def test_emit_batch_emits_in_order_and_says_how_many() -> None:
    producer, consumer = ring(16)
    assert producer.emit_batch(batch(1, 10)) == 10
    assert producer.emit_batch(batch(1, 0)) == 0
    assert list(consumer.drain()) == events(1, 10)


def test_emit_batch_enqueues_the_prefix_that_has_slots() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 3)
    assert producer.emit_batch(batch(4, 12)) == 5
    stats = producer.stats()
    assert (stats.emitted, stats.dropped, stats.dropped_full) == (8, 4, 4)
    assert (stats.first_dropped_sequence, stats.last_dropped_sequence) == (9, 12)
    assert producer.emitted_sequence == 12
    assert sequences(consumer.drain()) == list(range(1, 9))


def test_the_prefix_ends_at_the_first_event_without_payload_room() -> None:
    producer, consumer = ring(16, arena_bytes=100)
    # The fourth lacks room; the fifth would have it, and is dropped all the same: a prefix.
    made = EventBatch.from_events([sized(1, 30), sized(2, 30), sized(3, 30), sized(4, 11), sized(5, 1)])
    assert producer.emit_batch(made) == 3
    stats = producer.stats()
    assert (stats.dropped_full, stats.first_dropped_sequence, stats.last_dropped_sequence) == (2, 4, 5)
    assert list(consumer.drain()) == list(made)[:3]
    assert producer.emit_batch(made[3:]) == 2


def test_a_retry_counts_again() -> None:
    producer, _ = ring(2)
    assert producer.emit_batch(batch(1, 4)) == 2
    assert producer.emit_batch(batch(3, 4)) == 0
    assert not producer.emit(event(4))
    assert producer.stats().dropped == 2 + 2 + 1


def test_emit_batch_larger_than_the_ring() -> None:
    producer, consumer = ring(1024)
    assert producer.emit_batch(batch(1, 5000)) == 1024
    assert producer.stats().dropped == 5000 - 1024
    assert sequences(consumer.drain(5000)) == list(range(1, 1025))


def test_emit_batch_of_slices_and_masks() -> None:
    producer, consumer = ring(64)
    whole = batch(1, 20)
    for part in (whole[5:10], whole[::2], whole[whole.sequence > 17]):
        assert producer.emit_batch(part) == len(part)
        assert list(consumer.drain()) == list(part)


def test_emit_batch_of_a_lease() -> None:
    one, first = ring(16)
    other, second = ring(16)
    fill(one, 1, 10)
    with first.lease() as leased:
        assert other.emit_batch(leased) == 10
        assert other.emit_batch(leased[8:]) == 2
    assert list(second.drain()) == [*events(1, 10), *events(9, 10)]


def test_emit_batch_takes_batches_only() -> None:
    producer, _ = ring()
    wrong: Any = [event()]
    with pytest.raises(TypeError, match="EventBatch"):
        producer.emit_batch(wrong)


@pytest.mark.parametrize("size", [1, 2, 7, 64, 255, 256, 257, 1000])
def test_emit_batch_of_any_size(size: int) -> None:
    producer, consumer = ring(256, arena_bytes=9000)
    expected: list[int] = []
    seen: list[int] = []
    for first in range(1, 3001, size):
        done = producer.emit_batch(batch(first, first + size - 1))
        expected += range(first, first + done)
        seen += sequences(consumer.drain(4 * size))
    assert seen == expected
    assert seen


# too large is not a full ring


def test_an_event_that_could_never_fit_is_a_value_error() -> None:
    producer, consumer = ring(4, arena_bytes=100)
    with pytest.raises(EventTooLargeError, match=r"\b101\b.*\b100\b.*arena_bytes") as refused:
        producer.emit(sized(1, 101))
    assert isinstance(refused.value, ValueError)
    assert producer.emitted_sequence is None
    assert producer.stats().dropped == 0
    assert producer.emit(sized(1, 100))
    assert consumer.try_recv() == sized(1, 100)


def test_a_full_ring_does_not_hide_that_it_is_too_large() -> None:
    producer, _ = ring(1, arena_bytes=100)
    assert producer.emit(sized(1, 100))
    with pytest.raises(EventTooLargeError):
        producer.emit(sized(2, 101))


def test_a_batch_with_an_event_too_large_is_refused_whole() -> None:
    producer, consumer = ring(8, arena_bytes=100)
    with pytest.raises(EventTooLargeError, match=r"\b101\b"):
        producer.emit_batch(EventBatch.from_events([sized(1, 5), sized(2, 101), sized(3, 5)]))
    assert producer.stats().emitted == 0
    assert producer.emitted_sequence is None
    assert len(consumer.drain()) == 0
    assert producer.emit_batch(EventBatch.from_events([sized(1, 50), sized(2, 50)])) == 2


def test_events_that_share_payload_each_need_their_own() -> None:
    # 4 fields over the same 30 bytes: 120 in the arena.
    one: Any = EventBatch.from_columns(sequence=[1], collection="", op=1, row_id="", lsn=0, new_value=b"x" * 30)
    rows = one.records.copy()
    for name in ("collection", "row_id", "old_value"):
        rows[f"{name}_offset"], rows[f"{name}_length"] = rows["new_value_offset"], 30
    made = EventBatch(rows, one.payload)
    producer, consumer = ring(8, arena_bytes=119)
    with pytest.raises(EventTooLargeError, match=r"\b120\b"):
        producer.emit_batch(made)
    producer, consumer = ring(8, arena_bytes=120)
    assert producer.emit_batch(made) == 1
    assert list(consumer.drain()) == list(made)


# the arena


def test_the_whole_arena_serves_whenever_nothing_is_outstanding() -> None:
    producer, consumer = ring(8, arena_bytes=1000)
    for n in range(1, 500):
        size = 1000 if n % 2 else n
        assert producer.emit(sized(n, size))
        assert producer.ring.bytes_in_use == size
        assert consumer.try_recv() == sized(n, size)
        assert producer.ring.bytes_in_use == 0


def test_when_nothing_is_outstanding_the_arena_starts_again_at_its_beginning() -> None:
    producer, consumer = ring(8, arena_bytes=100)
    for n in range(1, 50):
        assert producer.emit(sized(n, 60))
        with consumer.lease() as leased:
            assert int(leased.records["new_value_offset"][0]) == 0
    producer, consumer = ring(1024)
    for first in range(1, 5000, 8):
        assert producer.emit_batch(batch(first, first + 7)) == 8
        with consumer.lease() as leased:
            assert len(leased) == 8
            assert int(leased.records["collection_offset"][0]) == 0


def test_a_span_never_wraps_and_nothing_is_overwritten() -> None:
    producer, consumer = ring(8, arena_bytes=100)
    assert producer.emit(sized(1, 40))
    assert producer.emit(sized(2, 40))
    assert consumer.try_recv() == sized(1, 40)
    # 20 bytes are left at the end, 40 at the beginning: it goes where it is contiguous.
    assert producer.emit(sized(3, 40))
    assert not producer.emit(sized(4, 1))
    with consumer.lease() as two:
        assert [int(start) for start in two.records["new_value_offset"]] == [40, 0]
        assert list(two) == [sized(2, 40), sized(3, 40)]
    assert producer.emit(sized(5, 100))


def test_free_but_not_contiguous_room_is_not_enough() -> None:
    producer, consumer = ring(8, arena_bytes=100)
    for n in (1, 2):
        assert producer.emit(sized(n, 30))
    assert consumer.try_recv() == sized(1, 30)
    # 40 bytes at the end and 30 at the beginning, but not 50 anywhere.
    assert not producer.emit(sized(3, 50))
    assert producer.emit(sized(4, 40))
    assert producer.emit(sized(5, 30))
    assert list(consumer.drain()) == [sized(2, 30), sized(4, 40), sized(5, 30)]


def test_events_without_payload_need_slots_only() -> None:
    producer, consumer = ring(8, arena_bytes=1)
    nothing = [event(n, collection="", row_id="") for n in range(1, 9)]
    assert all(producer.emit(each) for each in nothing)
    assert producer.ring.bytes_in_use == 0
    assert list(consumer.drain()) == nothing


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


# closing


def test_ends_are_context_managers() -> None:
    producer, consumer = ring()
    with producer as same, consumer as same_too:
        assert same is producer
        assert same_too is consumer
        assert producer.emit(event())
    assert producer.is_consumer_disconnected
    assert not consumer.is_producer_disconnected  # one event is left, and was never taken
    with pytest.raises(ValueError, match="producer of core 0: is closed"):
        producer.emit(event(2))


def test_close_may_be_repeated() -> None:
    producer, consumer = ring()
    for _ in range(3):
        producer.close()
        consumer.close()


def test_properties_and_stats_serve_after_close() -> None:
    producer, consumer = ring(4)
    fill(producer, 1, 2)
    producer.close()
    assert sequences(consumer.drain()) == [1, 2]
    consumer.close()
    assert (producer.capacity, producer.core_id, producer.utilization) == (4, 0, 0)
    assert producer.stats().emitted == 2
    assert consumer.stats().received == 2
    assert producer.next_sequence == 3


@pytest.mark.parametrize("end", [0, 1])
def test_ends_do_not_pickle(end: int) -> None:
    import pickle

    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(ring()[end])
