"""create_event_bus, emit, try_recv, drain and close: what a bus of this process is made of, and how events pass it."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from nodedb_ring import DEFAULT_EVENT_BUS_CAPACITY, CapacityError, EventConsumer, EventProducer, create_event_bus
from tests.unit.builders import event, fill, ring, sequences, sized
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
