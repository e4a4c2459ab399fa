"""The counters of rings and followers for Prometheus: ``RingCollector``.

Nothing is counted here. A scrape reads the counters in the rings' headers and in the followers. So metrics cost emits
and drains nothing, and the counters of a shared bus include what was counted before this process opened it.

To add a metric, add an entry to ``_RING_METRICS`` or ``_FOLLOWER_METRICS``.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, Generic, TypeAlias, TypeVar, final

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError as _error:
    raise ImportError("nodedb_ring.metrics needs prometheus-client: pip install 'nodedb_ring[metrics]'") from _error

from .bus.event_bus import EventBus
from .core.backpressure import PressureState
from .ends._consumer import EventConsumer, consumer_stats
from .ends._producer import EventProducer, producer_stats
from .ends.logger import log_safely
from .ends.stats import FollowStats, RingStats
from .errors import RingError
from .recovery.follower import Follower

if TYPE_CHECKING:
    from ._ring import EventRing

__all__ = ["RingCollector"]

# The variable that selects prometheus_client's multiprocess mode, and its older spelling, which is still accepted.
_MULTIPROCESS: Final = frozenset({"PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"})

_Family: TypeAlias = CounterMetricFamily | GaugeMetricFamily
_S = TypeVar("_S")


@dataclasses.dataclass(frozen=True, slots=True)
class _RingSnapshot:
    """A snapshot of a ring's statistics, and its sizes."""

    stats: RingStats
    capacity: int
    arena_bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Metric(Generic[_S]):
    """A metric, and how its value is read from a snapshot: a number, one for each `label`, or None for no sample."""

    name: str
    help: str
    value: Callable[[_S], float | Mapping[str, float] | None]
    label: str | None = None

    def family(self, *labels: str) -> _Family:
        names = labels if self.label is None else (*labels, self.label)
        kind = CounterMetricFamily if self.name.endswith("_total") else GaugeMetricFamily
        return kind(self.name, self.help, labels=names)

    def add_to(self, family: _Family, labels: tuple[str, ...], snapshot: _S) -> None:
        value = self.value(snapshot)
        if isinstance(value, Mapping):
            for key, each in value.items():
                family.add_metric((*labels, key), each)
        elif value is not None:
            family.add_metric(labels, value)


_STATES: Final = {state: str(state).lower() for state in PressureState}

_UP: Final[_Metric[bool]] = _Metric(
    "nodedb_ring_up",
    "Whether the ring could be read: 0 where its bus is closed or its block corrupt.",
    int,
)

