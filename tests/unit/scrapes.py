"""What Prometheus gets from a ``RingCollector``, and what it must be by the statistics of what is exported."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, TypeAlias

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition, parser
from prometheus_client.parser import text_string_to_metric_families as parse_text

from nodedb_ring import EventBus, FollowStats, RingStats
from nodedb_ring.metrics import RingCollector

if TYPE_CHECKING:
    from nodedb_ring.capture.postgres import PostgresStats

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


def capture_samples(bus: str, core_id: int, slot: str, stats: PostgresStats) -> Samples:
    whose = {"bus": bus, "core": core_id, "slot": slot}
    samples: Samples = {
        series("capture_received_changes_total", **whose): stats.received,
        series("capture_emitted_events_total", **whose): stats.emitted,
        series("capture_lag_seconds", **whose): stats.lag_seconds,
        series("capture_connected", **whose): stats.connected,
        series("capture_reconnects_total", **whose): stats.reconnects,
    }
    if stats.position:
        samples[series("capture_position", **whose)] = stats.position
    if stats.lag_bytes is not None:
        samples[series("capture_lag_bytes", **whose)] = stats.lag_bytes
    return samples


def assert_no_counter_went_back(before: Samples, after: Samples) -> None:
    counters = {one: value for one, value in before.items() if one[0].endswith("_total")}
    assert counters
    assert {one: value for one, value in counters.items() if after[one] < value} == {}
