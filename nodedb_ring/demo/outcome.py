"""What came of a run: the accounts of each core's ring, the view and the databases' answer."""

from __future__ import annotations

import dataclasses

from .. import ConsumerStats, ProducerStats, WriteOp
from .totals import TotalsByCarrier, add_totals

__all__ = ["CoreOutcome", "Outcome"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CoreOutcome:
    """What went through one core's ring, and the view that its events made."""

    airports: tuple[str, ...]
    capacity: int
    producer: ProducerStats
    consumer: ConsumerStats
    events: dict[WriteOp, int]
    view: TotalsByCarrier

    @property
    def missing(self) -> int:
        """Events that the view has not seen: its core numbered them from 1 without a hole."""
        return (self.producer.emitted_sequence or 0) - sum(self.events.values())


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a run: each core's part, and what the databases say."""

    cores: tuple[CoreOutcome, ...]
    database: TotalsByCarrier
    seconds: float

    @property
    def view(self) -> TotalsByCarrier:
        """The view of all cores together."""
        return add_totals(core.view for core in self.cores)

    @property
    def missing(self) -> int:
        """Events that the view has not seen."""
        return sum(core.missing for core in self.cores)
