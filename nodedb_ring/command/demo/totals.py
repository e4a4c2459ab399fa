"""Totals by carrier: the question that the demo answers twice, from the events and by SQL."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeAlias

__all__ = ["CarrierTotals", "TotalsByCarrier", "add_totals", "sum_totals"]


class CarrierTotals(NamedTuple):
    """One carrier's flights, and the sum of their departure delays in minutes: whole numbers, compared exactly."""

    scheduled: int
    flown: int
    cancelled: int
    delay: int

    @property
    def mean_delay(self) -> float | None:
        """Minutes of delay per flight that has flown; None if none has."""
        return self.delay / self.flown if self.flown else None


TotalsByCarrier: TypeAlias = dict[str, CarrierTotals]


def add_totals(parts: Iterable[Mapping[str, CarrierTotals]]) -> TotalsByCarrier:
    """The totals of several cores as one, by carrier in alphabetical order."""
    by_carrier: dict[str, list[CarrierTotals]] = collections.defaultdict(list)
    for part in parts:
        for carrier, totals in part.items():
            by_carrier[carrier].append(totals)
    return {carrier: _sum(by_carrier[carrier]) for carrier in sorted(by_carrier)}


def sum_totals(totals: TotalsByCarrier) -> CarrierTotals:
    """The totals of all carriers together."""
    return _sum(totals.values())


def _sum(totals: Iterable[CarrierTotals]) -> CarrierTotals:
    return CarrierTotals(*map(sum, zip((0, 0, 0, 0), *totals, strict=True)))
