"""What ``RingCollector`` exports, read back from the text that Prometheus gets, against the rings' own accounts."""

from __future__ import annotations

import ast
import dataclasses
import gc
import itertools
import mmap
import struct
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.request import Request, urlopen

import pytest
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition, parser
from prometheus_client.parser import text_string_to_metric_families as parse_text

from nodedb_ring import (
    BackpressureConfig,
    EventBus,
    EventConsumer,
    EventProducer,
    FollowStats,
    RingStats,
    RoleTaken,
    create_event_bus,
    follow,
)
from nodedb_ring.metrics import RingCollector
from tests.unit.recovery.memory_log import MemoryLog

from .builders import event, events, fill, sized
from .runners import Running, in_child, in_new_interpreter, in_thread
from .shared_buses import (
    BusMaker,
    Peer,
    claim_consumer,
    claim_producer,
    close_consumer,
    drain,
    emit,
    emit_whole,
    lease,
    release,
)

PAGE, PUBLISHED = 4096, 128

# These two come without types.
generate_openmetrics: Final[Callable[[CollectorRegistry], bytes]] = exposition.generate_latest
parse_openmetrics: Final[Callable[[str], Iterable[Metric]]] = parser.text_string_to_metric_families

Series: TypeAlias = tuple[str, frozenset[tuple[str, str]]]
Samples: TypeAlias = dict[Series, float]


def registry_of(collector: RingCollector) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(collector)
    return registry


def samples_of(families: Iterable[Metric]) -> Samples:
    found: Samples = {}
    names: set[str] = set()
    for family in families:
        assert family.name not in names, "a family must be written once"
        names.add(family.name)
        for sample in family.samples:
            series = (sample.name, frozenset(sample.labels.items()))
            assert series not in found, "a series must be written once"
            found[series] = sample.value
    return found


def scraped(registry: CollectorRegistry) -> Samples:
    """What both text formats say, which is the same."""
    samples = samples_of(parse_text(generate_latest(registry).decode()))
    assert samples_of(parse_openmetrics(generate_openmetrics(registry).decode())) == samples
    return samples


def series(name: str, **labels: object) -> Series:
    return f"nodedb_ring_{name}", frozenset((key, str(value)) for key, value in labels.items())


def ring_samples(bus: str, stats: RingStats, capacity: int, arena_bytes: int) -> Samples:
    """What is to be exported of a ring."""
    producer, consumer = stats.producer, stats.consumer
    ring = {"bus": bus, "core": stats.core_id}
    state = str(stats.pressure_state)
    samples: Samples = {
        series("up", **ring): 1,
        series("emitted_events_total", **ring): producer.emitted,
        series("dropped_events_total", reason="full", **ring): producer.dropped_full,
        series("dropped_events_total", reason="disconnected", **ring): producer.dropped_disconnected,
        series("received_events_total", **ring): consumer.received + consumer.redelivered,
        series("redelivered_events_total", **ring): consumer.redelivered,
        series("received_batches_total", **ring): consumer.batches,
        series("lag_events", **ring): producer.emitted - consumer.received,
        series("held_events", **ring): consumer.held,
        series("utilization_ratio", **ring): stats.utilization / 100,
        series("capacity_slots", **ring): capacity,
        series("used_slots", **ring): producer.slots_in_use,
        series("high_water_slots", **ring): producer.slots_high_water,
        series("arena_capacity_bytes", **ring): arena_bytes,
        series("arena_used_bytes", **ring): producer.bytes_in_use,
        series("arena_high_water_bytes", **ring): producer.bytes_high_water,
        series("pressure_state", state="normal", **ring): state == "NORMAL",
        series("pressure_state", state="throttled", **ring): state == "THROTTLED",
        series("pressure_state", state="suspended", **ring): state == "SUSPENDED",
        series("pressure_transitions_total", state="normal", **ring): producer.normal_transitions,
        series("pressure_transitions_total", state="throttled", **ring): producer.throttle_transitions,
        series("pressure_transitions_total", state="suspended", **ring): producer.suspend_transitions,
        series("claimed", end="producer", **ring): stats.producer_pid is not None,
        series("claimed", end="consumer", **ring): stats.consumer_pid is not None,
        series("claims_total", end="producer", **ring): stats.producer_claims,
        series("claims_total", end="consumer", **ring): stats.consumer_claims,
    }
    if producer.emitted_sequence is not None:
        samples[series("emitted_sequence", **ring)] = producer.emitted_sequence
    return samples


