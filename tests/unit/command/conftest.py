"""What the tests of the command line share: the demo's flights, and an environment that names no terminal."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from nodedb_ring.command.demo.database import open_database
from nodedb_ring.command.demo.flights import Flight, load_flights
from tests.absent_libraries import ABSENT
from tests.unit.capture.postgres.conftest import database, server

__all__ = ["database", "server"]

# Without psycopg2 it cannot even be imported.
collect_ignore = ["test_demo_postgres.py"] if "psycopg2" in ABSENT else []


@pytest.fixture
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a CI job may set to have colours would be taken for a terminal."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def flights() -> list[Flight]:
    """The whole year: reading it takes a second."""
    return load_flights()


@pytest.fixture
def at_hand(monkeypatch: pytest.MonkeyPatch, flights: list[Flight]) -> None:
    """Gives the command the flights that the tests have read already."""

    def first(most: int | None) -> list[Flight]:
        return flights[:most]

    monkeypatch.setattr("nodedb_ring.command.demo.command.load_flights", first)


@pytest.fixture
def databases(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "core.0", tmp_path / "core.1"


@pytest.fixture
def slow_databases(databases: tuple[Path, Path]) -> tuple[Path, Path]:
    """Databases whose writers commit at once for a while, and then take seconds for each transaction.

    So nobody has ended when a test kills somebody, however late it comes to that.
    """
    for path in databases:
        with contextlib.closing(open_database(path)) as connection:
            connection.execute(
                "CREATE TRIGGER slow AFTER INSERT ON flights WHEN new.flight_id > 6000 AND new.flight_id % 30 = 0 BEGIN"
                " SELECT sum(one.number * other.number) FROM (SELECT number FROM flights LIMIT 1000) AS one,"
                " (SELECT number FROM flights LIMIT 1000) AS other; END"
            )
    return databases
