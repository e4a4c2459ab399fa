"""The log on a real nats-server: calls that wait, what wakes them, and close."""

from __future__ import annotations

import math
import os
import threading
import time

import pytest

from nodedb_ring.errors import ArgumentError, ClosedError
from tests.unit.log.nats_server import NatsServer

if os.environ.get("CI") != "true":
    pytest.importorskip("nats")

from nodedb_ring.log.jetstream import JetStreamEventLog

from .numbered import names, numbered

pytestmark = pytest.mark.usefixtures("program")


def test_wait_beyond_wakes(server: NatsServer, log: JetStreamEventLog) -> None:
    with JetStreamEventLog(server.url, log.stream, timeout=5) as reader:
        assert not reader.wait_beyond(0, 0, 0.05)
        timer = threading.Timer(0.1, log.append, (0, numbered(1, 5)))
        timer.start()
        start = time.monotonic()
        assert reader.wait_beyond(0, 0, 20)
        assert time.monotonic() - start < 10
        timer.join()
        assert reader.wait_beyond(0, 4, 0)
        assert not reader.wait_beyond(0, 5, 0.05)


def test_wait_beyond_is_notified_and_does_not_poll(server: NatsServer, log: JetStreamEventLog) -> None:
    with JetStreamEventLog(server.url, log.stream, timeout=5) as reader:
        assert not reader.wait_beyond(0, 0, 0)
        log.append(0, numbered(1, 5))
        until = time.monotonic() + 10
        stored = reader._core(0).stream.stored  # pyright: ignore[reportPrivateUsage]
        while stored.value < 0 and time.monotonic() < until:
            time.sleep(0.001)
        assert stored.value == 5


def test_a_note_that_was_dropped_is_made_up_for(
    server: NatsServer, log: JetStreamEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with JetStreamEventLog(server.url, log.stream, timeout=5) as reader:
        assert not reader.wait_beyond(0, 0, 0)
        stored = reader._core(0).stream.stored  # pyright: ignore[reportPrivateUsage]
        monkeypatch.setattr(stored, "advance", lambda *_: None)
        log.append(0, numbered(1, 5))
        assert reader.wait_beyond(0, 4, 0.05)


def test_close_wakes_a_waiter(server: NatsServer) -> None:
    log = JetStreamEventLog(server.url, next(names), timeout=5)
    threading.Timer(0.1, log.close).start()
    with pytest.raises(ClosedError):
        log.wait_beyond(0, 0, 1e6)
    with pytest.raises(ClosedError):
        log.last_sequence(0)
    with pytest.raises(ClosedError):
        log.append(0, numbered(1, 1))
    log.close()


def test_close_ends_an_append_that_waits(own: NatsServer) -> None:
    log = JetStreamEventLog(own.url, "log", timeout=20)
    log.append(0, numbered(0, 1))
    own.pause()
    threading.Timer(0.1, log.close).start()
    start = time.monotonic()
    with pytest.raises(ClosedError):
        log.append_all(0, (numbered(n, 1) for n in range(1, 100)))
    assert time.monotonic() - start < 15
    own.resume()


@pytest.mark.parametrize("endless", [math.inf, None, 1e300])
def test_a_log_of_endless_patience_waits_and_can_be_closed(endless: float | None, own: NatsServer) -> None:
    log = JetStreamEventLog(own.url, "endless", timeout=endless)
    log.append(0, numbered(1, 1))
    own.pause()
    closing = threading.Timer(0.1, log.close)
    closing.start()
    with pytest.raises(ClosedError):
        log.append(0, numbered(2, 1))
    own.resume()
    closing.join(60)
    assert not [thread for thread in threading.enumerate() if thread.name == "nodedb-ring-log-endless"]


@pytest.mark.parametrize("endless", [math.inf, 1e300, 10**400])
def test_wait_beyond_without_limit(endless: float, server: NatsServer, log: JetStreamEventLog) -> None:
    with JetStreamEventLog(server.url, log.stream, timeout=5) as reader:
        threading.Timer(0.1, log.append, (0, numbered(1, 5))).start()
        assert reader.wait_beyond(0, 4, endless)


@pytest.mark.parametrize("wrong", [-1, math.nan])
def test_wait_beyond_no_time(wrong: float, log: JetStreamEventLog) -> None:
    with pytest.raises(ArgumentError, match=f"^timeout {wrong}: must be"):
        log.wait_beyond(0, 0, wrong)
