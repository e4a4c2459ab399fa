"""The log on a real nats-server: round trips, fencing, kills and restarts, damage."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from nodedb_ring import EventBatch, WriteOp, follow
from nodedb_ring.errors import (
    ArgumentError,
    ClosedError,
    CorruptLogError,
    ForkError,
    LogConflictError,
    LogError,
    LogUnavailableError,
)
from nodedb_ring.log import LiveEventLog
from tests.unit.runners import in_child

from .nats_server import NatsServer

nats = pytest.importorskip("nats") if os.environ.get("CI") != "true" else __import__("nats")

from nodedb_ring.log.jetstream import JetStreamEventLog  # noqa: E402 - not without nats-py
from nodedb_ring.log.jetstream.message import StoredMessage  # noqa: E402

SERVERS_OWN_BYTES = 64 << 10
names = (f"log{number}" for number in itertools.count())


pytestmark = pytest.mark.usefixtures("program")


@pytest.fixture(scope="module")
def server(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One for the tests that do it no harm."""
    with NatsServer(tmp_path_factory.mktemp("nats"), max_payload=SERVERS_OWN_BYTES) as running:
        yield running


@pytest.fixture
def log(server: NatsServer) -> Iterator[JetStreamEventLog]:
    with JetStreamEventLog(server.url, next(names), timeout=5) as opened:
        yield opened


def numbered(first: int, count: int, size: int = 20, mark: bytes = b"") -> EventBatch:
    values = [mark + str(number).encode().rjust(size, b".") for number in range(first, first + count)]
    return EventBatch.from_columns(
        sequence=range(first, first + count), collection="t", op=WriteOp.INSERT, row_id="r", lsn=1, new_value=values
    )


def numbers(batches: Iterator[EventBatch]) -> list[int]:
    return [int(number) for batch in batches for number in batch.sequence]


def everything(log: JetStreamEventLog, core_id: int = 0) -> list[int]:
    return numbers(log.read(core_id, 0, 2**64 - 1))


