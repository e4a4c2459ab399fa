"""The year as transactions: a flight is scheduled, and later it flies or is cancelled."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

from .flights import Flight

__all__ = ["Statements", "Transaction", "transactions"]

_TRANSACTION_ROWS: Final = 1000

Transaction: TypeAlias = list[tuple[str, Sequence[tuple[int | str | None, ...]]]]
"""Statements in order, each with the rows of values that it is executed with."""


class Statements(NamedTuple):
    """What a database executes for each flight, with a place for each value.

    ``schedule`` takes the first eight fields of a `Flight`; ``depart`` takes ``dep_time``, ``dep_delay`` and
    ``flight_id``; ``cancel`` takes ``flight_id``.
    """

    schedule: str
    depart: str
    cancel: str


def transactions(flights: Sequence[Flight], statements: Statements) -> Iterator[Transaction]:
    """The year by week: first all flights of a week are scheduled, then each flies or is cancelled."""
    for _, group in itertools.groupby(flights, _week):
        week = list(group)
        parts = [week[start : start + _TRANSACTION_ROWS] for start in range(0, len(week), _TRANSACTION_ROWS)]
        for part in parts:
            yield [(statements.schedule, [flight[:8] for flight in part])]
        for part in parts:
            flown = [
                (flight.dep_time, flight.dep_delay, flight.flight_id) for flight in part if flight.dep_time is not None
            ]
            yield [
                (statements.depart, flown),
                (statements.cancel, [(flight.flight_id,) for flight in part if flight.dep_time is None]),
            ]


def _week(flight: Flight) -> int:
    return datetime.date.fromisoformat(flight.date).toordinal() // 7
