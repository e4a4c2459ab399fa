"""Time-outs and counts: every place that takes one reads it alike, and refuses alike."""

from __future__ import annotations

import asyncio
import decimal
import fractions
import importlib
import inspect
import math
import pkgutil
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import pytest

import nodedb_ring
from nodedb_ring import (
    ArgumentError,
    EventBatch,
    EventConsumer,
    GapCursor,
    RingError,
    WriteEvent,
    follow,
    logged,
    merge,
    wait,
    wait_async,
)
from nodedb_ring.ends.limits import LONGEST_SECONDS, MOST_EVENTS, event_count, limit_seconds
from tests.unit.builders import batch, fill, ring, sequences
from tests.unit.recovery.memory_log import MemoryLog
from tests.unit.runners import Running

Call: TypeAlias = Callable[[Any], object]
"""A call with a time-out or a count."""

NO_TIMEOUTS: list[Any] = [math.nan, -1, -0.001, -math.inf, -(10**400), np.float64("nan"), decimal.Decimal("nan")]
NO_NUMBERS: list[Any] = ["1", b"1", [], object(), 1j, np.datetime64(1, "s")]
NO_COUNTS: list[Any] = [0, -1, 2**63, -(2**63) - 1, 10**400]
NO_INTEGERS: list[Any] = [1.0, "1", None, []]
ENDLESS: list[Any] = [None, math.inf, 1e300, 10**400, LONGEST_SECONDS, 2**63, decimal.Decimal("inf")]


def run(call: Callable[[], Any]) -> None:
    asyncio.run(call())


def takers() -> Iterator[tuple[str, Call, Call]]:
    """Every place that takes a time-out: its name, a call that waits for what is there, and one for what is not."""
    producer, consumer = ring(4)
    empty = ring(4)
    fill(producer, 1, 4)
    log = MemoryLog()
    log.put(1, 4)
    unlogged = MemoryLog()
    unlogged.put(1, 4)

    def refill() -> None:
        consumer.drain()
        fill(producer, producer.next_sequence, producer.next_sequence)

    def drain(timeout: Any) -> None:
        refill()
        assert len(consumer.drain(8, timeout)) == 1

    def lease(timeout: Any) -> None:
        refill()
        with consumer.lease(8, timeout) as leased:
            assert len(leased) == 1

    def recv(timeout: Any) -> None:
        refill()
        assert consumer.recv(timeout) is not None

    def recv_async(timeout: Any) -> None:
        async def wait() -> WriteEvent | None:
            return await consumer.recv_async(timeout)

        refill()
        assert asyncio.run(wait()) is not None

    def drain_async(timeout: Any) -> None:
        async def wait() -> EventBatch:
            return await consumer.drain_async(8, timeout)

        refill()
        assert len(asyncio.run(wait())) == 1

    def gaps(timeout: Any) -> None:
        refill()
        assert len(GapCursor(consumer).drain(8, timeout)[0]) == 1

    def emit_batch(timeout: Any) -> None:
        consumer.drain()
        assert producer.emit_batch(batch(1, 2), timeout) == 2

    def emit_logged(timeout: Any) -> None:
        consumer.drain()
        core = logged(producer, log)
        first = core.next_sequence
        assert core.emit_batch(batch(first, first + 1), timeout) == 2

    def wait_for_room(timeout: Any) -> None:
        consumer.drain()
        assert producer.wait_for_room(1, timeout)

    def next_batch(timeout: Any) -> None:
        assert sequences(follow(None, unlogged, group="g", core_id=0).next_batch(timeout)) == [1, 2, 3, 4]

    def next_batch_async(timeout: Any) -> None:
        async def wait() -> EventBatch:
            return await follow(None, unlogged, group="g", core_id=0).next_batch_async(timeout)

        assert sequences(asyncio.run(wait())) == [1, 2, 3, 4]

    def wait_for_any(timeout: Any) -> None:
        refill()
        assert wait([consumer], timeout) == [consumer]

    def wait_for_any_async(timeout: Any) -> None:
        async def ready() -> list[EventConsumer]:
            return await wait_async([consumer], timeout)

        refill()
        assert asyncio.run(ready()) == [consumer]

    nothing = MemoryLog()
    full = ring(1)
    fill(full[0], 1, 1)

    def emit_logged_in_vain(timeout: Any) -> None:
        core = logged(full[0], MemoryLog())
        core.emit_batch(batch(core.next_sequence, core.next_sequence), timeout)

    yield "EventConsumer.drain", drain, lambda timeout: empty[1].drain(8, timeout)
    yield "EventConsumer.lease", lease, lambda timeout: empty[1].lease(8, timeout)
    yield "EventConsumer.recv", recv, empty[1].recv
    yield "EventConsumer.recv_async", recv_async, lambda timeout: asyncio.run(empty[1].recv_async(timeout))
    yield "EventConsumer.drain_async", drain_async, lambda timeout: asyncio.run(empty[1].drain_async(8, timeout))
    yield "GapCursor.drain", gaps, lambda timeout: GapCursor(empty[1]).drain(8, timeout)
    yield "EventProducer.emit_batch", emit_batch, lambda timeout: full[0].emit_batch(batch(1, 1), timeout)
    yield "LoggedProducer.emit_batch", emit_logged, emit_logged_in_vain
    yield "EventProducer.wait_for_room", wait_for_room, lambda timeout: full[0].wait_for_room(1, timeout)
    yield "wait", wait_for_any, lambda timeout: wait([empty[1]], timeout)
    yield "wait_async", wait_for_any_async, lambda timeout: asyncio.run(wait_async([empty[1]], timeout))
    yield (
        "Follower.next_batch",
        next_batch,
        lambda timeout: follow(None, nothing, group="g", core_id=0).next_batch(timeout),
    )
    yield (
        "Follower.next_batch_async",
        next_batch_async,
        lambda timeout: asyncio.run(follow(None, nothing, group="g", core_id=0).next_batch_async(timeout)),
    )


