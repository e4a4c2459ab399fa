"""What the demo asks twice, of the events and of the databases: totals by carrier."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeAlias

__all__ = ["CarrierTotals", "TotalsByCarrier", "add_totals"]


class CarrierTotals(NamedTuple):
    """One carrier's flights, and the sum of their departure delays in minutes: whole numbers, compared exactly."""

    scheduled: int
    flown: int
    cancelled: int
    delay: int

    @property
    def mean_delay(self) -> float | None:
        """Minutes of delay a flight that has flown; None if there is none."""
        return self.delay / self.flown if self.flown else None


TotalsByCarrier: TypeAlias = dict[str, CarrierTotals]


def add_totals(parts: Iterable[Mapping[str, CarrierTotals]]) -> TotalsByCarrier:
    """The totals of several cores as one, by carrier in alphabetical order."""
    whole: TotalsByCarrier = {}
    for part in parts:
        for carrier, more in part.items():
            whole[carrier] = CarrierTotals(*map(sum, zip(whole.get(carrier, (0, 0, 0, 0)), more, strict=True)))
    return dict(sorted(whole.items()))