@contextlib.contextmanager
def impatient(log: JetStreamEventLog) -> Generator[None]:
    """Times out soon. (Calls that must succeed use long time-outs, because a busy machine may pause.)"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log._connection, "timeout", 0.6)  # pyright: ignore[reportPrivateUsage]
        yield


def test_is_a_live_log(log: JetStreamEventLog) -> None:
    assert isinstance(log, LiveEventLog)


def test_round_trip(log: JetStreamEventLog) -> None:
    batch = numbered(10, 7)
    log.append(3, batch)
    log.append(3, batch[:0])
    [read] = log.read(3, 0, 100)
    assert list(read) == list(batch)
    assert log.last_sequence(3) == 16
    assert everything(log, 2) == []
    assert log.last_sequence(2) is None


def test_read_cuts_to_the_range_from_wherever(server: NatsServer, log: JetStreamEventLog) -> None:
    log.append_all(0, (numbered(10 * n, 5) for n in range(40)))
    want = [10 * n + k for n in range(40) for k in range(5)]
    with JetStreamEventLog(server.url, log.stream, timeout=5) as reader:
        for first, last in ((0, 399), (123, 251), (7, 9), (204, 204), (395, 10_000), (9, 3), (251, 252)):
            asked = [number for number in want if first <= number <= last]
            assert numbers(reader.read(0, first, last)) == asked, (first, last)
            assert numbers(log.read(0, first, last)) == asked, (first, last)


def test_a_search_does_not_read_the_stream(server: NatsServer, log: JetStreamEventLog) -> None:
    log.append_all(0, (numbered(10 * n, 10) for n in range(200)))
    with JetStreamEventLog(server.url, log.stream, timeout=5) as reader:
        fetched = 0
        stream = reader._core(0).stream  # pyright: ignore[reportPrivateUsage]
        get = stream.get

        async def counted(position: int, replicas: int = 3) -> StoredMessage | None:
            nonlocal fetched
            fetched += 1
            return await get(position, replicas)

        stream.get = counted  # type: ignore[method-assign]
        assert numbers(reader.read(0, 1500, 1505)) == list(range(1500, 1506))
        assert fetched <= 12
        fetched = 0
        assert numbers(reader.read(0, 1506, 1515)) == list(range(1506, 1516))
        assert fetched <= 6


def test_an_iterator_is_dropped(log: JetStreamEventLog) -> None:
    log.append_all(0, (numbered(10 * n, 10) for n in range(20)))
    reading = log.read(0, 0, 1000)
    assert int(next(reading).sequence[0]) == 0
    del reading
    assert len(everything(log)) == 200


def test_trim_forgets_whole_batches_and_keeps_the_last_number(server: NatsServer, log: JetStreamEventLog) -> None:
    log.append_all(0, (numbered(10 * n, 10) for n in range(5)))
    log.append(1, numbered(0, 3))
    log.trim(0, 5)
    assert everything(log)[0] == 0
    log.trim(0, 24)
    assert everything(log) == list(range(20, 50))
    log.trim(0, 1000)
    assert everything(log) == []
    with JetStreamEventLog(server.url, log.stream, timeout=5) as other:
        assert other.last_sequence(0) == 49
        assert everything(other) == []
    log.append(0, numbered(60, 2))
    assert everything(log) == [60, 61]
    log.trim(1, 2)
    assert everything(log, 1) == []


def test_watermarks(server: NatsServer, log: JetStreamEventLog) -> None:
    group = "größe of .*> groups"
    assert log.load_watermark(group, 0) is None
    log.save_watermark(group, 0, 2**64 - 1)
    log.save_watermark(group, 1, 7)
    log.save_watermark(group, 1, 3)
    with JetStreamEventLog(server.url, log.stream, timeout=5) as other:
        assert (other.load_watermark(group, 0), other.load_watermark(group, 1)) == (2**64 - 1, 3)
        assert other.load_watermark("", 0) is None


def test_a_number_twice_is_refused(log: JetStreamEventLog) -> None:
    log.append(0, numbered(1, 5))
    with pytest.raises(LogConflictError, match="6"):
        log.append(0, numbered(5, 3))
    assert everything(log) == [1, 2, 3, 4, 5]
    log.append(0, numbered(6, 1))


@pytest.mark.parametrize("mark", [b"", b"other"])
def test_a_second_writer_is_refused(server: NatsServer, log: JetStreamEventLog, mark: bytes) -> None:
    """Also with the very same batch, which is not a duplicate: it is another writer's."""
    log.append(0, numbered(1, 5))
    with JetStreamEventLog(server.url, log.stream, timeout=5) as second:
        second.append(0, numbered(6, 5, mark=mark))
        with pytest.raises(LogConflictError, match="another writer"):
            log.append(0, numbered(6, 5))
        assert log.last_sequence(0) == 10
        log.append(0, numbered(11, 1))
        with pytest.raises(LogConflictError):
            second.append_all(0, (numbered(11 + n, 1) for n in range(40)))
    assert everything(log) == list(range(1, 12))


def test_writers_of_two_cores_do_not_hinder_each_other(server: NatsServer, log: JetStreamEventLog) -> None:
    with JetStreamEventLog(server.url, log.stream, timeout=5) as second:
        other = threading.Thread(target=second.append_all, args=(1, [numbered(n, 1) for n in range(300)]))
        other.start()
        log.append_all(0, (numbered(n, 1) for n in range(300)))
        other.join()
    assert everything(log, 0) == everything(log, 1) == list(range(300))


def test_a_large_batch_is_split_and_too_large_an_event_refused(log: JetStreamEventLog) -> None:
    log.append(0, numbered(0, 1000, size=300))
    parts = list(log.read(0, 0, 2000))
    assert len(parts) > 4
    assert list(EventBatch.concat(parts)) == list(numbered(0, 1000, size=300))
    with pytest.raises(LogError, match="max_payload"):
        log.append(0, numbered(1000, 1, size=SERVERS_OWN_BYTES))
    assert log.last_sequence(0) == 999


def test_an_exception_of_the_iterable_follows_the_batches_before_it(log: JetStreamEventLog) -> None:
    def some() -> Iterator[EventBatch]:
        for number in range(40):
            yield numbered(number, 1)
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        log.append_all(0, some())
    assert everything(log) == list(range(40))
    log.append(0, numbered(40, 1))


async def tamper(url: str, subject: str, body: bytes) -> None:
    client = await nats.connect(url)
    await client.jetstream().publish(subject, body)
    await client.close()