TAKERS = list(takers())
NAMES = [name for name, _, _ in TAKERS]


def public_callables() -> Iterator[tuple[str, Callable[..., object]]]:
    for module in pkgutil.walk_packages(nodedb_ring.__path__, "nodedb_ring."):
        if any(part in module.name for part in (".command", "__main__")):
            continue
        for name, public in vars(importlib.import_module(module.name)).items():
            if name.startswith("_") or getattr(public, "__module__", "").partition(".")[0] != "nodedb_ring":
                continue
            if inspect.isclass(public):
                for member in ("__init__", *(each for each in dir(public) if not each.startswith("_"))):
                    if callable(getattr(public, member, None)):
                        yield f"{name}.{member}", getattr(public, member)
            elif callable(public):
                yield name, public


def taking(*parameters: str) -> set[str]:
    """The public calls that have a parameter of one of these names."""
    found: set[str] = set()
    for name, public in public_callables():
        try:
            signature = inspect.signature(public)
        except (TypeError, ValueError):
            continue
        if set(parameters) & set(signature.parameters):
            found.add(name)
    return found


def test_no_place_that_takes_a_time_out_is_missing_here() -> None:
    # Methods of the protocol are checked by their implementations; those of JetStream are in tests/unit/log.
    elsewhere = {"LiveEventLog.wait_beyond", "JetStreamEventLog.__init__", "JetStreamEventLog.wait_beyond"}
    inside = {
        "limit_seconds",
        "drain_when_ready",
        "recv_when_ready",
        "until_ready",
        "WaitSet.wait",
        "Stream.wait",
        "Connection.__init__",
        "LoopThread.stop",
        "Receiver.run",
    }
    lingering = {"follow", "Follower.__init__", "FollowState.__init__"}
    # Its tests are beside those of the capture, which needs psycopg2.
    slots = {"PostgresCapture.__init__"}
    found = taking("timeout", "linger", "seconds", "slot_timeout")
    assert found == set(NAMES) | elsewhere | inside | lingering | slots


def linger(seconds: Any) -> EventBatch:
    log = MemoryLog()
    log.put(1, 4)
    return follow(None, log, group="g", core_id=0, max_events=4, linger=seconds).next_batch()


@pytest.mark.parametrize("wrong", NO_TIMEOUTS, ids=repr)
def test_invalid_times_to_linger(wrong: Any) -> None:
    with pytest.raises(ArgumentError, match=r"^linger .*: must be 0 or more seconds"):
        linger(wrong)


@pytest.mark.parametrize("wrong", NO_NUMBERS, ids=["str", "bytes", "list", "object", "complex", "datetime64"])
def test_invalid_numbers_to_linger(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"^linger .*: must be a number of seconds"):
        linger(wrong)


@pytest.mark.parametrize("seconds", [*ENDLESS, 0, 1e-12], ids=repr)
def test_a_full_batch_lingers_no_longer(seconds: Any) -> None:
    assert sequences(linger(seconds)) == [1, 2, 3, 4]


@pytest.mark.parametrize("wrong", NO_TIMEOUTS, ids=repr)
@pytest.mark.parametrize(("name", "ready", "waiting"), TAKERS, ids=NAMES)
def test_invalid_timeouts(name: str, ready: Call, waiting: Call, wrong: Any) -> None:
    # Refused whether or not there would be anything to wait for.
    for call in (ready, waiting):
        with pytest.raises(ArgumentError, match=r"timeout .*: must be 0 or more seconds, or None for no limit"):
            call(wrong)


@pytest.mark.parametrize("wrong", NO_NUMBERS, ids=["str", "bytes", "list", "object", "complex", "datetime64"])
@pytest.mark.parametrize(("name", "ready", "waiting"), TAKERS, ids=NAMES)
def test_invalid_numbers(name: str, ready: Call, waiting: Call, wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"timeout .*: must be a number of seconds, or None for no limit, not "):
        waiting(wrong)


