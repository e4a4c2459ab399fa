"""Logs, followers and captures between threads: calls wait for each other or are refused, and nothing comes twice."""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

import apsw
import pytest

from nodedb_ring import (
    BusyError,
    ClosedError,
    EventBatch,
    Follower,
    LogConflictError,
    OwnershipError,
    RoleTaken,
    create_event_bus,
    follow,
)
from nodedb_ring.capture import SqliteCapture
from nodedb_ring.log.sqlite import SqliteEventLog
from tests.unit.builders import batch, event, sequences
from tests.unit.recovery.memory_log import MemoryLog

from . import watchdog
from .contention import Contest, eager_switches, rounds

THREADS: Final = 3


@pytest.fixture(params=["sqlite3", "apsw"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqliteEventLog]:
    driver: Literal["sqlite3", "apsw"] = request.param
    with SqliteEventLog(tmp_path / "log.db", driver=driver) as log:
        yield log


def test_threads_that_append_to_one_log_wait_for_each_other(log: SqliteEventLog) -> None:
    """Each to a core of its own while another thread reads, and all to one more core, where one gets through."""
    shared, size = THREADS, 3

    def append(number: int, core_id: int) -> bool:
        first = 1 + number * size
        log.append(core_id, batch(first, first + size - 1))
        try:
            log.append(shared, batch(first, first + size - 1))
        except LogConflictError:
            return False
        return True

    def read(number: int) -> list[int]:
        before = log.last_sequence(0) or 0
        numbers = [each for found in log.read(0, 0, 2**62) for each in sequences(found)]
        assert numbers[:before] == list(range(1, before + 1))
        assert len(numbers) in (number * size, (number + 1) * size)
        return numbers

    def check(number: int, results: list[Any]) -> None:
        *appended, numbers = results
        assert appended.count(True) == 1, results
        assert appended.count(False) == THREADS - 1, results
        assert isinstance(numbers, list), results

    count = rounds(100)
    contest = Contest(
        [*(functools.partial(append, core_id=core_id) for core_id in range(THREADS)), read],
        prepare=lambda number: number,
        check=check,
    )
    contest.run(count)
    for core_id in range(THREADS + 1):
        numbers = [each for found in log.read(core_id, 0, 2**62) for each in sequences(found)]
        assert numbers == list(range(1, count * size + 1))


def test_a_log_is_closed_while_threads_use_it(tmp_path: Path) -> None:
    def prepare(number: int) -> SqliteEventLog:
        log = SqliteEventLog(tmp_path / f"{number}.db")
        log.append(0, batch(1, 2))
        return log

    def append(log: SqliteEventLog) -> int:
        first = 3
        with contextlib.suppress(ClosedError):
            while True:
                log.append(0, batch(first, first + 1))
                first += 2
        return first

    def read(log: SqliteEventLog) -> None:
        with contextlib.suppress(ClosedError):
            while True:
                assert [each for found in log.read(0, 1, 2) for each in sequences(found)] == [1, 2]

    def check(log: SqliteEventLog, results: list[Any]) -> None:
        first, *others = results
        assert isinstance(first, int), results
        assert others == [None, None, None], results
        with SqliteEventLog(log.path) as again:
            assert again.last_sequence(0) == first - 1

    calls = [append, read, lambda log: log.close(), lambda log: log.close()]
    Contest(calls, prepare=prepare, check=check, spread=2000).run(rounds(60, with_gil=3))


def filled_log() -> MemoryLog:
    log = MemoryLog()
    for first in range(1, 31, 3):
        log.append(0, batch(first, first + 2))
    return log


def all_batches(follower: Follower) -> list[list[int]]:
    """What one of several threads gets, until there is nothing more."""
    got: list[list[int]] = []
    refused = 0
    while True:
        try:
            found = sequences(follower.next_batch(0))
        except BusyError:
            refused += 1
            continue
        if not found:
            return got
        got.append(found)


def test_a_follower_asked_by_several_threads_hands_out_each_event_once() -> None:
    """One at a time gets a batch, and the others are told that it is busy."""

    def check(follower: Follower, results: list[Any]) -> None:
        batches = sorted(found for thread in results for found in thread)
        assert [number for found in batches for number in found] == list(range(1, 31)), results
        stats = follower.stats()
        assert (stats.delivered, stats.position, stats.lag) == (30, 30, 0)
        follower.close()

    contest = Contest(
        [all_batches] * THREADS,
        prepare=lambda _: follow(None, filled_log(), group="g", core_id=0, max_events=2),
        check=check,
        together=5,
    )
    contest.run(rounds(1000))


def test_a_follower_is_closed_while_threads_use_it() -> None:
    """Its next call is refused, or the iteration ends, and `commit` saves what was handed out at most."""

    def take(follower: Follower) -> list[int]:
        got: list[int] = []
        with contextlib.suppress(ClosedError):
            while True:
                with contextlib.suppress(BusyError):
                    got += sequences(follower.next_batch(0))
                    follower.commit()
        return got

    def check(follower: Follower, results: list[Any]) -> None:
        one, other, *closed = results
        assert sorted(one + other) == list(range(1, len(one + other) + 1)), results
        assert closed == [None, None], results
        assert follower.ended
        assert follower.stats().delivered == len(one + other)

    contest: Contest[Follower] = Contest(
        [take, take, Follower.close, Follower.close],
        prepare=lambda _: follow(None, filled_log(), group="g", core_id=0, max_events=2),
        check=check,
        spread=3000,
    )
    contest.run(rounds(1000))


def test_a_group_has_one_follower(log: SqliteEventLog) -> None:
    def check(_: SqliteEventLog, results: list[Any]) -> None:
        won = [each for each in results if isinstance(each, Follower)]
        assert len(won) == 1, results
        assert sum(type(each) is RoleTaken for each in results) == THREADS - 1, results
        won[0].close()

    def claim(log: SqliteEventLog) -> Follower:
        return follow(None, log, group="g", core_id=0)

    Contest([claim] * THREADS, prepare=lambda _: log, check=check).run(rounds(100))


def test_a_ring_and_its_log_are_followed_by_whichever_thread_binds() -> None:
    """The ring drops some of the events, which the log has."""
    [producer], [consumer] = create_event_bus(1, 4, arena_bytes=256)
    log, last = MemoryLog(), rounds(2000)
    follower = follow(consumer, log, group="g", core_id=0, max_events=4)
    turn = threading.Lock()

    def emit() -> list[list[int]]:
        for number in range(1, last + 1):
            one = EventBatch.from_events([event(number)])
            log.append(0, one)
            producer.emit_batch(one)
        producer.close()
        return []

    def take() -> list[list[int]]:
        got: list[list[int]] = []
        while not follower.ended:
            with turn:
                consumer.bind()
                got.append(sequences(follower.next_batch(0.001)))
        return got

    def interfere() -> list[list[int]]:
        """Without a turn it is refused."""
        while not follower.ended:
            with contextlib.suppress(BusyError, OwnershipError):
                consumer.fileno()
            follower.stats()
        return []

    with eager_switches():
        results = watchdog.run(emit, take, take, interfere, progress=lambda: follower.position, stop=follower.close)
    assert sorted(number for thread in results for found in thread for number in found) == list(range(1, last + 1))
    assert follower.stats().delivered == last


class Captured:
    """A captured database that several threads use in turn."""

    def __init__(self, folder: Path) -> None:
        self.connection = apsw.Connection(str(folder / "captured.db"))
        self.connection.execute("PRAGMA synchronous = OFF; CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
        [self.producer], [self.consumer] = create_event_bus(1, 64)
        self.capture = SqliteCapture(self.connection, self.producer)
        self.turn = threading.Lock()
        self.rows = 0
        self.over = threading.Event()

    def write(self, count: int) -> list[int]:
        for _ in range(count):
            with self.turn:
                if self.over.is_set():
                    break
                self.producer.bind()
                while not self.producer.wait_for_room(2, timeout=0.1):
                    if self.over.is_set():
                        return []
                self.connection.execute("INSERT INTO t (b) VALUES (1)")
                self.connection.execute("UPDATE t SET b = 2 WHERE a = last_insert_rowid()")
                self.rows += 1
        return []

    def take(self, expected: int) -> list[int]:
        numbers: list[int] = []
        while len(numbers) < expected and not self.over.is_set():
            numbers += sequences(self.consumer.drain(timeout=0.1))
        self.over.set()
        return numbers

    def watch(self) -> list[int]:
        seen = (0, 0, 0)
        while not self.over.is_set():
            now = (self.capture.lsn, self.capture.emitted, self.capture.dropped)
            assert all(new >= old for new, old in zip(now, seen, strict=True))
            assert 0 <= self.capture.pending <= 1
            assert not self.capture.closed
            seen = now
        return []

    def stop(self) -> None:
        self.over.set()


def test_a_captured_database_is_used_by_threads_in_turn(tmp_path: Path) -> None:
    captured = Captured(tmp_path)
    count = rounds(1000)
    with eager_switches():
        *_, numbers, _ = watchdog.run(
            *[functools.partial(captured.write, count)] * THREADS,
            functools.partial(captured.take, 2 * count * THREADS),
            captured.watch,
            progress=lambda: captured.rows,
            stop=captured.stop,
        )
    assert numbers == list(range(1, 2 * count * THREADS + 1))
    assert (captured.capture.emitted, captured.capture.dropped) == (len(numbers), 0)
    assert captured.capture.lsn == len(numbers)
    captured.capture.close()
    captured.connection.close()
