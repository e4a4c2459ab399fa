"""What the tests of the logs share: signals at every bytecode, and servers of NATS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .interrupting import interrupts
from .nats_server import NatsServer, require_nats_server

__all__ = ["interrupts", "own", "program"]


@pytest.fixture(scope="session")
def program() -> str:
    """Where nats-server is. Its tests are skipped without it, and fail in CI."""
    return require_nats_server()


@pytest.fixture
def own(program: str, tmp_path: Path) -> Iterator[NatsServer]:
    """A server to kill."""
    with NatsServer(tmp_path / "nats") as running:
        yield running
