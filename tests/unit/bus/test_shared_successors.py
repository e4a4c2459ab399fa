"""When an end of a shared ring closes, is collected or dies, a successor continues where it ended."""

from __future__ import annotations

import random

import pytest

from nodedb_ring import EventBus, OwnershipError
from tests.unit.builders import event, events, fill, sequences, sized
from tests.unit.runners import in_thread
from tests.unit.shared_buses import (
    BusMaker,
    Held,
    Peer,
    claim_consumer,
    claim_producer,
    close_producer,
    drain,
    emit,
    lease,
    next_sequence,
    release,
)


def test_a_successor_producer_continues(bus: EventBus) -> None:
    consumer = bus.consumer(0)
    with Peer(bus) as first:
        first.ask(claim_producer)
        assert first.ask(next_sequence) == 1
        assert first.ask(emit, 1, 5) == [True] * 5
        first.kill()
    with Peer(bus) as second:
        second.ask(claim_producer)
        assert second.ask(next_sequence) == 6
        assert second.ask(emit, 6, 7) == [True] * 2
        second.ask(close_producer)
    third = bus.producer(0)
    assert (third.next_sequence, third.emitted_sequence) == (8, 7)
    fill(third, 8, 9)
    assert list(consumer.drain()) == events(1, 9)
    stats = third.stats()
    assert (stats.emitted, stats.dropped, stats.slots_high_water) == (9, 0, 9)


def test_the_numbers_of_dropped_events_are_not_used_again(bus: EventBus) -> None:
    with Peer(bus) as first:
        first.ask(claim_producer)
        assert first.ask(emit, 1, 20) == [True] * 16 + [False] * 4
        first.kill()
    successor = bus.producer(0)
    assert successor.next_sequence == 21
    stats = successor.stats()
    assert (stats.emitted, stats.dropped_full, stats.first_dropped_sequence, stats.last_dropped_sequence) == (
        16,
        4,
        17,
        20,
    )


def reserve_and_stay(held: Held, n: int) -> None:
    reservation = held.producer.reserve(n, 100)
    rows = reservation.__enter__()
    rows["op"] = 1
    held.others.append(reservation)


def test_an_open_reservation_dies_with_its_producer(bus: EventBus) -> None:
    consumer = bus.consumer(0)
    with Peer(bus) as first:
        first.ask(claim_producer)
        first.ask(emit, 1, 2)
        first.ask(reserve_and_stay, 5)
        first.kill()
    successor = bus.producer(0)
    assert successor.next_sequence == 3
    fill(successor, 3, 16)
    assert list(consumer.drain()) == events(1, 16)


def emit_sized(held: Held, first: int, last: int, size: int) -> list[bool]:
    return [held.producer.emit(sized(sequence, size)) for sequence in range(first, last + 1)]


@pytest.mark.parametrize("size", [1, 7, 60, 100, 250])
def test_payload_is_whole_across_successors(size: int, make_bus: BusMaker) -> None:
    # The arena holds two and a half of the largest events: laps begin and end everywhere in a producer's life.
    bus = make_bus(1, 8, arena_bytes=640)
    consumer = bus.consumer(0)
    held = consumer.lease()
    number, received = 1, 0
    for _ in range(8):
        with Peer(bus) as writer:
            writer.ask(claim_producer)
            assert writer.ask(next_sequence) == number
            reported = writer.ask(emit_sized, number, number + 4, size)
            writer.kill()
        lease = consumer.lease(2)
        held.release()
        held = lease
        emitted = [sized(number + at, size) for at, done in enumerate(reported) if done]
        assert list(lease.batch) + list(consumer.drain()) == emitted
        number += 5
        received += len(emitted)
    assert received >= 8


def test_a_successor_consumer_gets_what_waits(bus: EventBus) -> None:
    producer = bus.producer(0)
    fill(producer, 1, 5)
    with Peer(bus) as first:
        first.ask(claim_consumer)
        assert first.ask(drain, 2) == [1, 2]
        first.kill()
    successor = bus.consumer(0)
    assert successor.stats().redelivered == 0
    assert list(successor.drain()) == events(3, 5)
    fill(producer, 6, 6)
    assert successor.try_recv() == event(6)


def test_a_successor_consumer_gets_again_what_leases_held(bus: EventBus) -> None:
    producer = bus.producer(0)
    fill(producer, 1, 12)
    with Peer(bus) as first:
        first.ask(claim_consumer)
        for which in range(1, 10, 3):
            assert first.ask(lease, 3) == [which, which + 1, which + 2]
        first.ask(release, 1)  # 4 to 6
        assert first.ask(drain, 1) == [10]
        fill(producer, 13, 16)
        assert producer.utilization == 75
        first.kill()
    [stats] = bus.stats()
    assert (stats.consumer.received, stats.consumer.held) == (10, 6)
    successor = bus.consumer(0)
    assert list(successor.drain()) == events(1, 3) + events(7, 9) + events(11, 16)
    assert successor.stats().redelivered == bus.stats()[0].consumer.redelivered == 6
    assert successor.stats().held == 0
    assert producer.utilization == 0
    # Every slot serves again, round and round.
    for first_of in range(17, 17 + 64, 16):
        fill(producer, first_of, first_of + 15)
        assert list(successor.drain()) == events(first_of, first_of + 15)


