"""What a run produced: the statistics of each core's ring, the view, and the databases' own answer.

Every way to run the demo (threads, processes, processes with logs, PostgreSQL) ends in one `collect_outcome`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from ... import ConsumerStats, ProducerStats, WriteOp
from .flights import AIRPORTS
from .totals import TotalsByCarrier, add_totals

__all__ = ["CoreOutcome", "CoreView", "Outcome", "Recovered", "RingAccount", "collect_outcome"]

RingAccount: TypeAlias = tuple[int, ProducerStats, ConsumerStats]
"""The capacity of one ring in events, and the statistics of its two ends."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What the log behind one core's ring holds, and what a follower fetched from it.

    ``last_sequence`` is the highest number in the log; ``gaps``, ``replayed`` and ``episodes`` are as in
    ``nodedb_ring.FollowStats``.
    """

    last_sequence: int
    gaps: int
    replayed: int
    episodes: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CoreView:
    """One core's view at the end of a run, and how many events of each operation went into it."""

    totals: TotalsByCarrier
    events: Mapping[WriteOp, int]
    recovered: Recovered | None = None
    """None without a log."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CoreOutcome:
    """What went through one core's ring, and the view that its events made."""

    airports: tuple[str, ...]
    capacity: int
    producer: ProducerStats
    consumer: ConsumerStats
    events: Mapping[WriteOp, int]
    view: TotalsByCarrier
    recovered: Recovered | None = None
    """None without a log."""

    @property
    def missing(self) -> int:
        """Events that the view has not seen: the core numbered its events from 1 without a hole."""
        last = self.producer.emitted_sequence or 0 if self.recovered is None else self.recovered.last_sequence
        return last - sum(self.events.values())

    @property
    def excused(self) -> int:
        """Events that the view may be missing: those that the ring dropped, or none with a log."""
        return self.producer.dropped if self.recovered is None else 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run produced: each core's part, and what the databases answer."""

    cores: tuple[CoreOutcome, ...]
    database: TotalsByCarrier
    seconds: float
    killed: Mapping[str, int] = dataclasses.field(default_factory=dict[str, int])
    """How often each process was killed and started again, by role."""

    @property
    def view(self) -> TotalsByCarrier:
        """The view of all cores together."""
        return add_totals(core.view for core in self.cores)

    @property
    def missing(self) -> int:
        """Events that the view has not seen."""
        return sum(core.missing for core in self.cores)


def collect_outcome(
    rings: Iterable[RingAccount],
    views: Sequence[CoreView],
    database: TotalsByCarrier,
    *,
    seconds: float,
    killed: Mapping[str, int] | None = None,
    airports: Sequence[tuple[str, ...]] = AIRPORTS,
) -> Outcome:
    """Puts the outcome of a run together.

    Parameters
    ----------
    rings, views : one for each core, in order
    database : mapping of carrier to totals
        What the databases answer, as the run left them.
    seconds : float
        How long the run took.
    killed : mapping of role to count, optional
        How often each process was killed and started again.
    airports : sequence of tuples of str, default AIRPORTS
        Those of each core.
    """
    return Outcome(
        cores=tuple(
            CoreOutcome(
                airports=of_core,
                capacity=capacity,
                producer=producer,
                consumer=consumer,
                events=view.events,
                view=view.totals,
                recovered=view.recovered,
            )
            for of_core, (capacity, producer, consumer), view in zip(airports, rings, views, strict=True)
        ),
        database=database,
        seconds=seconds,
        killed={} if killed is None else killed,
    )
