"""The log on a real nats-server: whether it is still the one, with the same events, in which a follower stood."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from nodedb_ring import LogError, follow
from nodedb_ring.log.token import LogToken
from tests.unit.log.nats_server import NatsServer

if os.environ.get("CI") != "true":
    pytest.importorskip("nats")

from nats.js import JetStreamContext

from nodedb_ring.log.jetstream import JetStreamEventLog
from nodedb_ring.log.jetstream.watermarks import watermark_key

from .numbered import numbered, numbers

pytestmark = pytest.mark.usefixtures("program")


def on_server(log: JetStreamEventLog, work: Callable[[JetStreamContext], Awaitable[Any]]) -> Any:
    """Does something with the server as an administrator may, past the log."""
    connection = log._connection  # pyright: ignore[reportPrivateUsage]

    async def do() -> Any:
        return await work(connection.jetstream)

    return connection.call("", do)


def filled(log: JetStreamEventLog, last: int, first: int = 1) -> None:
    log.append_all(0, (numbered(number, 10) for number in range(first, last + 1, 10)))


def again(server: NatsServer, log: JetStreamEventLog) -> JetStreamEventLog:
    """The same log by another object, as another process has it."""
    return JetStreamEventLog(server.url, log.stream, timeout=5)


def test_a_position_is_known_in_its_own_log(server: NatsServer, log: JetStreamEventLog) -> None:
    before = log.token(0, -1)
    filled(log, 100)
    tokens = {sequence: log.token(0, sequence) for sequence in (-1, 0, 1, 10, 15, 99, 100, 250)}
    filled(log, 200, first=101)
    with again(server, log) as other:
        assert other.sequence_of(0, before) == -1
        for sequence, token in tokens.items():
            assert other.sequence_of(0, token) == sequence
            assert sequence > 200 or other.token(0, sequence) == token
        assert LogToken.parse(tokens[15]).first == 11


def test_a_stream_made_anew_and_grown_is_another(server: NatsServer, log: JetStreamEventLog) -> None:
    """Its events up to the watermark would be taken for those that were delivered."""
    filled(log, 1000)
    with follow(None, log, core_id=0, group="g", max_events=1000) as follower:
        assert len(follower.next_batch(5)) == 1000
        follower.commit()
        token = follower.token
    on_server(log, lambda jetstream: jetstream.delete_stream(f"{log.stream}_core_0"))
    with again(server, log) as anew:
        filled(anew, 1200)
        with pytest.raises(LogError, match=r"group 'g': core 0: position 1000 is of log .* made anew"):
            follow(None, anew, core_id=0, group="g")
        with pytest.raises(LogError, match=r"position 1000 is of log .* made anew"):
            follow(None, anew, core_id=0, group="h", after=token)
        anew.save_watermark("g", 0, 0, rewind=True)
        with follow(None, anew, core_id=0, group="g", max_events=1200) as follower:
            assert numbers(iter([follower.next_batch(5)])) == list(range(1, 1201))


@pytest.mark.parametrize("grown", [900, 1000, 1200])
def test_a_stream_that_lost_its_end_is_refused(server: NatsServer, log: JetStreamEventLog, grown: int) -> None:
    filled(log, 1000)
    token = log.token(0, 1000)
    log.save_watermark("g", 0, 1000)

    async def lose_the_end(jetstream: JetStreamContext) -> None:
        # The last ten messages go, and others take their numbers: what a power cut leaves, and a writer after it.
        for position in range(91, 101):
            await jetstream.delete_msg(f"{log.stream}_core_0", position)

    on_server(log, lose_the_end)
    with again(server, log) as other:
        for first in range(901, grown, 10):
            _append_past_the_check(other, first)
        for after in (None, token):
            with pytest.raises(LogError, match="position 1000 was in a log that had batch 991-"):
                follow(None, other, core_id=0, group="g", after=after)


def _append_past_the_check(log: JetStreamEventLog, first: int) -> None:
    from nodedb_ring.log.encoding import encode_batch
    from nodedb_ring.log.jetstream.message import encode

    body = encode(encode_batch(numbered(first, 10), core_id=0), 0)
    on_server(
        log,
        lambda jetstream: jetstream.publish(f"{log.stream}.core.0", body, headers={"Nats-Msg-Id": f"other-{first}"}),
    )


def test_a_trim_forgets_no_position_behind_it(server: NatsServer, log: JetStreamEventLog) -> None:
    filled(log, 900)
    older = {sequence: log.token(0, sequence) for sequence in (5, 99, 100, 105, 900)}
    log.trim(0, 100)
    with again(server, log) as other:
        for sequence, token in older.items():
            assert other.sequence_of(0, token) == sequence
        wrong = LogToken.parse(older[105])._replace(batch_id=12345)
        with pytest.raises(LogError, match="had batch 101-3039"):
            other.sequence_of(0, str(wrong))


def test_a_watermark_never_moves_back_unseen(server: NatsServer, log: JetStreamEventLog) -> None:
    filled(log, 600)
    with again(server, log) as other:
        log.save_watermark("g", 0, 100)
        other.save_watermark("g", 0, 600)
        with pytest.raises(LogError, match=r"watermark 200 was not saved: it stands at 600 already; rewind=True"):
            log.save_watermark("g", 0, 200)
        assert log.load_watermark("g", 0) == 600
        log.save_watermark("g", 0, 200, rewind=True)
        # What this one has seen last is not what is there.
        other.save_watermark("g", 0, 300)
        assert log.load_watermark("g", 0) == 300


def test_a_watermark_of_an_older_release_is_a_number_alone(server: NatsServer, log: JetStreamEventLog) -> None:
    filled(log, 100)
    log.save_watermark("g", 0, 10)
    key = watermark_key("g", 0)

    async def put(jetstream: JetStreamContext) -> None:
        await (await jetstream.key_value(log.stream)).put(key, b"40")

    on_server(log, put)
    assert log.load_token("g", 0) is None
    with follow(None, log, core_id=0, group="g") as follower:
        assert follower.position == 40
        follower.next_batch(5)
        follower.commit()
    token = log.load_token("g", 0)
    assert token is not None
    assert LogToken.parse(token).sequence == 100


def test_a_commit_of_what_was_read_asks_nothing(server: NatsServer, log: JetStreamEventLog) -> None:
    filled(log, 100)
    with again(server, log) as other, follow(None, other, core_id=0, group="g", max_events=10) as follower:
        follower.next_batch(5)
        follower.commit()
        sent = other._connection.client.stats["out_msgs"]  # pyright: ignore[reportPrivateUsage]
        follower.next_batch(5)
        read = other._connection.client.stats["out_msgs"]  # pyright: ignore[reportPrivateUsage]
        follower.commit()
        assert other._connection.client.stats["out_msgs"] == read + 1  # pyright: ignore[reportPrivateUsage]
        assert read >= sent