def test_redelivered_counts_over_all_successors(bus: EventBus) -> None:
    fill(bus.producer(0), 1, 4)
    for _ in range(3):
        with Peer(bus) as one:
            one.ask(claim_consumer)
            assert one.ask(lease) == [1, 2, 3, 4]
            one.kill()
    successor = bus.consumer(0)
    assert successor.stats().redelivered == 12
    assert list(successor.drain()) == events(1, 4)
    assert producer_room(bus) == 0


def producer_room(bus: EventBus) -> int:
    return bus.stats()[0].producer.slots_in_use


def test_a_successor_of_a_successor_gets_again_what_is_held_then(bus: EventBus) -> None:
    producer = bus.producer(0)
    fill(producer, 1, 6)
    with Peer(bus) as one:
        one.ask(claim_consumer)
        one.ask(lease, 2)
        one.ask(lease, 2)
        one.ask(release, 0)
        one.kill()
    with Peer(bus) as two:
        two.ask(claim_consumer)
        assert two.ask(lease, 1) == [3]
        # What is delivered again need not be contiguous in the store, so a lease may be shorter than asked.
        assert two.ask(lease, 1) == [4]
        assert two.ask(drain, 1) == [5]
        two.ask(release, 0)
        two.kill()
    successor = bus.consumer(0)
    assert list(successor.drain()) == [event(4), event(6)]
    assert successor.stats().redelivered == 3


@pytest.mark.parametrize("seed", range(8))
def test_any_history_of_leases_is_redelivered_exactly(seed: int, make_bus: BusMaker) -> None:
    chance = random.Random(seed)
    capacity = chance.choice([1, 2, 4, 8, 16])
    bus = make_bus(1, capacity, arena_bytes=chance.choice([200, 1000]))
    producer = bus.producer(0)
    outstanding: list[int] = []  # emitted and not released, in order of position
    redelivered = 0
    number = 1
    for _ in range(5):
        with Peer(bus) as one:
            one.ask(claim_consumer)
            held: list[list[int]] = []
            waiting = list(outstanding)
            for _ in range(chance.randrange(25)):
                choice = chance.random()
                if choice < 0.4:
                    if producer.emit(sized(number, chance.randrange(80))):
                        outstanding.append(number)
                        waiting.append(number)
                    number += 1
                elif choice < 0.65:
                    got = one.ask(lease, chance.randrange(1, 5))
                    assert got == waiting[: len(got)]
                    assert bool(got) == bool(waiting)
                    waiting = waiting[len(got) :]
                    held.append(got)
                elif choice < 0.9 and held:
                    which = chance.randrange(len(held))
                    one.ask(release, which)
                    outstanding = [each for each in outstanding if each not in held[which]]
                    del held[which]
                elif choice >= 0.9:
                    got = one.ask(drain, chance.randrange(1, 3))
                    assert got == waiting[: len(got)]
                    waiting = waiting[len(got) :]
                    outstanding = [each for each in outstanding if each not in got]
            redelivered += sum(map(len, held))
            one.kill()
    consumer = bus.consumer(0)
    assert consumer.stats().redelivered == redelivered
    batch = consumer.drain()
    assert sequences(batch) == outstanding
    for each in batch:
        assert each == sized(each.sequence, len(each.new_value or b""))
    assert producer.utilization == 0


def test_both_ends_may_die_and_be_succeeded(bus: EventBus) -> None:
    with Peer(bus) as one, Peer(bus) as two:
        one.ask(claim_producer)
        two.ask(claim_consumer)
        assert one.ask(emit, 1, 8) == [True] * 8
        assert two.ask(lease, 3) == [1, 2, 3]
        one.kill()
        two.kill()
    with Peer(bus) as one, Peer(bus) as two:
        two.ask(claim_consumer)
        one.ask(claim_producer)
        assert one.ask(next_sequence) == 9
        assert one.ask(emit, 9, 16) == [True] * 8
        assert two.ask(drain) == list(range(1, 17))
        assert bus.stats()[0].consumer.redelivered == 3


def test_one_process_may_hold_both_ends_and_die(bus: EventBus) -> None:
    with Peer(bus) as one:
        one.ask(claim_producer)
        one.ask(claim_consumer)
        one.ask(emit, 1, 4)
        assert one.ask(lease, 2) == [1, 2]
        one.kill()
    assert bus.producer(0).next_sequence == 5
    assert list(bus.consumer(0).drain()) == events(1, 4)


def test_a_successor_belongs_to_its_own_first_thread(bus: EventBus) -> None:
    first = bus.producer(0)
    fill(first, 1, 1)
    first.close()
    second = bus.producer(0)
    assert in_thread(lambda: second.emit(event(2)))
    with pytest.raises(OwnershipError):
        second.emit(event(3))
    assert list(bus.consumer(0).drain()) == events(1, 2)
