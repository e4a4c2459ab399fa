"""``RingCollector``: reads the counters of rings, followers and captures when Prometheus asks."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar, final

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from ..bus.event_bus import EventBus
from ..ends._consumer import EventConsumer, consumer_stats
from ..ends._producer import EventProducer, producer_stats
from ..ends.logger import log_safely
from ..ends.stats import RingStats
from ..errors import RingError
from ..recovery.follower import Follower
from .families import CAPTURE_METRICS, FOLLOWER_METRICS, RING_METRICS, UP, Family, RingSnapshot

if TYPE_CHECKING:
    from .._ring import EventRing
    from ..capture.postgres import PostgresCapture

__all__ = ["RingCollector"]

# The variable that selects prometheus_client's multiprocess mode, and its older spelling, which is still accepted.
_MULTIPROCESS: Final = frozenset({"PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"})

_Key: TypeAlias = tuple[str, int, str]
"""Of a follower or a capture: the name of its bus, its core, and its group or slot."""
_T = TypeVar("_T")


@final
class RingCollector(Collector):
    """A collector for ``prometheus_client``: ``REGISTRY.register(RingCollector(bus))``.

    One collector serves all buses of a process: pass one here, and the others to ``add``. Every metric has the labels
    ``bus`` and ``core``, those of followers ``group`` too, and those of captures ``slot``; ``docs/metrics.md`` lists
    them. A registry takes one collector, and refuses a second one, which would export the same metrics again.

    Parameters
    ----------
    bus, name, followers, captures
        As for ``add``. Without them the collector has nothing to collect yet.

    Notes
    -----
    It has no thread and no counters. It keeps no end, no follower and no capture alive, so an end that is dropped is
    garbage collected and its disconnect shows. It keeps the memory of a private bus, and so the final counts, until
    ``remove``. The metrics of a follower or a capture disappear with it.

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
        captures: Iterable[PostgresCapture] = (),
    ) -> None:
        # Replaced and never changed, so that a scrape can iterate over it meanwhile. In the order of addition.
        self._rings: Mapping[tuple[str, int], Callable[[], RingSnapshot]] = {}
        self._followers: Mapping[_Key, weakref.ref[Follower]] = {}
        self._captures: Mapping[_Key, weakref.ref[PostgresCapture]] = {}
        self._adding = threading.Lock()
        if _MULTIPROCESS & os.environ.keys():
            log_safely(
                logging.WARNING,
                "PROMETHEUS_MULTIPROC_DIR is set: collectors that are registered with prometheus_client.REGISTRY are"
                " not exported; register the RingCollector with the registry of the MultiProcessCollector, as"
                " docs/metrics.md shows",
            )
        self.add(bus, name=name, followers=followers, captures=captures)

    def add(
        self,
        bus: EventBus | Iterable[EventProducer | EventConsumer] = (),
        *,
        name: str | None = None,
        followers: Iterable[Follower] = (),
        captures: Iterable[PostgresCapture] = (),
    ) -> None:
        """Collects from a bus, from followers or from captures, or from all of them, from the next scrape on.

        Parameters
        ----------
        bus : EventBus, or ends from ``create_event_bus``
            A shared bus; or the producers of a private one, its consumers, or both: either end shows its whole ring.
        name : str, optional
            The value of the label ``bus``: by default the shared bus's name.
        followers : iterable of Follower
            Followers of the bus of this name. One with the core and group of an earlier one replaces it.
        captures : iterable of PostgresCapture
            Captures that emit into the bus of this name. One with the core and slot of an earlier one replaces it.

        Raises
        ------
        ValueError
            A core of a bus of this name is collected already. Or an end of a shared bus was passed: pass the bus.
        TypeError
            No name, and no `EventBus` to take it from; or something other than ends, followers and captures.
        """
        rings: dict[tuple[str, int], Callable[[], RingSnapshot]] = {}
        following: dict[_Key, weakref.ref[Follower]] = {}
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
        capturing = {
            (_checked(name), capture.core_id, capture.slot): weakref.ref(capture)
            for capture in _checked_captures(captures)
        }
        with self._adding:
            for bus_name, core_id in rings:
                if (bus_name, core_id) in self._rings:
                    raise ValueError(
                        f"bus {bus_name!r}, core {core_id}: is collected already; pass another name=,"
                        f" or remove({bus_name!r}) first"
                    )
            self._rings = {**self._rings, **rings}
            self._followers = {**_alive(self._followers), **following}
            self._captures = {**_alive(self._captures), **capturing}

    def remove(self, name: str) -> None:
        """Removes the bus of that name, its followers and its captures from the next scrape on.

        Raises
        ------
        ValueError
            There is none of that name.
        """
        with self._adding:
            names = {key[0] for key in (*self._rings, *self._followers, *self._captures)}
            if name not in names:
                raise ValueError(f"bus {name!r}: is not collected; there are {sorted(names)}")
            self._rings = {key: read for key, read in self._rings.items() if key[0] != name}
            self._followers = {key: follower for key, follower in self._followers.items() if key[0] != name}
            self._captures = {key: capture for key, capture in self._captures.items() if key[0] != name}

    def describe(self) -> Iterator[Metric]:
        """The metrics without samples, which a registry compares. So registering reads no ring."""
        up, of_rings, of_followers, of_captures = _families()
        yield from (up, *of_rings, *of_followers, *of_captures)

    def collect(self) -> Iterator[Metric]:
        """Reads rings, followers and captures. A ring that cannot be read has only ``nodedb_ring_up``, which is 0."""
        up, of_rings, of_followers, of_captures = _families()
        for (name, core_id), read in self._rings.items():
            labels = (name, str(core_id))
            try:
                snapshot = read()
            except RingError:
                UP.add_to(up, labels, False)
                continue
            UP.add_to(up, labels, True)
            for metric, family in zip(RING_METRICS, of_rings, strict=True):
                metric.add_to(family, labels, snapshot)
        for (name, core_id, group), reference in self._followers.items():
            follower = reference()
            if follower is not None:
                stats = follower.stats()
                for of_follower, family in zip(FOLLOWER_METRICS, of_followers, strict=True):
                    of_follower.add_to(family, (name, str(core_id), group), stats)
        for (name, core_id, slot), captured in self._captures.items():
            capture = captured()
            if capture is not None:
                done = capture.stats()
                for of_capture, family in zip(CAPTURE_METRICS, of_captures, strict=True):
                    of_capture.add_to(family, (name, str(core_id), slot), done)
        yield from (up, *of_rings, *of_followers, *of_captures)