def bus_samples(bus: EventBus) -> Samples:
    samples: Samples = {}
    for stats in bus.stats():
        samples |= ring_samples(bus.name, stats, bus.capacity, bus.arena_bytes)
    return samples


def follower_samples(bus: str, core_id: int, group: str, stats: FollowStats) -> Samples:
    whose = {"bus": bus, "core": core_id, "group": group}
    samples: Samples = {
        series("follower_delivered_events_total", **whose): stats.delivered,
        series("follower_replayed_events_total", **whose): stats.replayed,
        series("follower_gaps_total", **whose): stats.gaps,
        series("follower_catch_up_episodes_total", **whose): stats.episodes,
        series("follower_duplicate_events_total", **whose): stats.duplicates,
        series("follower_heartbeats_total", **whose): stats.heartbeats,
        series("follower_lag_events", **whose): stats.lag,
    }
    if stats.position is not None:
        samples[series("follower_position", **whose)] = stats.position
    return samples


def assert_no_counter_went_back(before: Samples, after: Samples) -> None:
    counters = {one: value for one, value in before.items() if one[0].endswith("_total")}
    assert counters
    assert {one: value for one, value in counters.items() if after[one] < value} == {}


# A shared bus.


def test_a_shared_bus_is_exported_as_its_stats_say(make_bus: BusMaker) -> None:
    bus = make_bus(2, 16, arena_bytes=8192)
    registry = registry_of(RingCollector(bus))
    assert scraped(registry) == bus_samples(bus)
    producer, consumer = bus.producer(1), bus.consumer(1)
    assert [producer.emit(each) for each in events(1, 20)] == [True] * 16 + [False] * 4
    assert len(consumer.drain(3)) == 3
    with consumer.lease(2):
        samples = scraped(registry)
        assert samples == bus_samples(bus)
    ring = {"bus": bus.name, "core": 1}
    assert samples[series("emitted_events_total", **ring)] == 16
    assert samples[series("dropped_events_total", reason="full", **ring)] == 4
    assert samples[series("received_events_total", **ring)] == 5
    assert samples[series("received_batches_total", **ring)] == 2
    assert samples[series("lag_events", **ring)] == 11
    assert samples[series("held_events", **ring)] == 2
    assert samples[series("used_slots", **ring)] == 13
    assert samples[series("high_water_slots", **ring)] == 16
    assert samples[series("utilization_ratio", **ring)] == 0.81
    assert samples[series("pressure_state", state="suspended", **ring)] == 0
    assert samples[series("pressure_transitions_total", state="suspended", **ring)] == 1
    assert samples[series("emitted_sequence", **ring)] == 20
    consumer.close()
    assert not producer.emit(event(21))
    assert scraped(registry) == bus_samples(bus)
    assert scraped(registry)[series("dropped_events_total", reason="disconnected", **ring)] == 1
    assert scraped(registry)[series("claimed", end="consumer", **ring)] == 0


def test_utilization_is_that_of_the_arena_where_it_is_fuller(make_bus: BusMaker) -> None:
    bus = make_bus(1, 16, arena_bytes=1000)
    producer = bus.producer(0)
    assert producer.emit(sized(1, 290))
    samples = scraped(registry_of(RingCollector(bus)))
    assert samples[series("utilization_ratio", bus=bus.name, core=0)] == 0.29
    assert samples[series("arena_used_bytes", bus=bus.name, core=0)] == 290
    assert samples[series("arena_capacity_bytes", bus=bus.name, core=0)] == 1000


