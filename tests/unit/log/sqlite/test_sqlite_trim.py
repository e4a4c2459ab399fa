"""The log in a SQLite file: what a trim forgets, what stays, and how large the files get."""

# apsw's stubs name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from nodedb_ring.errors import LogConflictError
from nodedb_ring.log.sqlite import CHECKPOINT_BYTES, SqliteEventLog, trimming
from nodedb_ring.log.sqlite.drivers import Bindings
from nodedb_ring.log.sqlite.schema import DELETE_TRIMMED

from .numbered import Driver, Sql, batch_of, numbers


def test_trim_forgets_whole_batches(log: SqliteEventLog) -> None:
    for first in range(1, 100, 3):
        log.append(0, batch_of(first, first + 1, first + 2))
    log.append(1, batch_of(1))
    log.trim(0, 10)
    assert numbers(log)[0] == 10
    log.trim(0, 9)
    assert numbers(log)[0] == 10
    log.trim(0, 92)
    assert numbers(log)[0] == 91
    assert numbers(log, 1) == [1]
    log.trim(0, 2**64 - 1)
    assert numbers(log) == []


def test_the_last_number_survives_a_trim(path: Path, driver: Driver) -> None:
    with SqliteEventLog(path, driver=driver) as log:
        log.append(0, batch_of(1, 2))
        log.append(0, batch_of(3, 4))
        log.trim(0, 4)
        assert log.last_sequence(0) == 4
    with SqliteEventLog(path, driver=driver) as log:
        assert log.last_sequence(0) == 4
        with pytest.raises(LogConflictError, match="the log has 4 already"):
            log.append(0, batch_of(4, 5))
        log.append(0, batch_of(5))
        assert log.last_sequence(0) == 5
        log.trim(0, 3)
        assert log.last_sequence(0) == 5


def test_trim_of_nothing_writes_nothing(log: SqliteEventLog, path: Path, sql: Sql) -> None:
    log.trim(0, 100)
    log.append(0, batch_of(5, 6))
    log.trim(0, 5)
    assert log.last_sequence(1) is None
    assert sql("SELECT * FROM nodedb_ring_core") == []


def test_trim_takes_small_steps(log: SqliteEventLog, path: Path, sql: Sql) -> None:
    """Another connection, which takes its turn while a trim runs, sees every step."""
    rows = 5 * trimming.TRIM_ROWS + 3
    for n in range(1, rows + 1):
        log.append(0, batch_of(n))
    left: list[int] = []
    count = functools.partial(sql, "SELECT count(*) FROM nodedb_ring_log")
    execute = log._execute  # pyright: ignore[reportPrivateUsage]

    def watched(undone: str, sql: str, bindings: Bindings = ()) -> None:
        execute(undone, sql, bindings)
        left.append(int(count()[0][0]))

    log._execute = watched  # type: ignore[method-assign]  # pyright: ignore[reportPrivateUsage]
    log.trim(0, rows)
    taken = [before - after for before, after in zip([rows, *left], left, strict=False)]
    assert left[-1] == 0
    assert max(taken) == trimming.TRIM_ROWS


def test_a_batch_appended_during_a_trim_stays(log: SqliteEventLog, path: Path, driver: Driver) -> None:
    """Whatever the trim was asked for: its number would be forgotten with it, and given to another event."""
    log.append(0, batch_of(1, 2))
    execute = log._execute  # pyright: ignore[reportPrivateUsage]
    with SqliteEventLog(path, driver=driver) as other:

        def after_an_append(undone: str, sql: str, bindings: Bindings = ()) -> None:
            if sql == DELETE_TRIMMED:
                other.append(0, batch_of(3))
            execute(undone, sql, bindings)

        log._execute = after_an_append  # type: ignore[method-assign]  # pyright: ignore[reportPrivateUsage]
        log.trim(0, 2**64 - 1)
    assert numbers(log) == [3]
    assert log.last_sequence(0) == 3


def test_space_that_was_trimmed_is_used_again(path: Path, driver: Driver) -> None:
    with SqliteEventLog(path, driver=driver) as log:
        for n in range(1, 400):
            log.append(0, batch_of(n, value=bytes(100_000)))
            if n % 20 == 0:
                log.trim(0, n - 10)
    assert path.stat().st_size < 12 * 1024 * 1024


def test_the_write_ahead_log_stays_small(path: Path, driver: Driver) -> None:
    most = 0
    with SqliteEventLog(path, driver=driver) as log:
        for n in range(1, 300):
            log.append(0, batch_of(n, value=bytes(250_000)))
            most = max(most, Path(f"{path}-wal").stat().st_size)
    assert CHECKPOINT_BYTES / 2 < most < 2 * CHECKPOINT_BYTES


def test_an_open_read_does_not_delay_a_checkpoint(log: SqliteEventLog, path: Path) -> None:
    log.append(0, batch_of(1))
    log.append(0, batch_of(2))
    reading = log.read(0, 0, 10_000)
    next(reading)
    for n in range(3, 200):
        log.append(0, batch_of(n, value=bytes(250_000)))
    assert Path(f"{path}-wal").stat().st_size < 2 * CHECKPOINT_BYTES
    assert [int(batch.sequence[0]) for batch in reading] == list(range(2, 200))


def test_a_read_that_is_dropped_holds_nothing(log: SqliteEventLog, path: Path, sql: Sql) -> None:
    for n in range(1, 5):
        log.append(0, batch_of(n))
    reading = log.read(0, 0, 10)
    next(reading)
    del reading
    assert sql("PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 0


def test_events_trimmed_during_a_read_are_not_returned(log: SqliteEventLog) -> None:
    for n in range(1, 5):
        log.append(0, batch_of(n))
    reading = log.read(0, 0, 10)
    assert list(next(reading).sequence) == [1]
    log.trim(0, 3)
    assert [int(batch.sequence[0]) for batch in reading] == [4]
