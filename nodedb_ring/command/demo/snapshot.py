"""A view on disk, together with the number of the last event that went into it: what a consumer starts again from."""

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
    """One core's view as it stood behind one event, and what had been fetched from the log for it by then."""

    position: int | None = None
    """The number of the last event that is in it; None before the first."""
    totals: TotalsByCarrier = dataclasses.field(default_factory=dict[str, CarrierTotals])
    events: dict[WriteOp, int] = dataclasses.field(default_factory=dict[WriteOp, int])
    gaps: int = 0
    replayed: int = 0
    episodes: int = 0

    def save(self, path: Path) -> None:
        """Writes it in place of what is there: whoever is killed meanwhile, one of the two is there, and whole."""
        fresh = Path(f"{path}.new")
        fresh.write_text(json.dumps(dataclasses.asdict(self)))
        os.replace(fresh, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """What was saved last; an empty one if nothing was."""
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