def test_each_pressure_state_has_its_own_sample(make_bus: BusMaker) -> None:
    bus = make_bus(1, 4, backpressure=BackpressureConfig(throttle_enter=50, throttle_exit=25, suspend_enter=100))
    registry = registry_of(RingCollector(bus))
    producer = bus.producer(0)
    seen: list[list[float]] = []
    for number in range(1, 5):
        assert producer.emit(event(number))
        samples = scraped(registry)
        seen.append(
            [
                samples[series("pressure_state", bus=bus.name, core=0, state=state)]
                for state in ("normal", "throttled", "suspended")
            ]
        )
    assert seen == [[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_a_consumer_that_drains_between_two_reads_gives_no_negative_lag(
    bus: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    stats = bus.ring_stats(0)
    later = dataclasses.replace(stats, consumer=dataclasses.replace(stats.consumer, received=3))

    def read_late(self: EventBus, core_id: int) -> RingStats:
        return later

    monkeypatch.setattr(EventBus, "ring_stats", read_late)
    assert scraped(registry_of(RingCollector(bus)))[series("lag_events", bus=bus.name, core=0)] == 0


def test_counters_do_not_go_back_when_ends_are_succeeded(make_bus: BusMaker) -> None:
    bus = make_bus(1, 16)
    ring = {"bus": bus.name, "core": 0}
    registry = registry_of(RingCollector(bus))
    with Peer(bus) as writer, Peer(bus) as reader, Peer(bus) as successor:
        writer.ask(claim_producer)
        reader.ask(claim_consumer)
        assert writer.ask(emit, 1, 18) == [True] * 16 + [False] * 2
        assert reader.ask(drain, 4) == [1, 2, 3, 4]
        assert reader.ask(lease, 5) == [5, 6, 7, 8, 9]
        before = scraped(registry)
        assert before[series("received_events_total", **ring)] == 9
        reader.kill()
        writer.kill()
        assert_no_counter_went_back(before, scraped(registry))
        assert scraped(registry)[series("claimed", end="consumer", **ring)] == 0
        assert scraped(registry)[series("claimed", end="producer", **ring)] == 0
        successor.ask(claim_consumer)
        successor.ask(claim_producer)
        claimed = scraped(registry)
        assert claimed == bus_samples(bus)
        assert_no_counter_went_back(before, claimed)
        # The stats themselves do go back: that is what this is about.
        assert bus.stats()[0].consumer.received == 4
        assert claimed[series("received_events_total", **ring)] == 9
        assert claimed[series("redelivered_events_total", **ring)] == 5
        assert claimed[series("lag_events", **ring)] == 12
        assert claimed[series("claims_total", end="consumer", **ring)] == 2
        assert successor.ask(drain) == list(range(5, 17))
        after = scraped(registry)
        assert_no_counter_went_back(claimed, after)
        assert after[series("received_events_total", **ring)] == 16 + 5
        assert after[series("lag_events", **ring)] == 0


@pytest.mark.parametrize("first", [0, 1])
def test_a_claim_during_a_read_makes_no_count_too_high(
    first: int, bus: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = bus.ring_stats(0)
    # As a consumer that has taken nine and released four is succeeded: before, torn, and after.
    reads = [
        dataclasses.replace(
            read, consumer=dataclasses.replace(read.consumer, received=received, redelivered=redelivered)
        )
        for received, redelivered in ((9, 0), (9, 5), (4, 5), (4, 5))
    ]

    def next_read(self: EventBus, core_id: int) -> RingStats:
        return coming.pop(0)

    monkeypatch.setattr(EventBus, "ring_stats", next_read)
    coming = reads[first:]
    samples = samples_of(RingCollector(bus).collect())
    assert samples[series("received_events_total", bus=bus.name, core="0")] == 9


def test_a_block_that_something_else_writes_to_does_not_hold_a_scrape_up(
    bus: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = bus.ring_stats(0)
    redelivered = itertools.count()

    def another_read(self: EventBus, core_id: int) -> RingStats:
        return dataclasses.replace(read, consumer=dataclasses.replace(read.consumer, redelivered=next(redelivered)))

    monkeypatch.setattr(EventBus, "ring_stats", another_read)
    assert samples_of(RingCollector(bus).collect())[series("up", bus=bus.name, core=0)] == 1


# A private bus.


@pytest.mark.parametrize("which", ["producers", "consumers", "both"])
def test_either_end_of_a_private_bus_shows_all_of_its_ring(which: str) -> None:
    producers, consumers = create_event_bus(2, 8, arena_bytes=4096)
    either: dict[str, Sequence[EventProducer | EventConsumer]] = {
        "producers": producers,
        "consumers": consumers,
        "both": [*producers, *consumers],
    }
    registry = registry_of(RingCollector(either[which], name="orders"))
    fill(producers[0], 1, 3)
    assert [producers[1].emit(each) for each in events(1, 10)].count(False) == 2
    assert len(consumers[1].drain(5)) == 5
    with consumers[0].lease(2):
        samples = scraped(registry)
        expected: Samples = {}
        for producer, consumer in zip(producers, consumers, strict=True):
            stats = RingStats(
                core_id=producer.core_id,
                pressure_state=producer.ring.pressure_state,
                utilization=producer.utilization,
                producer=producer.stats(),
                consumer=consumer.stats(),
                producer_pid=1,
                consumer_pid=1,
                producer_claims=0,
                consumer_claims=0,
            )
            expected |= ring_samples("orders", stats, 8, 4096)
        assert samples == expected


def test_the_counts_of_closed_ends_stay() -> None:
    (producer,), (consumer,) = create_event_bus(1, 8)
    registry = registry_of(RingCollector([producer], name="orders"))
    fill(producer, 1, 5)
    assert len(consumer.drain(2)) == 2
    before = scraped(registry)
    producer.close()
    consumer.close()
    after = scraped(registry)
    ends = {series("claimed", bus="orders", core=0, end=end): 0 for end in ("producer", "consumer")}
    assert after == before | ends


def test_an_end_that_is_dropped_is_collected_and_its_other_side_sees_that() -> None:
    (producer,), (consumer,) = create_event_bus(1, 8)
    registry = registry_of(RingCollector([producer, consumer], name="orders"))
    fill(producer, 1, 3)
    del consumer
    gc.collect()
    assert producer.is_consumer_disconnected
    assert not producer.emit(event(4))
    samples = scraped(registry)
    assert samples[series("claimed", bus="orders", core=0, end="consumer")] == 0
    assert samples[series("claimed", bus="orders", core=0, end="producer")] == 1
    assert samples[series("dropped_events_total", bus="orders", core=0, reason="disconnected")] == 1
    assert samples[series("emitted_events_total", bus="orders", core=0)] == 3
    del producer
    gc.collect()
    last = scraped(registry)
    assert last[series("claimed", bus="orders", core=0, end="producer")] == 0
    assert last[series("emitted_events_total", bus="orders", core=0)] == 3


# Followers.


def test_a_follower_is_exported_as_its_stats_say() -> None:
    (producer,), (consumer,) = create_event_bus(1, 8)
    log = MemoryLog()
    log.put(1, 20)
    follower = follow(consumer, log, group="totals", after=0)
    registry = registry_of(RingCollector([producer], name="orders", followers=[follower]))
    whose = {"bus": "orders", "core": 0, "group": "totals"}
    for each in events(1, 20):
        producer.emit(each)
    fresh = scraped(registry)
    assert fresh[series("follower_lag_events", **whose)] == 20
    assert fresh[series("follower_position", **whose)] == 0
    # The ring's lag knows nothing of the twelve that were dropped.
    assert fresh[series("lag_events", bus="orders", core=0)] == 8
    producer.close()
    assert sum(len(batch) for batch in follower) == 20
    stats = follower.stats()
    assert (stats.delivered, stats.replayed, stats.gaps, stats.episodes, stats.position) == (20, 12, 1, 1, 20)
    samples = scraped(registry)
    expected = follower_samples("orders", 0, "totals", stats)
    assert {one: value for one, value in samples.items() if "_follower_" in one[0]} == expected


def test_a_follower_without_a_ring_has_a_name_alone() -> None:
    log = MemoryLog()
    follower = follow(None, log, group="totals", core_id=3)
    registry = registry_of(RingCollector(name="orders", followers=[follower]))
    expected = follower_samples("orders", 3, "totals", follower.stats())
    assert series("follower_position", bus="orders", core=3, group="totals") not in expected
    assert scraped(registry) == expected
    log.put(1, 7, core_id=3)
    assert len(follower.next_batch(0)) == 7
    assert scraped(registry) == follower_samples("orders", 3, "totals", follower.stats())
    assert scraped(registry)[series("follower_delivered_events_total", bus="orders", core=3, group="totals")] == 7


def test_a_follower_that_is_dropped_is_collected_and_its_metrics_end() -> None:
    (producer,), (consumer,) = create_event_bus(1, 8)
    follower = follow(consumer, MemoryLog(), group="totals")
    collector = RingCollector([producer], name="orders", followers=[follower])
    registry = registry_of(collector)
    assert any("_follower_" in name for name, _ in scraped(registry))
    del consumer, follower
    gc.collect()
    assert producer.is_consumer_disconnected
    assert not any("_follower_" in name for name, _ in scraped(registry))


def test_a_later_follower_takes_the_place_of_an_earlier_one() -> None:
    log = MemoryLog()
    log.put(1, 9)
    first = follow(None, log, group="totals", core_id=0)
    collector = RingCollector(name="orders", followers=[first])
    registry = registry_of(collector)
    assert len(first.next_batch(0)) == 9
    first.commit()
    assert scraped(registry) == follower_samples("orders", 0, "totals", first.stats())
    second = follow(None, log, group="totals", core_id=0)
    other = follow(None, log, group="audit", core_id=0)
    collector.add(name="orders", followers=[second, other])
    assert second.stats() != first.stats()
    assert scraped(registry) == (
        follower_samples("orders", 0, "totals", second.stats()) | follower_samples("orders", 0, "audit", other.stats())
    )


# Several buses.


def test_one_collector_serves_several_buses(make_bus: BusMaker) -> None:
    shared, another = make_bus(2), make_bus(1, 32)
    producers, _consumers = create_event_bus(1, 8)
    collector = RingCollector(shared)
    registry = registry_of(collector)
    collector.add(another)
    collector.add(producers, name="private")
    fill(producers[0], 1, 2)
    fill(another.producer(0), 1, 3)
    samples = scraped(registry)
    private = {one: value for one, value in samples.items() if ("bus", "private") in one[1]}
    assert private[series("emitted_events_total", bus="private", core=0)] == 2
    assert {one: value for one, value in samples.items() if one not in private} == bus_samples(shared) | bus_samples(
        another
    )


def test_a_second_collector_is_refused_by_the_registry(make_bus: BusMaker) -> None:
    bus = make_bus()
    registry = registry_of(RingCollector(bus))
    with pytest.raises(ValueError, match="nodedb_ring_up"):
        registry.register(RingCollector(make_bus()))
    assert scraped(registry) == bus_samples(bus)


def test_buses_of_one_name_need_names_of_their_own(make_bus: BusMaker) -> None:
    bus = make_bus()
    with EventBus.open(bus.name) as again:
        collector = RingCollector(bus)
        with pytest.raises(ValueError, match=rf"bus '{bus.name}', core 0: is collected already.*name=.*remove"):
            collector.add(again)
        collector.add(again, name="again")
        names = {dict(labels)["bus"] for _, labels in scraped(registry_of(collector))}
    assert names == {bus.name, "again"}


def test_a_bus_that_is_refused_leaves_the_collector_as_it_was() -> None:
    producers, _ = create_event_bus(2, 8)
    others, _ = create_event_bus(3, 8)
    follower = follow(None, MemoryLog(), group="totals", core_id=0)
    collector = RingCollector(producers, name="orders")
    registry = registry_of(collector)
    before = scraped(registry)
    with pytest.raises(ValueError, match="core 1: is collected already"):
        collector.add([others[2], others[1]], name="orders", followers=[follower])
    assert scraped(registry) == before
    collector.add([others[2]], name="orders")
    assert scraped(registry)[series("up", bus="orders", core=2)] == 1


def test_two_rings_of_one_core_are_refused() -> None:
    (one,), _ = create_event_bus(1, 8)
    (other,), _ = create_event_bus(1, 8)
    with pytest.raises(ValueError, match="bus 'orders': has two rings of core 0"):
        RingCollector([one, other], name="orders")


def test_a_removed_bus_is_no_longer_collected(make_bus: BusMaker) -> None:
    bus = make_bus()
    producers, _ = create_event_bus(2, 8)
    follower = follow(None, MemoryLog(), group="totals", core_id=0)
    collector = RingCollector(bus)
    collector.add(producers, name="orders", followers=[follower])
    registry = registry_of(collector)
    collector.remove("orders")
    assert scraped(registry) == bus_samples(bus)
    with pytest.raises(ValueError, match=rf"bus 'orders': is not collected; there are \['{bus.name}'\]"):
        collector.remove("orders")
    collector.add(create_event_bus(1, 8)[0], name="orders")
    assert series("up", bus="orders", core=0) in scraped(registry)


# What is refused.


@pytest.mark.parametrize("name", [None, 7])
def test_a_private_bus_needs_a_name(name: Any) -> None:
    producers, _ = create_event_bus(1, 8)
    with pytest.raises(TypeError, match=rf"name {name}: must be a str"):
        RingCollector(producers, name=name)
    with pytest.raises(TypeError, match=rf"name {name}: must be a str"):
        RingCollector(name=name, followers=[follow(None, MemoryLog(), group="totals", core_id=0)])


def test_one_end_alone_is_refused_and_not_read() -> None:
    (producer,), (consumer,) = create_event_bus(1, 8)
    fill(producer, 1, 3)
    # Iterating it would drain it, and then wait.
    alone: Any
    for alone in (consumer, producer):
        with pytest.raises(TypeError, match=r"is one alone; pass a list"):
            RingCollector(alone, name="orders")
    alone = follow(consumer, MemoryLog(), group="totals")
    with pytest.raises(TypeError, match=r"Follower of core 0.*is one alone; pass a list"):
        RingCollector(name="orders", followers=alone)
    assert len(consumer.drain()) == 3


def test_other_objects_are_refused() -> None:
    strangers: Any = ["orders"]
    with pytest.raises(TypeError, match="'orders': must be an EventProducer or an EventConsumer"):
        RingCollector(strangers, name="orders")
    with pytest.raises(TypeError, match="'orders': must be a Follower"):
        RingCollector(name="orders", followers=strangers)


def test_an_end_of_a_shared_bus_is_refused_and_its_claim_not_kept(bus: EventBus) -> None:
    producer, consumer = bus.producer(0), bus.consumer(0)
    with pytest.raises(ValueError, match="core 0: is an end of a shared bus; pass the EventBus"):
        RingCollector([producer], name="orders")
    with pytest.raises(ValueError, match="core 0: is an end of a shared bus"):
        RingCollector([consumer], name="orders")
    with pytest.raises(RoleTaken):
        bus.producer(0)
    del producer
    gc.collect()
    assert bus.producer(0).emit(event(1))


# Rings that cannot be read.


@contextmanager
def corrupted(bus: EventBus, core_id: int) -> Generator[None, None, None]:
    """More events published than there are slots, meanwhile."""
    with bus.path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as whole:
        at = PAGE + core_id * ((len(whole) - PAGE) // bus.num_cores) + PUBLISHED
        before = whole[at : at + 8]
        whole[at : at + 8] = struct.pack("<Q", bus.capacity + 1)
        yield
        whole[at : at + 8] = before


def test_a_corrupt_ring_takes_nothing_away_from_the_others(make_bus: BusMaker) -> None:
    bus, sound = make_bus(3), make_bus(1)
    fill(bus.producer(2), 1, 4)
    collector = RingCollector(bus)
    collector.add(sound)
    registry = registry_of(collector)
    whole = scraped(registry)
    with corrupted(bus, 1):
        samples = scraped(registry)
    down = series("up", bus=bus.name, core=1)
    assert {one: value for one, value in samples.items() if {("bus", bus.name), ("core", "1")} <= one[1]} == {down: 0}
    assert samples.keys() | bus_samples(bus).keys() == whole.keys()
    assert {one: value for one, value in samples.items() if one != down} == {
        one: value for one, value in whole.items() if not {("bus", bus.name), ("core", "1")} <= one[1]
    }
    assert scraped(registry) == whole


def test_a_closed_bus_is_down_and_the_others_are_not(make_bus: BusMaker) -> None:
    bus, other = make_bus(2), make_bus(1)
    collector = RingCollector(bus)
    collector.add(other)
    registry = registry_of(collector)
    bus.close()
    down: Samples = {series("up", bus=bus.name, core=core_id): 0 for core_id in (0, 1)}
    assert scraped(registry) == down | bus_samples(other)


def test_registering_reads_no_ring(make_bus: BusMaker) -> None:
    bus = make_bus()
    collector = RingCollector(bus)
    described = list(collector.describe())
    assert [family.samples for family in described] == [[] for _ in described]
    collected = list(collector.collect())
    assert [(family.name, family.type, family.documentation) for family in described] == [
        (family.name, family.type, family.documentation) for family in collected
    ]


# Threads, processes and the server.


def test_a_bus_may_be_closed_while_it_is_scraped(make_bus: BusMaker) -> None:
    bus = make_bus(2)
    names = [f"{bus.name}-{number}" for number in range(10)]
    opened = [EventBus.open(bus.name) for _ in names]
    collector = RingCollector()
    registry = registry_of(collector)
    for name, each in zip(names, opened, strict=True):
        collector.add(each, name=name)
    scraping, stop = threading.Event(), threading.Event()

    def scrape() -> set[float]:
        ups: set[float] = set()
        while not stop.is_set():
            samples = samples_of(parse_text(generate_latest(registry).decode()))
            ups |= {value for (name, _), value in samples.items() if name == "nodedb_ring_up"}
            scraping.set()
        return ups

    scraper = Running(scrape)
    for name, each in zip(names, opened, strict=True):
        scraping.clear()
        assert scraping.wait(30)
        each.close()
        if name != names[-1]:
            collector.remove(name)
    stop.set()
    assert scraper.result() <= {0.0, 1.0}
    assert scraped(registry) == {series("up", bus=names[-1], core=core_id): 0 for core_id in (0, 1)}


@pytest.mark.parametrize("then", ["_check_core", "_check_open"])
def test_a_bus_that_is_closed_in_the_midst_of_a_read_is_down(
    then: str, bus: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = getattr(EventBus, then)

    def check_and_close(self: EventBus, *args: object) -> None:
        check(self, *args)
        self.close()

    registry = registry_of(RingCollector(bus))
    monkeypatch.setattr(EventBus, then, check_and_close)
    assert scraped(registry) == {series("up", bus=bus.name, core=0): 0}


def test_a_scrape_from_another_thread_does_not_own_an_end() -> None:
    (producer,), (consumer,) = create_event_bus(1, 8)
    follower = follow(consumer, MemoryLog(), group="totals")
    registry = registry_of(RingCollector([producer, consumer], name="orders", followers=[follower]))
    in_thread(lambda: scraped(registry))
    # The thread that moved events first owns the ends.
    assert producer.emit(event(1))
    assert len(follower.next_batch(0)) == 1


def test_a_forked_child_exports_a_shared_bus(bus: EventBus) -> None:
    registry = registry_of(RingCollector(bus))
    producer = bus.producer(0)
    fill(producer, 1, 3)
    assert in_child(lambda: scraped(registry)) == bus_samples(bus)


@contextmanager
def served(registry: CollectorRegistry) -> Generator[str, None, None]:
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def fetched(url: str, accept: str = "text/plain") -> str:
    with urlopen(Request(url, headers={"Accept": accept}), timeout=30) as answer:
        assert answer.status == 200
        text: bytes = answer.read()
    return text.decode()


def test_a_server_exports_while_another_thread_and_another_process_emit(make_bus: BusMaker) -> None:
    shared = make_bus(1, 64)
    (producer,), (consumer,) = create_event_bus(1, 64)
    collector = RingCollector(shared)
    collector.add([producer], name="private")
    count = 6_000

    def emit_all() -> None:
        producer.bind()
        for each in events(1, count):
            while not producer.emit(each):
                pass

    def drain_all(of: Sequence[EventConsumer]) -> None:
        for each in of:
            each.bind()
        left = {id(each): count for each in of}
        while any(left.values()):
            for each in of:
                left[id(each)] -= len(each.drain(32))

    seen: list[Samples] = []
    with served(registry_of(collector)) as url, Peer(shared) as writer:
        writer.ask(claim_producer)
        writer.post(emit_whole, 1, count)
        emitting = Running(emit_all)
        draining = Running(lambda: drain_all([consumer, shared.consumer(0)]))
        while draining.thread.is_alive():
            seen.append(samples_of(parse_text(fetched(url))))
        emitting.result()
        draining.result()
        writer.answer()
        seen.append(samples_of(parse_openmetrics(fetched(url, "application/openmetrics-text"))))
        narrow = samples_of(parse_text(fetched(f"{url}?name[]=nodedb_ring_up")))
    assert len(seen) > 2
    for before, after in itertools.pairwise(seen):
        assert_no_counter_went_back(before, after)
    for samples in seen:
        for bus in ("private", shared.name):
            ring = {"bus": bus, "core": 0}
            assert samples[series("used_slots", **ring)] <= 64
            assert 0 <= samples[series("lag_events", **ring)] <= 64
            assert 0 <= samples[series("utilization_ratio", **ring)] <= 1
            states = [samples[series("pressure_state", state=s, **ring)] for s in ("normal", "throttled", "suspended")]
            assert sorted(states) == [0, 0, 1]
    for bus in ("private", shared.name):
        ring = {"bus": bus, "core": 0}
        assert seen[-1][series("emitted_events_total", **ring)] == count
        assert seen[-1][series("received_events_total", **ring)] == count
        assert seen[-1][series("lag_events", **ring)] == 0
    assert narrow == {series("up", bus=bus, core=0): 1 for bus in ("private", shared.name)}


def test_a_lease_that_outlives_its_holder_s_close_is_held(bus: EventBus) -> None:
    registry = registry_of(RingCollector(bus))
    ring = {"bus": bus.name, "core": 0}
    with Peer(bus) as reader:
        fill(bus.producer(0), 1, 5)
        reader.ask(claim_consumer)
        reader.ask(lease, 3)
        reader.ask(close_consumer)
        samples = scraped(registry)
        assert samples[series("held_events", **ring)] == 3
        assert samples[series("lag_events", **ring)] == 2
        reader.ask(release, 0)
        assert scraped(registry)[series("held_events", **ring)] == 0


# Names, and the extra.


OF_WORKERS = """
import logging, sys
from prometheus_client import REGISTRY, CollectorRegistry, Counter, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from nodedb_ring import create_event_bus
from nodedb_ring.metrics import RingCollector

class Lines(logging.Handler):
    def emit(self, record):
        lines.append((record.levelname, record.name, record.getMessage()))

lines = []
logging.getLogger("nodedb_ring").addHandler(Lines())
Counter("requests", "Of each worker.").inc()
producers, _ = create_event_bus(2, 16)
rings = RingCollector(producers, name="private")

def page(*collectors):
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    for each in collectors:
        registry.register(each)
    return generate_latest(registry).decode()

REGISTRY.register(rings)
print([["requests_total" in text, "nodedb_ring_up" in text] for text in (page(), page(rings))], lines)
"""


@pytest.mark.parametrize("name", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"])
def test_workers_that_export_files_are_warned_that_rings_are_not_in_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, str(tmp_path))
    # prometheus_client warns of the older spelling.
    reported = in_new_interpreter(f"import warnings; warnings.simplefilter('ignore')\n{OF_WORKERS}")
    exported, _, lines = reported.partition("] [")
    assert exported == "[[True, False], [True, True]"
    [(level, logger, message)] = ast.literal_eval(f"[{lines}")
    assert (level, logger) == ("WARNING", "nodedb_ring")
    assert message.startswith("PROMETHEUS_MULTIPROC_DIR is set: ")
    assert "register the RingCollector with the registry of the MultiProcessCollector" in message


def test_without_multiprocess_mode_there_is_no_warning(make_bus: BusMaker, caplog: pytest.LogCaptureFixture) -> None:
    RingCollector(make_bus())
    assert caplog.records == []


def test_names_and_help_keep_to_prometheus_conventions() -> None:
    families = list(RingCollector().describe())
    exposed = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    assert len(exposed) == len(families)
    for family in families:
        assert family.type in ("counter", "gauge")
        assert family.name.startswith("nodedb_ring_")
        # Lower case, one unit, and none that is not a base unit.
        words = family.name.split("_")
        assert all(word.isalpha() and word.islower() for word in words)
        assert not {"percent", "ms", "milliseconds", "kilobytes", "count", "sum", "bucket", "created", "info"} & {
            *words
        }
        assert not {"gauge", "counter", "total"} & {*words}, "the type is not part of the name"
        assert not {"bus", "core", "group", "reason", "state", "end"} & {*words[2:-1]}, "nor are labels"
        assert family.documentation.endswith(".")
        assert len(family.documentation.split()) >= 4
        assert "\n" not in family.documentation
    assert {name for name in exposed if name.endswith("_ratio")} == {"nodedb_ring_utilization_ratio"}


def test_without_prometheus_client_the_import_says_what_to_install() -> None:
    said = in_new_interpreter(
        """
import sys
sys.modules["prometheus_client"] = None
import nodedb_ring
try:
    import nodedb_ring.metrics
except ImportError as error:
    print(error)
"""
    )
    assert said == "nodedb_ring.metrics needs prometheus-client: pip install 'nodedb_ring[metrics]'\n"
