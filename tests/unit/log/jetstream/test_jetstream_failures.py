"""The log on a real nats-server: damage, kills and restarts, and acknowledgements that do not come."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Generator, Iterator

import pytest

from nodedb_ring import EventBatch, follow
from nodedb_ring.errors import CorruptLogError, LogUnavailableError
from tests.unit.log.nats_server import NatsServer

if os.environ.get("CI") != "true":
    pytest.importorskip("nats")

import nats

from nodedb_ring.log.jetstream import JetStreamEventLog

from .numbered import everything, numbered, stored

pytestmark = pytest.mark.usefixtures("program")


@contextlib.contextmanager
def impatient(log: JetStreamEventLog) -> Generator[None]:
    """Times out soon. (Calls that must succeed use long time-outs, because a busy machine may pause.)"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log._connection, "timeout", 0.6)  # pyright: ignore[reportPrivateUsage]
        yield


async def tamper(url: str, subject: str, body: bytes) -> None:
    client = await nats.connect(url)
    await client.jetstream().publish(subject, body)
    await client.close()


@pytest.mark.parametrize("damage", ["rows", "core", "text", "short"])
def test_a_damaged_message_is_reported(server: NatsServer, log: JetStreamEventLog, damage: str) -> None:
    log.append(4, numbered(1, 5))
    log.append(0, numbered(1, 5))
    body = asyncio.run(stored(server.url, f"{log.stream}_core_0", 1))
    spoiled = {
        "rows": body[:60] + bytes([body[60] ^ 1]) + body[61:],
        "core": asyncio.run(stored(server.url, f"{log.stream}_core_4", 1)),
        "text": b"hello" * 20,
        "short": body[:-1],
    }[damage]
    asyncio.run(tamper(server.url, f"{log.stream}.core.0", spoiled))
    with pytest.raises(CorruptLogError, match="core 0"):
        everything(log)


def test_a_server_that_goes_away(own: NatsServer) -> None:
    with JetStreamEventLog(own.url, "log", timeout=20) as log:
        log.append(0, numbered(1, 5))
        own.kill()
        with impatient(log):
            with pytest.raises(LogUnavailableError, match=own.url):
                log.append(0, numbered(6, 5))
            with pytest.raises(LogUnavailableError):
                log.last_sequence(0)
        own.start()
        log.append(0, numbered(6, 5))
        assert everything(log) == list(range(1, 11))


def test_an_append_of_unknown_end_is_made_again(own: NatsServer) -> None:
    """The server is stopped in its tracks, takes the message from the socket when it continues, and has it once."""
    with JetStreamEventLog(own.url, "log", timeout=20) as log:
        log.append(0, numbered(1, 5))
        own.pause()
        with impatient(log), pytest.raises(LogUnavailableError):
            log.append(0, numbered(6, 5))
        own.resume()
        log.append(0, numbered(6, 5))
        assert everything(log) == list(range(1, 11))
        log.append(0, numbered(11, 5))
        assert everything(log) == list(range(1, 16))


def test_a_slow_acknowledgement_stores_no_second_batch(own: NatsServer) -> None:
    with JetStreamEventLog(own.url, "log", timeout=20) as log:
        log.append(0, numbered(0, 1))
        own.pause()
        # Longer than an acknowledgement is waited for, which is two seconds at most.
        timer = threading.Timer(2.6, own.resume)
        timer.start()
        log.append_all(0, (numbered(n, 1) for n in range(1, 30)))
        timer.join()
        assert everything(log) == list(range(30))


def test_a_window_of_publishes_is_in_flight(own: NatsServer) -> None:
    with JetStreamEventLog(own.url, "log", timeout=20, window=9) as log:
        log.append(0, numbered(0, 1))
        own.pause()
        batches = [numbered(n, 1) for n in range(1, 30)]
        writer = threading.Thread(target=log.append_all, args=(0, batches))
        writer.start()
        until = time.monotonic() + 20
        while time.monotonic() < until and len(log._connection.acks.pending) < 9:  # pyright: ignore[reportPrivateUsage]
            time.sleep(0.005)
        time.sleep(0.1)
        assert len(log._connection.acks.pending) == 9  # pyright: ignore[reportPrivateUsage]
        own.resume()
        writer.join()
        assert everything(log) == list(range(30))


def test_kill_and_restart_in_the_midst(own: NatsServer) -> None:
    """Everything acknowledged is there, once, in order; and the writer continues by itself."""
    fed: list[int] = []

    def some() -> Iterator[EventBatch]:
        for number in range(4000):
            fed.append(number)
            yield numbered(number * 4, 4, size=500)

    done: list[BaseException | None] = []

    with JetStreamEventLog(own.url, "log", timeout=10) as log, JetStreamEventLog(own.url, "log", timeout=10) as reader:

        def write() -> None:
            try:
                log.append_all(0, some())
                done.append(None)
            except BaseException as error:
                done.append(error)

        writer = threading.Thread(target=write)
        writer.start()
        for part in (300, 700, 1100):
            until = time.monotonic() + 20
            while len(fed) < part and time.monotonic() < until:
                time.sleep(0.001)
            assert len(fed) < 4000, "killed too late"
            own.kill()
            own.start()
        writer.join(60)
        assert done == [None]
        assert everything(log) == list(range(16000))
        assert reader.wait_beyond(0, 15998, 10)
        assert everything(reader) == list(range(16000))


def test_a_follower_on_another_machine_loses_nothing(own: NatsServer) -> None:
    """It has no ring, is slow, starts again from its watermark, and the server is killed under it."""
    batches = 600
    got: list[int] = []
    with JetStreamEventLog(own.url, "log", timeout=10) as log, JetStreamEventLog(own.url, "log", timeout=10) as reader:
        writer = threading.Thread(target=log.append_all, args=(0, (numbered(4 * n + 1, 4) for n in range(batches))))
        writer.start()
        kill_at = [400, 1200]
        while len(got) < 4 * batches:
            with follow(None, reader, group="g", core_id=0) as follower:
                until = len(got) + 700
                while len(got) < min(until, 4 * batches):
                    if kill_at and len(got) >= kill_at[0]:
                        del kill_at[0]
                        own.kill()
                        own.start()
                        time.sleep(0.05)
                    try:
                        batch = follower.next_batch(5)
                        got += batch.sequence.tolist()
                        follower.commit()
                    except LogUnavailableError:
                        continue  # the next call tries again
                    assert follower.position == got[-1]
        writer.join(60)
        assert reader.load_watermark("g", 0) == 4 * batches
    assert got == list(range(1, 4 * batches + 1))


def test_a_server_that_lost_acknowledged_batches_is_reported(own: NatsServer) -> None:
    with JetStreamEventLog(own.url, "log", storage="file", timeout=5) as log:
        log.append_all(0, (numbered(n, 1) for n in range(10)))
        asyncio.run(delete_last(own.url, "log_core_0"))
        with pytest.raises(CorruptLogError, match="lost"):
            log.append(0, numbered(10, 1))


async def delete_last(url: str, stream: str) -> None:
    """Makes the stream again with less in it, as after a power cut."""
    client = await nats.connect(url)
    context = client.jetstream()
    config = (await context.stream_info(stream)).config
    kept = [await context.get_msg(stream, position) for position in range(1, 6)]
    await context.delete_stream(stream)
    await context.add_stream(config)
    for message in kept:
        await context.publish(message.subject or "", message.data or b"", headers={"Nats-Msg-Id": str(message.seq)})
    await client.close()
