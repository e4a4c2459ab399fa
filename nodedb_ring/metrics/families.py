"""What is exported of a ring, a follower and a capture: a table of each.

To add a metric, add an entry to ``RING_METRICS``, ``FOLLOWER_METRICS`` or ``CAPTURE_METRICS``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Generic, TypeAlias, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from ..core.backpressure import PressureState
from ..ends.stats import FollowStats, RingStats

if TYPE_CHECKING:
    # Importing it needs psycopg2, which whoever has a capture has.
    from ..capture.postgres import PostgresStats

__all__ = ["CAPTURE_METRICS", "FOLLOWER_METRICS", "RING_METRICS", "UP", "Family", "RingSnapshot"]

Family: TypeAlias = CounterMetricFamily | GaugeMetricFamily
_S = TypeVar("_S")


@dataclasses.dataclass(frozen=True, slots=True)
class RingSnapshot:
    """A snapshot of a ring's statistics, and its sizes."""

    stats: RingStats
    capacity: int
    arena_bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class Metric(Generic[_S]):
    """A metric, and how its value is read from a snapshot: a number, one for each `label`, or None for no sample."""

    name: str
    help: str
    value: Callable[[_S], float | Mapping[str, float] | None]
    label: str | None = None

    def family(self, *labels: str) -> Family:
        names = labels if self.label is None else (*labels, self.label)
        kind = CounterMetricFamily if self.name.endswith("_total") else GaugeMetricFamily
        return kind(self.name, self.help, labels=names)

    def add_to(self, family: Family, labels: tuple[str, ...], snapshot: _S) -> None:
        value = self.value(snapshot)
        if isinstance(value, Mapping):
            for key, each in value.items():
                family.add_metric((*labels, key), each)
        elif value is not None:
            family.add_metric(labels, value)


_STATES: Final = {state: str(state).lower() for state in PressureState}

UP: Final[Metric[bool]] = Metric(
    "nodedb_ring_up",
    "Whether the ring could be read: 0 where its bus is closed or its block corrupt.",
    int,
)

RING_METRICS: Final[tuple[Metric[RingSnapshot], ...]] = (
    Metric(
        "nodedb_ring_emitted_events_total",
        "Events that the ring took.",
        lambda ring: ring.stats.producer.emitted,
    ),
    Metric(
        "nodedb_ring_dropped_events_total",
        "Events that the ring did not take, because it was full or because its consumer had gone.",
        lambda ring: {
            "full": ring.stats.producer.dropped_full,
            "disconnected": ring.stats.producer.dropped_disconnected,
        },
        label="reason",
    ),
    Metric(
        "nodedb_ring_received_events_total",
        "Events that consumers took out of the ring, each redelivered one once more.",
        lambda ring: ring.stats.consumer.handed_out,
    ),
    Metric(
        "nodedb_ring_redelivered_events_total",
        "Events that a consumer's successor got again, because they had been taken and not released.",
        lambda ring: ring.stats.consumer.redelivered,
    ),
    Metric(
        "nodedb_ring_received_batches_total",
        "Drains and leases that were not empty.",
        lambda ring: ring.stats.consumer.batches,
    ),
    Metric(
        "nodedb_ring_lag_events",
        "Events in the ring that the consumer has yet to take.",
        lambda ring: ring.stats.lag,
    ),
    Metric(
        "nodedb_ring_held_events",
        "Events that leases hold: taken and not released.",
        lambda ring: ring.stats.consumer.held,
    ),
    Metric(
        "nodedb_ring_utilization_ratio",
        "How full the ring is, from 0 to 1 in whole hundredths: the fuller of its slots and its arena.",
        lambda ring: ring.stats.utilization / 100,
    ),
    Metric(
        "nodedb_ring_capacity_slots",
        "Events that the ring can hold.",
        lambda ring: ring.capacity,
    ),
    Metric(
        "nodedb_ring_used_slots",
        "Slots that are not free.",
        lambda ring: ring.stats.producer.slots_in_use,
    ),
    Metric(
        "nodedb_ring_high_water_slots",
        "The most slots that were in use after any publication.",
        lambda ring: ring.stats.producer.slots_high_water,
    ),
    Metric(
        "nodedb_ring_arena_capacity_bytes",
        "Payload that the ring can hold.",
        lambda ring: ring.arena_bytes,
    ),
    Metric(
        "nodedb_ring_arena_used_bytes",
        "Bytes of the arena that are not free.",
        lambda ring: ring.stats.producer.bytes_in_use,
    ),
    Metric(
        "nodedb_ring_arena_high_water_bytes",
        "The most bytes of the arena that were in use after any publication.",
        lambda ring: ring.stats.producer.bytes_high_water,
    ),
    Metric(
        "nodedb_ring_pressure_state",
        "1 for the pressure state that the ring is in, 0 for the others.",
        lambda ring: {name: int(ring.stats.pressure_state is state) for state, name in _STATES.items()},
        label="state",
    ),
    Metric(
        "nodedb_ring_pressure_transitions_total",
        "How often the producer entered each pressure state.",
        lambda ring: {
            _STATES[PressureState.NORMAL]: ring.stats.producer.normal_transitions,
            _STATES[PressureState.THROTTLED]: ring.stats.producer.throttle_transitions,
            _STATES[PressureState.SUSPENDED]: ring.stats.producer.suspend_transitions,
        },
        label="state",
    ),
    Metric(
        "nodedb_ring_emitted_sequence",
        "The highest sequence number that was tried, taken or dropped; no sample before the first.",
        lambda ring: ring.stats.producer.emitted_sequence,
    ),
    Metric(
        "nodedb_ring_claimed",
        "Whether the end is held: by a live process on a shared bus, not closed or collected on a private one.",
        lambda ring: {
            "producer": int(ring.stats.producer_pid is not None),
            "consumer": int(ring.stats.consumer_pid is not None),
        },
        label="end",
    ),
    Metric(
        "nodedb_ring_claims_total",
        "How often the end of a shared bus was claimed: more than once is a successor. 0 on a private bus.",
        lambda ring: {"producer": ring.stats.producer_claims, "consumer": ring.stats.consumer_claims},
        label="end",
    ),
)

