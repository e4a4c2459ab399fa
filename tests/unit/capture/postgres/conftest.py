"""A server for all tests of a process, and a database for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .server import Database, PostgresServer


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    """Its tests are skipped without PostgreSQL, and fail in CI."""
    running = PostgresServer()
    try:
        running.start()
        yield running
    finally:
        running.remove()


@pytest.fixture
def database(server: PostgresServer) -> Iterator[Database]:
    """An empty one."""
    made = server.database()
    yield made
    server.drop(made)


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server to kill."""
    running = PostgresServer()
    try:
        running.start()
        yield running
    finally:
        running.remove()
