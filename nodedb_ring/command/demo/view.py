"""A materialized view: totals by carrier, kept up to date from the columns of write events alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from ... import EventBatch, RowSchema, WriteOp
from .totals import CarrierTotals, TotalsByCarrier

__all__ = ["CarrierView"]

_SCHEDULED, _FLOWN, _CANCELLED, _DELAY = range(len(CarrierTotals._fields))
_EVERY_OP: Final = max(WriteOp) + 1
_COLUMNS: Final = RowSchema({"carrier": "str", "dep_delay": "int64"})


class CarrierView:
    """The totals of one core's flights; after each batch they equal totals computed again from the table.

    A new row adds its values to its carrier, and an old row subtracts them; an UPDATE does both. So a departure that is
    corrected, or moved to another carrier, is counted right. INSERT is a scheduled flight, DELETE a cancelled one.

    Parameters
    ----------
    totals, events : mappings, optional
        The state of an earlier view, from which this one continues.

    Thread safety: one thread at a time.
    """

    def __init__(self, totals: Mapping[str, CarrierTotals] | None = None, events: Mapping[WriteOp, int] | None = None):
        before = {} if totals is None else totals
        self._places = _Places({carrier: place for place, carrier in enumerate(before)})
        self._totals = np.array([*before.values()], np.int64).reshape(-1, len(CarrierTotals._fields)).T.copy()
        self._events = np.zeros(_EVERY_OP, np.int64)
        for op, count in (events or {}).items():
            self._events[op] = count

    def apply(self, batch: EventBatch) -> None:
        """Brings the view up to date with the events of `batch`."""
        added = self._fold(batch, "new_value", WriteOp.INSERT, sign=1)
        removed = self._fold(batch, "old_value", WriteOp.DELETE, sign=-1)
        self._totals[_SCHEDULED] += self._count(added)
        self._totals[_CANCELLED] += self._count(removed)
        self._events += np.bincount(batch.op, minlength=_EVERY_OP)

    def _fold(self, batch: EventBatch, field: str, op: WriteOp, *, sign: int) -> npt.NDArray[np.intp]:
        """Adds the departures in the rows of a field, or subtracts them; returns the places of the carriers of `op`."""
        rows = batch.rows(field, _COLUMNS)
        present = rows.present
        places = self._places_of(rows["carrier"][present])
        self._totals[_FLOWN] += sign * self._count(places[rows.valid("dep_delay")[present]])
        # A flight that has not departed has no delay, which the column has as 0.
        np.add.at(self._totals[_DELAY], places, sign * rows["dep_delay"][present])
        has_op: npt.NDArray[np.bool_] = batch.op[present] == op
        return places[has_op]

    def _places_of(self, carriers: npt.NDArray[np.object_]) -> npt.NDArray[np.intp]:
        """The place of each carrier's totals; a new carrier gets the next place."""
        # Looked up and not sorted: `np.unique` takes twice as long for the dozen carriers of a batch.
        places = np.fromiter(map(self._places.__getitem__, carriers), np.intp, len(carriers))
        fresh = len(self._places) - self._totals.shape[1]
        if fresh:
            self._totals = np.pad(self._totals, ((0, 0), (0, fresh)))
        return places

    def _count(self, places: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        return np.bincount(places, minlength=len(self._places))

    def totals(self) -> TotalsByCarrier:
        """The present totals by carrier."""
        return {carrier: CarrierTotals(*self._totals[:, place].tolist()) for carrier, place in self._places.items()}

    def events(self) -> dict[WriteOp, int]:
        """How many events of each operation went into it."""
        return {op: int(self._events[op]) for op in WriteOp}


class _Places(dict[str, int]):
    """The place of each carrier, which it gets when it is first asked for."""

    def __missing__(self, carrier: str) -> int:
        self[carrier] = place = len(self)
        return place
