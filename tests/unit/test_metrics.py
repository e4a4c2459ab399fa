"""What ``RingCollector`` exports of rings and followers, read back from the text that Prometheus gets."""

from __future__ import annotations

import ast
import dataclasses
import gc
import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from nodedb_ring import BackpressureConfig, EventBus, EventConsumer, EventProducer, RingStats, create_event_bus, follow
from nodedb_ring.metrics import RingCollector
from tests.unit.recovery.memory_log import MemoryLog

from .builders import event, events, fill, sized
from .runners import in_new_interpreter
from .scrapes import (
    Samples,
    assert_no_counter_went_back,
    bus_samples,
    follower_samples,
    registry_of,
    ring_samples,
    samples_of,
    scraped,
    series,
)
from .shared_buses import BusMaker, Peer, claim_consumer, claim_producer, drain, emit, lease

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
        assert not {"bus", "core", "group", "slot", "reason", "state", "end"} & {*words[2:-1]}, "nor are labels"
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


def test_without_psycopg2_rings_are_exported() -> None:
    said = in_new_interpreter(
        """
import sys
sys.modules["psycopg2"] = None
from nodedb_ring import create_event_bus
from nodedb_ring.metrics import RingCollector
producers, _ = create_event_bus(1, 8)
print(any("capture_lag_bytes" in family.name for family in RingCollector(producers, name="orders").collect()))
"""
    )
    assert said == "True\n"