async def stored(url: str, stream: str, position: int) -> bytes:
    client = await nats.connect(url)
    message = await client.jetstream().get_msg(stream, position)
    await client.close()
    return message.data or b""


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


@pytest.mark.parametrize("wrong", [0, -1, math.nan, -math.inf])
@pytest.mark.parametrize("name", ["timeout", "duplicate_window"])
def test_invalid_times(name: str, wrong: float, server: NatsServer) -> None:
    options: dict[str, Any] = {name: wrong}
    with pytest.raises(ArgumentError, match=f"^{name} {wrong}: must be"):
        JetStreamEventLog(server.url, "x", **options)
    with pytest.raises(ArgumentError, match=r"^duplicate_window inf: must be"):
        JetStreamEventLog(server.url, "x", duplicate_window=math.inf)
    assert not [thread for thread in threading.enumerate() if thread.name == "nodedb-ring-log-x"]


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


@pytest.mark.parametrize("credentials", ["alice:s3cret", "s3cret", "alice:p@s3cret", "alice:p/s3cret://x"])
@pytest.mark.parametrize("scheme", ["nats://", ""])
def test_credentials_are_not_shown(scheme: str, credentials: str, server: NatsServer) -> None:
    if "/" not in credentials:
        with JetStreamEventLog(
            [server.url.replace("nats://", f"{scheme}{credentials}@"), server.url], next(names), timeout=5
        ) as log:
            shown = f"{scheme}***@{server.url.removeprefix('nats://')}"
            assert repr(log) == f"JetStreamEventLog({shown}, {server.url}, {log.stream!r}, open)"
    with pytest.raises(LogUnavailableError) as caught:
        JetStreamEventLog(f"{scheme}{credentials}@127.0.0.1:1", "x", timeout=0.3)
    shown = "".join(traceback.format_exception(caught.value))
    assert f"{scheme}***@127.0.0.1:1 in 0.3 s" in shown
    assert "s3cret" not in shown


def test_an_error_from_below_that_names_the_url_shows_no_credentials(
    log: JetStreamEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "nats://alice:s3cret@127.0.0.1:1"
    connection = log._connection  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(connection, "servers", [url])
    monkeypatch.setattr(connection, "shown_servers", ["nats://***@127.0.0.1:1"])
    monkeypatch.setattr(connection, "last_error", OSError(f"cannot connect to {url}"))
    message = str(connection.unavailable())
    assert "cannot connect to nats://***@127.0.0.1:1;" in message
    assert "s3cret" not in message


@pytest.mark.parametrize(
    "call",
    [
        lambda log: log.append(0, numbered(1, 1)),
        lambda log: log.append_all(0, [numbered(1, 1)]),
        lambda log: log.last_sequence(0),
        lambda log: list(log.read(0, 0, 1)),
        lambda log: log.trim(0, 1),
        lambda log: log.wait_beyond(0, 0, 0),
    ],
)
def test_a_forked_child_is_refused(call: Callable[[JetStreamEventLog], object], log: JetStreamEventLog) -> None:
    def refusal() -> str:
        with pytest.raises(ForkError) as raised:
            call(log)
        return str(raised.value)

    # As another thread may hold it at that moment: nobody releases it in the child.
    calls = log._core(0).appender.calls  # pyright: ignore[reportPrivateUsage]
    assert "inherited by fork" in calls.run(in_child, refusal)
    log.append(0, numbered(1, 1))


def test_no_server(own: NatsServer) -> None:
    own.kill()
    start = time.monotonic()
    with pytest.raises(LogUnavailableError, match=own.url) as caught:
        JetStreamEventLog(own.url, "x", timeout=0.5)
    assert "nats-server -js" in str(caught.value)
    assert isinstance(caught.value, ConnectionError)
    assert time.monotonic() - start < 10
    assert not [thread for thread in threading.enumerate() if thread.name == "nodedb-ring-log-x"]


def test_without_nats_py_the_import_says_what_to_install() -> None:
    script = "import sys; sys.modules['nats'] = None; import nodedb_ring.log.jetstream"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "ImportError: JetStreamEventLog needs nats-py: pip install 'nodedb_ring[nats]'" in ran.stderr


def test_a_name_that_is_not_valid(server: NatsServer) -> None:
    with pytest.raises(ValueError, match="stream"):
        JetStreamEventLog(server.url, "a.b")


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