FOLLOWER_METRICS: Final[tuple[Metric[FollowStats], ...]] = (
    Metric(
        "nodedb_ring_follower_delivered_events_total",
        "Events that the follower delivered.",
        lambda stats: stats.delivered,
    ),
    Metric(
        "nodedb_ring_follower_replayed_events_total",
        "Events that the follower delivered from the log, not from the ring.",
        lambda stats: stats.replayed,
    ),
    Metric(
        "nodedb_ring_follower_gaps_total",
        "Holes that the follower asked the log to fill.",
        lambda stats: stats.gaps,
    ),
    Metric(
        "nodedb_ring_follower_catch_up_episodes_total",
        "Times that the follower turned from the ring to the log.",
        lambda stats: stats.episodes,
    ),
    Metric(
        "nodedb_ring_follower_duplicate_events_total",
        "Events that ring or log offered again and that the follower dropped.",
        lambda stats: stats.duplicates,
    ),
    Metric(
        "nodedb_ring_follower_heartbeats_total",
        "Heartbeats that the follower passed over.",
        lambda stats: stats.heartbeats,
    ),
    Metric(
        "nodedb_ring_follower_position",
        "The last sequence number that the follower delivered or skipped; no sample before the first.",
        lambda stats: stats.position,
    ),
    Metric(
        "nodedb_ring_follower_lag_events",
        "Sequence numbers known to be tried and not delivered yet, including dropped ones.",
        lambda stats: stats.lag,
    ),
)

CAPTURE_METRICS: Final[tuple[Metric[PostgresStats], ...]] = (
    Metric(
        "nodedb_ring_capture_received_changes_total",
        "Row changes and truncated tables that the capture received, each one that was sent again once more.",
        lambda stats: stats.received,
    ),
    Metric(
        "nodedb_ring_capture_emitted_events_total",
        "Events of the capture that the ring took.",
        lambda stats: stats.emitted,
    ),
    Metric(
        "nodedb_ring_capture_position",
        "The LSN that was confirmed to the server; no sample before the first.",
        lambda stats: stats.position or None,
    ),
    Metric(
        "nodedb_ring_capture_lag_bytes",
        "Bytes of WAL that the server keeps for the slot; no sample while the server does not say.",
        lambda stats: stats.lag_bytes,
    ),
    Metric(
        "nodedb_ring_capture_lag_seconds",
        "How long ago the oldest change was committed that is received and not delivered; 0 if there is none.",
        lambda stats: stats.lag_seconds,
    ),
    Metric(
        "nodedb_ring_capture_connected",
        "Whether the stream from the server is connected.",
        lambda stats: int(stats.connected),
    ),
    Metric(
        "nodedb_ring_capture_reconnects_total",
        "How often the connection to the server was lost and made again.",
        lambda stats: stats.reconnects,
    ),
)