_RING_METRICS: Final[tuple[_Metric[_RingSnapshot], ...]] = (
    _Metric(
        "nodedb_ring_emitted_events_total",
        "Events that the ring took.",
        lambda ring: ring.stats.producer.emitted,
    ),
    _Metric(
        "nodedb_ring_dropped_events_total",
        "Events that the ring did not take, because it was full or because its consumer had gone.",
        lambda ring: {
            "full": ring.stats.producer.dropped_full,
            "disconnected": ring.stats.producer.dropped_disconnected,
        },
        label="reason",
    ),
    _Metric(
        "nodedb_ring_received_events_total",
        "Events that consumers took out of the ring, each redelivered one once more.",
        lambda ring: ring.stats.consumer.handed_out,
    ),
    _Metric(
        "nodedb_ring_redelivered_events_total",
        "Events that a consumer's successor got again, because they had been taken and not released.",
        lambda ring: ring.stats.consumer.redelivered,
    ),
    _Metric(
        "nodedb_ring_received_batches_total",
        "Drains and leases that were not empty.",
        lambda ring: ring.stats.consumer.batches,
    ),
    _Metric(
        "nodedb_ring_lag_events",
        "Events in the ring that the consumer has yet to take.",
        lambda ring: ring.stats.lag,
    ),
    _Metric(
        "nodedb_ring_held_events",
        "Events that leases hold: taken and not released.",
        lambda ring: ring.stats.consumer.held,
    ),
    _Metric(
        "nodedb_ring_utilization_ratio",
        "How full the ring is, from 0 to 1 in whole hundredths: the fuller of its slots and its arena.",
        lambda ring: ring.stats.utilization / 100,
    ),
    _Metric(
        "nodedb_ring_capacity_slots",
        "Events that the ring can hold.",
        lambda ring: ring.capacity,
    ),
    _Metric(
        "nodedb_ring_used_slots",
        "Slots that are not free.",
        lambda ring: ring.stats.producer.slots_in_use,
    ),
    _Metric(
        "nodedb_ring_high_water_slots",
        "The most slots that were in use after any publication.",
        lambda ring: ring.stats.producer.slots_high_water,
    ),
    _Metric(
        "nodedb_ring_arena_capacity_bytes",
        "Payload that the ring can hold.",
        lambda ring: ring.arena_bytes,
    ),
    _Metric(
        "nodedb_ring_arena_used_bytes",
        "Bytes of the arena that are not free.",
        lambda ring: ring.stats.producer.bytes_in_use,
    ),
    _Metric(
        "nodedb_ring_arena_high_water_bytes",
        "The most bytes of the arena that were in use after any publication.",
        lambda ring: ring.stats.producer.bytes_high_water,
    ),
    _Metric(
        "nodedb_ring_pressure_state",
        "1 for the pressure state that the ring is in, 0 for the others.",
        lambda ring: {name: int(ring.stats.pressure_state is state) for state, name in _STATES.items()},
        label="state",
    ),
    _Metric(
        "nodedb_ring_pressure_transitions_total",
        "How often the producer entered each pressure state.",
        lambda ring: {
            _STATES[PressureState.NORMAL]: ring.stats.producer.normal_transitions,
            _STATES[PressureState.THROTTLED]: ring.stats.producer.throttle_transitions,
            _STATES[PressureState.SUSPENDED]: ring.stats.producer.suspend_transitions,
        },
        label="state",
    ),
    _Metric(
        "nodedb_ring_emitted_sequence",
        "The highest sequence number that was tried, taken or dropped; no sample before the first.",
        lambda ring: ring.stats.producer.emitted_sequence,
    ),
    _Metric(
        "nodedb_ring_claimed",
        "Whether the end is held: by a live process on a shared bus, not closed or collected on a private one.",
        lambda ring: {
            "producer": int(ring.stats.producer_pid is not None),
            "consumer": int(ring.stats.consumer_pid is not None),
        },
        label="end",
    ),
    _Metric(
        "nodedb_ring_claims_total",
        "How often the end of a shared bus was claimed: more than once is a successor. 0 on a private bus.",
        lambda ring: {"producer": ring.stats.producer_claims, "consumer": ring.stats.consumer_claims},
        label="end",
    ),
)

_FOLLOWER_METRICS: Final[tuple[_Metric[FollowStats], ...]] = (
    _Metric(
        "nodedb_ring_follower_delivered_events_total",
        "Events that the follower delivered.",
        lambda stats: stats.delivered,
    ),
    _Metric(
        "nodedb_ring_follower_replayed_events_total",
        "Events that the follower delivered from the log, not from the ring.",
        lambda stats: stats.replayed,
    ),
    _Metric(
        "nodedb_ring_follower_gaps_total",
        "Holes that the follower asked the log to fill.",
        lambda stats: stats.gaps,
    ),
    _Metric(
        "nodedb_ring_follower_catch_up_episodes_total",
        "Times that the follower turned from the ring to the log.",
        lambda stats: stats.episodes,
    ),
    _Metric(
        "nodedb_ring_follower_duplicate_events_total",
        "Events that ring or log offered again and that the follower dropped.",
        lambda stats: stats.duplicates,
    ),
    _Metric(
        "nodedb_ring_follower_heartbeats_total",
        "Heartbeats that the follower passed over.",
        lambda stats: stats.heartbeats,
    ),
    _Metric(
        "nodedb_ring_follower_position",
        "The last sequence number that the follower delivered or skipped; no sample before the first.",
        lambda stats: stats.position,
    ),
    _Metric(
        "nodedb_ring_follower_lag_events",
        "Sequence numbers known to be tried and not delivered yet, including dropped ones.",
        lambda stats: stats.lag,
    ),
)


