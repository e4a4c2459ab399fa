"""The log on a real nats-server: a group has one follower at a time per core."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import pytest

from nodedb_ring import RoleTaken, follow
from tests.unit.log.nats_server import NatsServer

if os.environ.get("CI") != "true":
    pytest.importorskip("nats")

import nats.errors
from nats.aio.client import Client

from nodedb_ring.log.jetstream import JetStreamEventLog, claims

from .numbered import names, numbered

pytestmark = pytest.mark.usefixtures("program")

HOLDER = """
import sys, time
from nodedb_ring import follow
from nodedb_ring.log.jetstream import JetStreamEventLog

log = JetStreamEventLog(sys.argv[1], sys.argv[2])
follower = follow(None, log, core_id=0, group="g")
print("held", flush=True)
time.sleep(600)
"""


def test_a_second_follower_is_refused_and_told_who_follows(server: NatsServer, log: JetStreamEventLog) -> None:
    with JetStreamEventLog(server.url, log.stream, timeout=5) as other:
        with follow(None, log, core_id=0, group="g"):
            for each in (log, other):
                said = rf"core 0 is followed for group 'g' by process {os.getpid()} on {socket.gethostname()}, since 20"
                with pytest.raises(RoleTaken, match=said) as raised:
                    follow(None, each, core_id=0, group="g")
                assert raised.value.pid == os.getpid()
            follow(None, other, core_id=1, group="g").close()
            follow(None, other, core_id=0, group="h").close()
        follow(None, other, core_id=0, group="g").close()


def test_a_follower_that_nobody_has_any_more_holds_nothing(log: JetStreamEventLog) -> None:
    follower = follow(None, log, core_id=0, group="g")
    del follower
    follow(None, log, core_id=0, group="g").close()


def test_a_dead_holder_is_succeeded_at_once(server: NatsServer, log: JetStreamEventLog) -> None:
    """Not after its key's time to live: nothing here lasts half as long."""
    arguments = [sys.executable, "-c", HOLDER, server.url, log.stream]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        holder.send_signal(signal.SIGSTOP)
        with pytest.raises(RoleTaken, match=f"process {holder.pid} on "):
            follow(None, log, core_id=0, group="g")
        holder.kill()
        holder.wait()
        follow(None, log, core_id=0, group="g").close()


def test_the_holder_is_asked_again_where_the_connection_is_lost(
    server: NatsServer, log: JetStreamEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with JetStreamEventLog(server.url, log.stream, timeout=5) as other, follow(None, log, core_id=0, group="g"):
        asked: list[str] = []
        lost = [nats.errors.OutboundBufferLimitError, nats.errors.StaleConnectionError, ConnectionResetError]
        request = Client.request

        async def request_after_losses(self: Client, subject: str, *arguments: Any, **named: Any) -> Any:
            if not subject.startswith("$"):
                asked.append(subject)
                if lost:
                    raise lost.pop()
            return await request(self, subject, *arguments, **named)

        monkeypatch.setattr(Client, "request", request_after_losses)
        with pytest.raises(RoleTaken):
            follow(None, other, core_id=0, group="g")
        assert len(asked) == 4


def test_a_holder_that_was_succeeded_cannot_commit(
    server: NatsServer, log: JetStreamEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was cut off for longer than its key lives, and goes on."""
    log.append(0, numbered(1, 10))
    monkeypatch.setattr(claims, "CLAIM_SECONDS", 0.3)
    slow = follow(None, log, core_id=0, group="g")
    slow.next_batch(5)
    claim = slow._claim  # pyright: ignore[reportPrivateUsage]
    assert isinstance(claim, claims.KeyClaim)

    async def take_over() -> None:
        entry = await claim._bucket.get(claim._key)  # pyright: ignore[reportPrivateUsage]
        other = b'{"pid": 1, "host": "elsewhere", "since": 1.5}'
        await claim._bucket.update(claim._key, other, last=entry.revision)  # pyright: ignore[reportPrivateUsage]
        await claim._write_again()  # pyright: ignore[reportPrivateUsage]

    log._connection.call("", take_over)  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(RoleTaken, match="by process 1 on elsewhere, since 1970") as raised:
        slow.commit()
    assert raised.value.pid is None
    assert log.load_watermark("g", 0) is None


def test_a_holder_outlives_its_key_and_its_server(own: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "CLAIM_SECONDS", 0.5)
    with (
        JetStreamEventLog(own.url, next(names), timeout=10) as log,
        JetStreamEventLog(own.url, log.stream, timeout=10) as other,
        follow(None, log, core_id=0, group="g") as follower,
    ):
        log.append(0, numbered(1, 10))
        own.kill()
        own.start()
        assert len(follower.next_batch(10)) == 10
        follower.commit()
        until = time.monotonic() + 2 * claims.CLAIM_SECONDS
        while time.monotonic() < until:
            with pytest.raises(RoleTaken):
                follow(None, other, core_id=0, group="g")
