"""A server for all tests of a process, and a database for each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.absent_libraries import ABSENT

if TYPE_CHECKING:
    from .server import Database, PostgresServer

# Without psycopg2 nothing here can even be imported.
collect_ignore_glob = ["test_*.py"] if "psycopg2" in ABSENT else []


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    """Its tests are skipped without PostgreSQL, and fail in CI."""
    from .server import PostgresServer

    with PostgresServer() as running:
        yield running


@pytest.fixture
def database(server: PostgresServer) -> Iterator[Database]:
    """An empty one."""
    made = server.database()
    yield made
    server.drop(made)


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server to kill."""
    from .server import PostgresServer

    with PostgresServer() as running:
        yield running