@final
class RingCollector(Collector):
    """A collector for ``prometheus_client``: ``REGISTRY.register(RingCollector(bus))``.

    One collector serves all buses of a process: pass one here, and the others to ``add``. Every metric has the labels
    ``bus`` and ``core``, and those of followers ``group`` too; ``docs/metrics.md`` lists them. A registry takes one
    collector, and refuses a second one, which would export the same metrics again.

    Parameters
    ----------
    bus, name, followers
        As for ``add``. Without them the collector has nothing to collect yet.

    Notes
    -----
    It has no thread and no counters. It keeps no end and no follower alive, so an end that is dropped is garbage
    collected and its disconnect shows. It keeps the memory of a private bus, and so the final counts, until ``remove``.
    A follower's metrics disappear with the follower.

    If ``PROMETHEUS_MULTIPROC_DIR`` is set, the workers of a server export what ``MultiProcessCollector`` finds in
    files, and not the collectors of ``REGISTRY``. Making a collector then logs a WARNING. Register it with the registry
    of the ``MultiProcessCollector``.

    Thread safety
    -------------
    Any thread, and so any HTTP server.
    """

    def __init__(
        self,
        bus: EventBus | Iterable[EventProducer | EventConsumer] = (),
        *,
        name: str | None = None,
        followers: Iterable[Follower] = (),
    ) -> None:
        # Replaced and never changed, so that a scrape can iterate over it meanwhile. In the order of addition.
        self._rings: Mapping[tuple[str, int], Callable[[], _RingSnapshot]] = {}
        self._followers: Mapping[tuple[str, int, str], weakref.ref[Follower]] = {}
        self._adding = threading.Lock()
        if _MULTIPROCESS & os.environ.keys():
            log_safely(
                logging.WARNING,
                "PROMETHEUS_MULTIPROC_DIR is set: collectors that are registered with prometheus_client.REGISTRY are"
                " not exported; register the RingCollector with the registry of the MultiProcessCollector, as"
                " docs/metrics.md shows",
            )
        self.add(bus, name=name, followers=followers)

    def add(
        self,
        bus: EventBus | Iterable[EventProducer | EventConsumer] = (),
        *,
        name: str | None = None,
        followers: Iterable[Follower] = (),
    ) -> None:
        """Collects from a bus, or from followers, or from both, from the next scrape on.

        Parameters
        ----------
        bus : EventBus, or ends from ``create_event_bus``
            A shared bus; or the producers of a private one, its consumers, or both: either end shows its whole ring.
        name : str, optional
            The value of the label ``bus``: by default the shared bus's name.
        followers : iterable of Follower
            Followers of the bus of this name. One with the core and group of an earlier one replaces it.

        Raises
        ------
        ValueError
            A core of a bus of this name is collected already. Or an end of a shared bus was passed: pass the bus.
        TypeError
            No name, and no `EventBus` to take it from; or something other than ends and followers.
        """
        rings: dict[tuple[str, int], Callable[[], _RingSnapshot]] = {}
        following: dict[tuple[str, int, str], weakref.ref[Follower]] = {}
        if isinstance(bus, EventBus):
            name = bus.name if name is None else name
            rings = {(_checked(name), core_id): _reader_of_shared(bus, core_id) for core_id in range(bus.num_cores)}
        else:
            for ring in _private_rings(bus):
                if (_checked(name), ring.core_id) in rings:
                    raise ValueError(
                        f"bus {name!r}: has two rings of core {ring.core_id}; add each bus by a name of its own"
                    )
                rings[_checked(name), ring.core_id] = _reader_of_private(ring)
        _refuse_single(followers)
        for follower in followers:
            if not isinstance(follower, Follower):
                raise TypeError(f"{follower!r}: must be a Follower, as follow() makes it")
            following[_checked(name), follower.core_id, follower.group] = weakref.ref(follower)
        with self._adding:
            for bus_name, core_id in rings:
                if (bus_name, core_id) in self._rings:
                    raise ValueError(
                        f"bus {bus_name!r}, core {core_id}: is collected already; pass another name=,"
                        f" or remove({bus_name!r}) first"
                    )
            self._rings = {**self._rings, **rings}
            alive = {key: reference for key, reference in self._followers.items() if reference() is not None}
            self._followers = {**alive, **following}

    def remove(self, name: str) -> None:
        """Removes the bus of that name and its followers from the next scrape on.

        Raises
        ------
        ValueError
            There is none of that name.
        """
        with self._adding:
            names = {key[0] for key in (*self._rings, *self._followers)}
            if name not in names:
                raise ValueError(f"bus {name!r}: is not collected; there are {sorted(names)}")
            self._rings = {key: read for key, read in self._rings.items() if key[0] != name}
            self._followers = {key: follower for key, follower in self._followers.items() if key[0] != name}

    def describe(self) -> Iterator[Metric]:
        """The metrics without samples, which a registry compares. So registering reads no ring."""
        up, of_rings, of_followers = _families()
        yield from (up, *of_rings, *of_followers)

    def collect(self) -> Iterator[Metric]:
        """Reads every ring and follower. A ring that cannot be read has only ``nodedb_ring_up``, which is 0."""
        up, of_rings, of_followers = _families()
        for (name, core_id), read in self._rings.items():
            labels = (name, str(core_id))
            try:
                snapshot = read()
            except RingError:
                _UP.add_to(up, labels, False)
                continue
            _UP.add_to(up, labels, True)
            for metric, family in zip(_RING_METRICS, of_rings, strict=True):
                metric.add_to(family, labels, snapshot)
        for (name, core_id, group), reference in self._followers.items():
            follower = reference()
            if follower is not None:
                stats = follower.stats()
                for of_follower, family in zip(_FOLLOWER_METRICS, of_followers, strict=True):
                    of_follower.add_to(family, (name, str(core_id), group), stats)
        yield from (up, *of_rings, *of_followers)


