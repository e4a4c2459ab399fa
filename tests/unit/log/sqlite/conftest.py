"""A log in a SQLite file, with each driver."""

# apsw's stubs name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nodedb_ring.log.sqlite import BUSY_SECONDS, SqliteEventLog
from nodedb_ring.log.sqlite.drivers import DRIVERS

from .numbered import Driver, Sql


@pytest.fixture(params=["sqlite3", "apsw"])
def driver(request: pytest.FixtureRequest) -> Driver:
    return "apsw" if request.param == "apsw" else "sqlite3"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@pytest.fixture
def log(path: Path, driver: Driver) -> Iterator[SqliteEventLog]:
    with SqliteEventLog(path, driver=driver) as opened:
        yield opened


@pytest.fixture
def sql(path: Path, driver: Driver) -> Sql:
    """Runs a statement on a connection of its own, of the same library: two in one process drop each other's locks."""

    def run(statement: str, *bindings: object) -> list[tuple[Any, ...]]:
        connection = DRIVERS[driver](str(path), BUSY_SECONDS)
        try:
            return connection.query(statement, bindings)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        finally:
            connection.close()

    return run
