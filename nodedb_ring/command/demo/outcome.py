"""What came of a run: the accounts of each core's ring, the view and the databases' answer."""

from __future__ import annotations

import dataclasses

from ... import ConsumerStats, ProducerStats, WriteOp
from .totals import TotalsByCarrier, add_totals

__all__ = ["CoreOutcome", "Outcome", "Recovered"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What the log behind one core's ring has, and what a follower fetched from it.

    ``last_sequence`` is the highest number in the log; ``gaps``, ``replayed`` and ``episodes`` are as in
    ``nodedb_ring.FollowStats``.
    """

    last_sequence: int
    gaps: int
    replayed: int
    episodes: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CoreOutcome:
    """What went through one core's ring, and the view that its events made."""

    airports: tuple[str, ...]
    capacity: int
    producer: ProducerStats
    consumer: ConsumerStats
    events: dict[WriteOp, int]
    view: TotalsByCarrier
    recovered: Recovered | None = None
    """None without a log."""

    @property
    def missing(self) -> int:
        """Events that the view has not seen: its core numbered them from 1 without a hole."""
        last = self.producer.emitted_sequence or 0 if self.recovered is None else self.recovered.last_sequence
        return last - sum(self.events.values())

    @property
    def excused(self) -> int:
        """Events that the view may not have seen: what its ring dropped, and with a log none."""
        return self.producer.dropped if self.recovered is None else 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a run: each core's part, and what the databases say."""

    cores: tuple[CoreOutcome, ...]
    database: TotalsByCarrier
    seconds: float
    killed: dict[str, int] = dataclasses.field(default_factory=dict[str, int])
    """By role, how often a process was killed and started again."""

    @property
    def view(self) -> TotalsByCarrier:
        """The view of all cores together."""
        return add_totals(core.view for core in self.cores)

    @property
    def missing(self) -> int:
        """Events that the view has not seen."""
        return sum(core.missing for core in self.cores)
