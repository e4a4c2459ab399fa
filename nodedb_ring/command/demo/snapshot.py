"""A view on disk with the number of its last event, from which a restarted consumer continues."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Self

from ... import WriteOp
from .outcome import CoreView, Recovered
from .totals import CarrierTotals, TotalsByCarrier

__all__ = ["Snapshot"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One core's view after one event, and the follower's counts by then."""

    position: int | None = None
    """Sequence number of the last event in the view; None before the first."""
    totals: TotalsByCarrier = dataclasses.field(default_factory=dict[str, CarrierTotals])
    events: dict[WriteOp, int] = dataclasses.field(default_factory=dict[WriteOp, int])
    gaps: int = 0
    replayed: int = 0
    episodes: int = 0

    def save(self, path: Path) -> None:
        """Replaces the file atomically: after a kill it holds the old or the new snapshot, whole."""
        fresh = Path(f"{path}.new")
        fresh.write_text(json.dumps(dataclasses.asdict(self)))
        os.replace(fresh, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """The snapshot saved last, or an empty one."""
        try:
            fields = json.loads(path.read_text())
        except FileNotFoundError:
            return cls()
        fields["totals"] = {carrier: CarrierTotals(*row) for carrier, row in fields["totals"].items()}
        fields["events"] = {WriteOp(int(op)): count for op, count in fields["events"].items()}
        return cls(**fields)

    def core_view(self, *, last_sequence: int) -> CoreView:
        """The view as part of an outcome; `last_sequence` is the highest number in its log."""
        return CoreView(
            totals=self.totals,
            events=self.events,
            recovered=Recovered(
                last_sequence=last_sequence, gaps=self.gaps, replayed=self.replayed, episodes=self.episodes
            ),
        )