def _families() -> tuple[_Family, list[_Family], list[_Family]]:
    """The families of a scrape, empty: that of ``up``, and those of the two tables, in their order."""
    return (
        _UP.family("bus", "core"),
        [metric.family("bus", "core") for metric in _RING_METRICS],
        [metric.family("bus", "core", "group") for metric in _FOLLOWER_METRICS],
    )


def _checked(name: str | None) -> str:
    if not isinstance(name, str):
        raise TypeError(f"name {name!r}: must be a str, where there is no EventBus to take it from")
    return name


def _refuse_single(given: object) -> None:
    """Refuses a single end or follower: it is an iterable itself, and iterating over it would take batches."""
    if isinstance(given, EventProducer | EventConsumer | Follower):
        raise TypeError(f"{given!r}: is one alone; pass a list of such, of one too")


def _private_rings(ends: Iterable[EventProducer | EventConsumer]) -> list[EventRing]:
    """The rings of some ends, each once."""
    rings: dict[int, EventRing] = {}
    _refuse_single(ends)
    for end in ends:
        if not isinstance(end, EventProducer | EventConsumer):
            raise TypeError(f"{end!r}: must be an EventProducer or an EventConsumer")
        # The ring and not the end, which would be kept alive here, so that its disconnect would not show.
        ring = end.ring
        if ring.claims != (0, 0):
            # Its ring holds the claim's lock, which no successor would get while the ring is kept here.
            raise ValueError(
                f"core {ring.core_id}: is an end of a shared bus; pass the EventBus that it was claimed from"
            )
        rings[id(ring)] = ring
    return list(rings.values())


def _reader_of_shared(bus: EventBus, core_id: int) -> Callable[[], _RingSnapshot]:
    def read() -> _RingSnapshot:
        # If a consumer is claimed during a read, `redelivered` may be as after the claim and `received` as before it.
        # Their sum would be too high, and fall later. So the read is repeated until there was no claim meanwhile. The
        # limit is for a block that something else writes to.
        stats = bus.ring_stats(core_id)
        for _ in range(100):
            before, stats = stats, bus.ring_stats(core_id)
            if stats.consumer.redelivered == before.consumer.redelivered:
                break
        return _RingSnapshot(stats, bus.capacity, bus.arena_bytes)

    return read


def _reader_of_private(ring: EventRing) -> Callable[[], _RingSnapshot]:
    def read() -> _RingSnapshot:
        producer_gone, consumer_gone = ring.gone
        pid = os.getpid()
        stats = RingStats(
            core_id=ring.core_id,
            pressure_state=ring.pressure_state,
            utilization=ring.utilization,
            producer=producer_stats(ring),
            consumer=consumer_stats(ring),
            producer_pid=None if producer_gone else pid,
            consumer_pid=None if consumer_gone else pid,
            producer_claims=0,
            consumer_claims=0,
        )
        return _RingSnapshot(stats, ring.capacity, ring.arena_bytes)

    return read
