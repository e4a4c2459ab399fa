"""Which buses a ``RingCollector`` takes: several, those it refuses, and those it cannot read."""

from __future__ import annotations

import gc
import mmap
import struct
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from nodedb_ring import EventBus, RoleTaken, create_event_bus, follow
from nodedb_ring.metrics import RingCollector
from tests.absent_libraries import needs
from tests.unit.recovery.memory_log import MemoryLog

from .builders import event, fill
from .scrapes import Samples, bus_samples, registry_of, scraped, series
from .shared_buses import BusMaker

PAGE, PUBLISHED = 4096, 128


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
    with pytest.raises(TypeError, match="captures 7: is one alone; pass a list"):
        RingCollector(name="orders", captures=cast("Any", 7))


@needs("psycopg2")
def test_what_is_no_capture_is_refused() -> None:
    strangers: Any = ["orders"]
    with pytest.raises(TypeError, match="'orders': must be a PostgresCapture"):
        RingCollector(name="orders", captures=strangers)


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