@pytest.mark.parametrize("endless", ENDLESS, ids=repr)
@pytest.mark.parametrize(("name", "ready", "waiting"), TAKERS, ids=NAMES)
def test_none_infinity_and_very_long_timeouts_mean_no_limit(
    name: str, ready: Call, waiting: Call, endless: Any
) -> None:
    ready(endless)


@pytest.mark.parametrize("short", [0, 0.0, -0.0, 1e-12, 0.001, np.float32(0.001), fractions.Fraction(1, 1000), False])
@pytest.mark.parametrize(("name", "ready", "waiting"), TAKERS, ids=NAMES)
def test_a_short_time_out_ends(name: str, ready: Call, waiting: Call, short: Any) -> None:
    waiting(short)


def test_a_refused_time_out_emits_and_logs_nothing() -> None:
    producer, _ = ring(4)
    log = MemoryLog()
    with pytest.raises(ArgumentError):
        logged(producer, log).emit_batch(batch(1, 2), math.nan)
    with pytest.raises(ArgumentError):
        producer.emit_batch(batch(1, 2), -1)
    assert (log.last, producer.emitted_sequence, producer.stats().dropped) == ({}, None, 0)


def test_an_endless_wait_is_one_until_something_comes() -> None:
    producer, consumer = ring(4)
    running = Running(lambda: consumer.drain(8, math.inf))
    running.until_asleep()
    fill(producer, 1, 1)
    assert sequences(running.result()) == [1]


def test_limits_are_what_a_lock_can_wait() -> None:
    assert LONGEST_SECONDS < threading.TIMEOUT_MAX
    assert limit_seconds(LONGEST_SECONDS) is None
    assert limit_seconds(np.nextafter(LONGEST_SECONDS, 0)) == np.nextafter(LONGEST_SECONDS, 0)
    assert limit_seconds(3, "linger") == 3.0
    with pytest.raises(ArgumentError, match=r"^linger nan: "):
        limit_seconds(math.nan, "linger")


COUNTERS: list[tuple[str, Call]] = [
    ("EventConsumer.drain", ring(4)[1].drain),
    ("EventConsumer.lease", ring(4)[1].lease),
    ("EventConsumer.drain_async", lambda count: asyncio.run(ring(4)[1].drain_async(count, 0))),
    ("GapCursor.drain", lambda count: GapCursor(ring(4)[1]).drain(count)),
    ("follow", lambda count: follow(None, MemoryLog(), group="g", core_id=0, max_events=count)),
    ("merge", lambda count: merge([ring(4)[1]], count)),
]
COUNTED = [name for name, _ in COUNTERS]


def test_no_place_that_takes_a_count_is_missing_here() -> None:
    # A log's read_joined is asked by followers, with a count that was checked.
    joining = {"JoiningEventLog.read_joined", "SqliteEventLog.read_joined", "joined_rows", "read_batches"}
    inside = {
        "Follower.__init__",
        "FollowState.__init__",
        "CommitMerger.__init__",
        "drain_when_ready",
        "next_batch",
        *joining,
    }
    assert taking("max_events") == set(COUNTED) | inside


@pytest.mark.parametrize("wrong", NO_COUNTS, ids=["0", "-1", "2**63", "-2**63-1", "10**400"])
@pytest.mark.parametrize(("name", "call"), COUNTERS, ids=COUNTED)
def test_invalid_counts(name: str, call: Call, wrong: Any) -> None:
    with pytest.raises(ArgumentError, match=rf"^max_events {wrong}: must be from 1 to {2**63 - 1}$"):
        call(wrong)


@pytest.mark.parametrize("wrong", NO_INTEGERS, ids=repr)
@pytest.mark.parametrize(("name", "call"), COUNTERS, ids=COUNTED)
def test_invalid_integers(name: str, call: Call, wrong: Any) -> None:
    with pytest.raises(TypeError):
        call(wrong)


@pytest.mark.parametrize("most", [1, True, np.int64(7), MOST_EVENTS])
@pytest.mark.parametrize(("name", "call"), COUNTERS, ids=COUNTED)
def test_a_count(name: str, call: Call, most: Any) -> None:
    call(most)


def test_the_largest_count_takes_all_there_is() -> None:
    producer, consumer = ring(4)
    fill(producer, 1, 4)
    assert sequences(consumer.drain(MOST_EVENTS)) == [1, 2, 3, 4]
    assert event_count(MOST_EVENTS) == 2**63 - 1


@pytest.mark.parametrize("wrong", [-1, math.nan, math.inf, 0.0101, 10**400, None])
def test_an_invalid_spin(wrong: Any) -> None:
    _, consumer = ring(4)
    with pytest.raises(ArgumentError, match=r"^spin "):
        consumer.spin = wrong
    assert consumer.spin == 10e-6


def test_it_is_a_value_error_too() -> None:
    assert issubclass(ArgumentError, ValueError)
    assert issubclass(ArgumentError, RingError)
