"""A materialized view: totals by carrier, kept up to date from the columns of write events alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgpack
import numpy as np
import numpy.typing as npt

from ... import EventBatch, WriteOp
from .totals import CarrierTotals, TotalsByCarrier

__all__ = ["CarrierView"]

_SCHEDULED, _FLOWN, _CANCELLED, _DELAY = range(len(CarrierTotals._fields))
_EVERY_OP: Final = max(WriteOp) + 1


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
        self._places = {carrier: place for place, carrier in enumerate(before)}
        self._totals = np.array([*before.values()], np.int64).reshape(-1, len(CarrierTotals._fields)).T.copy()
        self._events = np.zeros(_EVERY_OP, np.int64)
        for op, count in (events or {}).items():
            self._events[op] = count

    def apply(self, batch: EventBatch) -> None:
        """Brings the view up to date with the events of `batch`."""
        op = batch.op
        inserted, updated, deleted = (op == kind for kind in (WriteOp.INSERT, WriteOp.UPDATE, WriteOp.DELETE))
        appears, goes = inserted | updated, updated | deleted
        if appears.any():
            carriers = self._fold(batch.values("new_value")[appears], sign=1)
            np.add.at(self._totals[_SCHEDULED], carriers[inserted[appears]], 1)
        if goes.any():
            carriers = self._fold(batch.values("old_value")[goes], sign=-1)
            np.add.at(self._totals[_CANCELLED], carriers[deleted[goes]], 1)
        self._events += np.bincount(op, minlength=_EVERY_OP)

    def _fold(self, values: npt.NDArray[np.object_], sign: int) -> npt.NDArray[np.intp]:
        """Adds the departures in the rows, or subtracts them if `sign` is -1; returns the places of the carriers."""
        rows = [msgpack.unpackb(value) for value in values]
        carriers = self._places_of(np.array([row["carrier"] for row in rows]))
        delay = np.array([row["dep_delay"] for row in rows], np.float64)  # None becomes NaN
        flown = ~np.isnan(delay)
        np.add.at(self._totals[_FLOWN], carriers[flown], sign)
        np.add.at(self._totals[_DELAY], carriers[flown], sign * delay[flown].astype(np.int64))
        return carriers

    def _places_of(self, carriers: npt.NDArray[np.str_]) -> npt.NDArray[np.intp]:
        """The place of each carrier's totals; a new carrier gets the next place."""
        names, which = np.unique(carriers, return_inverse=True)
        places = [self._places.setdefault(name, len(self._places)) for name in names.tolist()]
        fresh = len(self._places) - self._totals.shape[1]
        self._totals = np.pad(self._totals, ((0, 0), (0, fresh)))
        return np.array(places, np.intp)[which]

    def totals(self) -> TotalsByCarrier:
        """The present totals by carrier."""
        return {carrier: CarrierTotals(*self._totals[:, place].tolist()) for carrier, place in self._places.items()}

    def events(self) -> dict[WriteOp, int]:
        """How many events of each operation went into it."""
        return {op: int(self._events[op]) for op in WriteOp}
