"""The statistics of a shared bus, which any process may read at any time."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from nodedb_ring import EventBus, PressureState, RingStats
from tests.unit.builders import batch
from tests.unit.shared_buses import BusMaker, Held, Peer, claim_consumer, claim_producer, close_producer, drain, emit


def test_stats_of_an_unused_bus(make_bus: BusMaker) -> None:
    stats = make_bus(2).stats()
    assert isinstance(stats, tuple)
    assert [one.core_id for one in stats] == [0, 1]
    for one in stats:
        assert isinstance(one, RingStats)
        assert (one.producer_pid, one.consumer_pid, one.producer_claims, one.consumer_claims) == (None, None, 0, 0)
        assert (one.pressure_state, one.utilization) == (PressureState.NORMAL, 0)
        assert (one.producer.emitted, one.producer.dropped, one.producer.emitted_sequence) == (0, 0, None)
        assert (one.consumer.received, one.consumer.held, one.consumer.redelivered) == (0, 0, 0)


def test_any_process_reads_the_stats_and_claims_nothing(make_bus: BusMaker) -> None:
    bus = make_bus(2, 4)
    with Peer(bus) as writer, Peer(bus) as reader:
        writer.ask(claim_producer, 1)
        reader.ask(claim_consumer, 1)
        assert writer.ask(emit, 1, 6) == [True] * 4 + [False] * 2
        assert reader.ask(drain, 1) == [1]
        idle, used = bus.stats()
        assert (idle.producer_claims, idle.consumer_claims, idle.producer.emitted) == (0, 0, 0)
        assert (used.producer_pid, used.consumer_pid) == (writer.pid, reader.pid)
        assert (used.producer_claims, used.consumer_claims) == (1, 1)
        assert used.utilization == 75
        producer = used.producer
        assert (producer.emitted, producer.dropped_full, producer.emitted_sequence) == (4, 2, 6)
        assert (producer.first_dropped_sequence, producer.last_dropped_sequence) == (5, 6)
        assert (producer.slots_in_use, producer.slots_high_water) == (3, 4)
        assert (used.consumer.received, used.consumer.batches, used.consumer.held) == (1, 1, 0)
        assert writer.ask(stats_there) == used.producer
        assert reader.ask(bus_stats_there)[1] == used
        assert bus.stats()[1] == used


def stats_there(held: Held) -> object:
    return held.producer.stats()


def bus_stats_there(held: Held) -> tuple[RingStats, ...]:
    return held.bus.stats()


def test_stats_show_which_end_has_gone(bus: EventBus) -> None:
    with Peer(bus) as one, Peer(bus) as two:
        one.ask(claim_producer)
        two.ask(claim_consumer)
        one.ask(close_producer)
        two.kill()
        [stats] = bus.stats()
        assert (stats.producer_pid, stats.consumer_pid) == (None, None)
        assert (stats.producer_claims, stats.consumer_claims) == (1, 1)


def test_stats_are_frozen_and_pickle(bus: EventBus) -> None:
    import pickle

    [stats] = bus.stats()
    attribute: Any = "producer_claims"
    with pytest.raises(AttributeError):
        setattr(stats, attribute, 5)
    assert pickle.loads(pickle.dumps(stats)) == stats


def test_stats_are_read_from_any_thread_while_events_move(bus: EventBus) -> None:
    producer, consumer = bus.producer(0), bus.consumer(0)
    stop = threading.Event()
    seen: list[RingStats] = []

    def observe() -> None:
        while not stop.is_set():
            seen.extend(bus.stats())

    observer = threading.Thread(target=observe)
    observer.start()
    try:
        for _ in range(200):
            producer.emit_batch(batch(1, 16))
            consumer.drain()
    finally:
        stop.set()
        observer.join()
    emitted = [one.producer.emitted for one in seen]
    assert emitted == sorted(emitted)
    assert all(0 <= one.utilization <= 100 and one.producer.slots_in_use <= 16 for one in seen)
