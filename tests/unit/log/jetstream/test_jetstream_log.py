"""The log on a real nats-server: round trips, trims, fencing, arguments and forks."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nodedb_ring import EventBatch
from nodedb_ring.errors import ArgumentError, ForkError, LogConflictError, LogError, LogUnavailableError
from nodedb_ring.log import LiveEventLog
from tests.unit.log.nats_server import NatsServer
from tests.unit.runners import in_child

if os.environ.get("CI") != "true":
    pytest.importorskip("nats")

from nodedb_ring.log.jetstream import JetStreamEventLog
from nodedb_ring.log.jetstream.message import StoredMessage

from .numbered import SERVERS_OWN_BYTES, everything, names, numbered, numbers

pytestmark = pytest.mark.usefixtures("program")


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
    with pytest.raises(LogError, match=r"it stands at 7 already; rewind=True"):
        log.save_watermark(group, 1, 3)
    log.save_watermark(group, 1, 3, rewind=True)
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


@pytest.mark.parametrize("wrong", [0, -1, math.nan, -math.inf])
@pytest.mark.parametrize("name", ["timeout", "duplicate_window"])
def test_invalid_times(name: str, wrong: float, server: NatsServer) -> None:
    options: dict[str, Any] = {name: wrong}
    with pytest.raises(ArgumentError, match=f"^{name} {wrong}: must be"):
        JetStreamEventLog(server.url, "x", **options)
    with pytest.raises(ArgumentError, match=r"^duplicate_window inf: must be"):
        JetStreamEventLog(server.url, "x", duplicate_window=math.inf)
    assert not [thread for thread in threading.enumerate() if thread.name == "nodedb-ring-log-x"]


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