def _families() -> tuple[Family, list[Family], list[Family], list[Family]]:
    """The families of a scrape, empty: that of ``up``, and those of the three tables, in their order."""
    return (
        UP.family("bus", "core"),
        [metric.family("bus", "core") for metric in RING_METRICS],
        [metric.family("bus", "core", "group") for metric in FOLLOWER_METRICS],
        [metric.family("bus", "core", "slot") for metric in CAPTURE_METRICS],
    )


def _alive(references: Mapping[_Key, weakref.ref[_T]]) -> dict[_Key, weakref.ref[_T]]:
    return {key: reference for key, reference in references.items() if reference() is not None}


def _checked(name: str | None) -> str:
    if not isinstance(name, str):
        raise TypeError(f"name {name!r}: must be a str, where there is no EventBus to take it from")
    return name


def _refuse_single(given: object) -> None:
    """Refuses a single end or follower: it is an iterable itself, and iterating over it would take batches."""
    if isinstance(given, EventProducer | EventConsumer | Follower):
        raise TypeError(f"{given!r}: is one alone; pass a list of such, of one too")


def _checked_captures(captures: Iterable[PostgresCapture]) -> list[PostgresCapture]:
    try:
        found = list(captures)
    except TypeError:
        raise TypeError(f"captures {captures!r}: is one alone; pass a list of such, of one too") from None
    if found:
        # Not above: it needs psycopg2, which whoever has a capture has.
        from ..capture.postgres import PostgresCapture

        for capture in found:
            if not isinstance(capture, PostgresCapture):
                raise TypeError(f"{capture!r}: must be a PostgresCapture")
    return found


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


def _reader_of_shared(bus: EventBus, core_id: int) -> Callable[[], RingSnapshot]:
    def read() -> RingSnapshot:
        # If a consumer is claimed during a read, `redelivered` may be as after the claim and `received` as before it.
        # Their sum would be too high, and fall later. So the read is repeated until there was no claim meanwhile. The
        # limit is for a block that something else writes to.
        stats = bus.ring_stats(core_id)
        for _ in range(100):
            before, stats = stats, bus.ring_stats(core_id)
            if stats.consumer.redelivered == before.consumer.redelivered:
                break
        return RingSnapshot(stats, bus.capacity, bus.arena_bytes)

    return read


def _reader_of_private(ring: EventRing) -> Callable[[], RingSnapshot]:
    def read() -> RingSnapshot:
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
        return RingSnapshot(stats, ring.capacity, ring.arena_bytes)

    return read
