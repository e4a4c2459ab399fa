"""A server of NATS and a log on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.unit.log.nats_server import NatsServer

from .numbered import SERVERS_OWN_BYTES, names

if TYPE_CHECKING:
    from nodedb_ring.log.jetstream import JetStreamEventLog


@pytest.fixture(scope="module")
def server(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One for the tests that do it no harm."""
    with NatsServer(tmp_path_factory.mktemp("nats"), max_payload=SERVERS_OWN_BYTES) as running:
        yield running


@pytest.fixture
def log(server: NatsServer) -> Iterator[JetStreamEventLog]:
    # Not above: without nats-py the tests skip, and this file is read all the same.
    from nodedb_ring.log.jetstream import JetStreamEventLog

    with JetStreamEventLog(server.url, next(names), timeout=5) as opened:
        yield opened
