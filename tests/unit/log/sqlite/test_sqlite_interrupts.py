"""The log in a SQLite file, interrupted at every bytecode, and called by a signal handler there: with both drivers."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nodedb_ring.errors import ClosedError, LogConflictError
from nodedb_ring.log import EventLog
from nodedb_ring.log.sqlite import LOG_TABLES, SqliteEventLog, append, event_log, trimming
from tests.stress.journal import memory_directory
from tests.unit.log.interrupting import Interrupts, handled, interrupted_at_each

from .numbered import Driver, batch_of, numbers

# Each call runs once for each of its bytecodes.
pytestmark = pytest.mark.slow


@pytest.fixture
def directory() -> Iterator[Path]:
    """In memory: a disk that syncs would make each of thousands of calls slow."""
    with memory_directory() as made:
        yield made


@pytest.fixture
def path(directory: Path) -> Path:
    return directory / "events.db"


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction that was left open makes the next call fail at once."""
    monkeypatch.setattr(event_log, "BUSY_SECONDS", 0.0)


@pytest.fixture
def other(path: Path, driver: Driver, log: SqliteEventLog) -> Iterator[SqliteEventLog]:
    """Another connection to the file."""
    with SqliteEventLog(path, driver=driver) as opened:
        yield opened


def is_open(path: Path) -> bool:
    """Whether somebody has it open: the last to close it takes its write-ahead log away."""
    if Path(f"{path}-wal").exists():
        # A connection of the standard library's that was dropped and not closed is a cycle, and holds no lock.
        gc.collect()
    return Path(f"{path}-wal").exists()


def following(log: EventLog, core_id: int = 0) -> int:
    last = log.last_sequence(core_id)
    return 1 if last is None else last + 1


def appends_go_on(log: SqliteEventLog, other: SqliteEventLog) -> None:
    """No connection holds the file, and what is acknowledged by one is seen by the other."""
    other.append(7, batch_of(following(other, 7)))
    number = following(other)
    log.append(0, batch_of(number))
    assert other.last_sequence(0) == number


def appended_when_interrupted(
    log: SqliteEventLog, other: SqliteEventLog, interrupts: Interrupts, count: int
) -> set[int]:
    """How many events of a batch are there after an append of it was interrupted, at each bytecode."""
    before = 0

    def begin() -> Callable[[], None]:
        nonlocal before
        before = following(log)
        batch = batch_of(*range(before, before + count))
        return lambda: log.append(0, batch)

    outcomes: set[int] = set()
    for _ in interrupted_at_each(interrupts, begin):
        outcomes.add(following(other) - before)
        appends_go_on(log, other)
    return outcomes


def test_an_interrupted_append_is_there_or_not(
    log: SqliteEventLog, other: SqliteEventLog, interrupts: Interrupts, path: Path, driver: Driver
) -> None:
    assert appended_when_interrupted(log, other, interrupts, 2) == {0, 2}
    there = numbers(other)
    assert there == list(range(1, len(there) + 1))
    log.close()
    with SqliteEventLog(path, driver=driver) as again:
        assert numbers(again) == there


def test_an_interrupted_append_of_several_rows_is_whole_or_not_there(
    log: SqliteEventLog, other: SqliteEventLog, interrupts: Interrupts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append, "MAX_BATCH_EVENTS", 2)
    assert appended_when_interrupted(log, other, interrupts, 5) == {0, 5}
    there = numbers(other)
    assert there == list(range(1, len(there) + 1))


def test_an_interrupted_trim_removes_whole_batches_and_no_number(
    log: SqliteEventLog, other: SqliteEventLog, interrupts: Interrupts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trimming, "TRIM_ROWS", 2)
    last = 0

    def begin() -> Callable[[], None]:
        nonlocal last
        first = following(log)
        for number in range(first, first + 5):
            log.append(0, batch_of(number))
        last = first + 4
        return lambda: log.trim(0, last)

    left: set[int] = set()
    for _ in interrupted_at_each(interrupts, begin):
        there = numbers(other)
        left.add(len(there))
        assert there == list(range(last + 1 - len(there), last + 1))
        assert other.last_sequence(0) == last
        appends_go_on(log, other)
        log.trim(0, last + 1)
    # In steps of two rows, so that it was in the midst of them too.
    assert left == {5, 3, 1, 0}


def test_an_interrupted_watermark_is_the_old_or_the_new(
    log: SqliteEventLog, other: SqliteEventLog, interrupts: Interrupts
) -> None:
    mark = 0
    log.save_watermark("g", 0, 0)

    def begin() -> Callable[[], None]:
        nonlocal mark
        mark = log.load_watermark("g", 0) or 0
        return lambda: log.save_watermark("g", 0, mark + 1)

    outcomes: set[int] = set()
    for _ in interrupted_at_each(interrupts, begin):
        outcomes.add((other.load_watermark("g", 0) or 0) - mark)
        appends_go_on(log, other)
    assert outcomes == {0, 1}


def test_an_interrupted_read_holds_nothing(log: SqliteEventLog, other: SqliteEventLog, interrupts: Interrupts) -> None:
    for number in range(1, 4):
        log.append(0, batch_of(number))
    for _ in interrupted_at_each(interrupts, lambda: lambda: numbers(log)):
        appends_go_on(log, other)
        log.trim(0, 2**63 - 1)
        # A reader that is left in the midst of the log would keep it from being emptied.
        assert other._query("", "PRAGMA wal_checkpoint(TRUNCATE)") == [(0, 0, 0)]  # pyright: ignore[reportPrivateUsage]


def test_an_interrupted_close_can_be_repeated(path: Path, driver: Driver, interrupts: Interrupts) -> None:
    log = SqliteEventLog(path, driver=driver)
    log.close()
    count = 0

    def begin() -> Callable[[], None]:
        nonlocal log
        log = SqliteEventLog(path, driver=driver)
        return log.close

    for _ in interrupted_at_each(interrupts, begin):
        log.close()
        assert log.closed
        with pytest.raises(ClosedError):
            log.append(0, batch_of(1))
        count += 1
        assert not is_open(path)
    log.close()
    assert count > 10


# Of one that was not handed out yet, and had read nothing: Python 3.13 says so.
@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
@pytest.mark.parametrize("there", ["nothing", "tables", "log"])
def test_an_interrupted_opening_holds_nothing(
    directory: Path, driver: Driver, interrupts: Interrupts, there: str
) -> None:
    path = directory / "0"
    logs: list[SqliteEventLog] = []
    count = 0

    def begin() -> Callable[[], object]:
        nonlocal path, count
        count += 1
        path = directory / str(count)
        if there == "tables":
            with SqliteEventLog(path, driver=driver) as log:
                for table in LOG_TABLES:
                    log._execute("", f"DROP TABLE {table}")  # pyright: ignore[reportPrivateUsage]
                log._execute("", "CREATE TABLE mine(x)")  # pyright: ignore[reportPrivateUsage]
        elif there == "log":
            SqliteEventLog(path, driver=driver).close()
        return open_and_close

    def open_and_close() -> None:
        # Kept, so that none is collected while a signal may come: what a weak reference's callback raises is lost.
        logs.append(SqliteEventLog(path, driver=driver))
        logs[-1].close()

    for _ in interrupted_at_each(interrupts, begin):
        for log in logs:
            log.close()
        logs.clear()
        assert not is_open(path)
        with SqliteEventLog(path, driver=driver) as log:
            log.append(0, batch_of(1))
            assert numbers(log) == [1]
    assert count > 50


# ---- signal handlers


def append_next(log: EventLog) -> None:
    log.append(0, batch_of(following(log)))


CALLS: dict[str, Callable[[SqliteEventLog], object]] = {
    "append": append_next,
    "save_watermark": lambda log: log.save_watermark("g", 0, 5),
    "load_watermark": lambda log: log.load_watermark("g", 0),
    "read": numbers,
    "trim": lambda log: log.trim(0, 3),
    "last_sequence": lambda log: log.last_sequence(0),
}


@pytest.mark.parametrize("outer", CALLS)
def test_a_handler_may_call_the_log_that_it_interrupts(
    log: SqliteEventLog, other: SqliteEventLog, interrupts: Interrupts, outer: str
) -> None:
    """Whatever was interrupted, the handler's calls are done at once; and whatever they are, it continues as before."""
    marks: list[int | None] = []
    log.save_watermark("g", 0, 5)

    def work() -> None:
        number = following(log)
        log.append(0, batch_of(number))
        log.save_watermark("h", 0, number)
        marks.append(other.load_watermark("h", 0))
        assert numbers(log)[-1] == number
        log.trim(0, number - 2)

    conflicts, at, came = 0, 0, True
    with handled(work) as done:
        while came:
            before = following(log)
            try:
                came = interrupts.call_interrupted(lambda: CALLS[outer](log), at, signal.SIGTERM)
            except LogConflictError:
                # The number that the interrupted call had asked for is the handler's by now.
                assert outer == "append"
                conflicts += 1
            assert not came or following(other) > before
            at += 1
    assert done == [None] * len(done)
    assert len(done) > 20
    assert marks == [mark for mark in marks if mark is not None]
    assert bool(conflicts) == (outer == "append")
    appends_go_on(log, other)


@pytest.mark.parametrize("outer", CALLS)
def test_a_handler_may_close_the_log_that_it_interrupts(
    path: Path, driver: Driver, interrupts: Interrupts, outer: str
) -> None:
    """The interrupted call is done, or says that the log is closed."""
    log = SqliteEventLog(path, driver=driver)
    for _ in range(6):
        append_next(log)

    def begin() -> Callable[[], object]:
        nonlocal log
        log.close()
        log = SqliteEventLog(path, driver=driver)
        return lambda: CALLS[outer](log)

    def close() -> None:
        log.close()

    outcomes: set[str] = set()
    with handled(close) as done:
        at, came = 0, True
        while came:
            call = begin()
            before = following(log)
            try:
                came = interrupts.call_interrupted(call, at, signal.SIGTERM)
            except ClosedError:
                outcome = "closed"
            else:
                outcome = "done"
            outcomes.add(outcome)
            if came:
                assert log.closed
                with SqliteEventLog(path, driver=driver) as again:
                    if outer == "append":
                        assert following(again) == before + (outcome == "done")
            at += 1
    log.close()
    assert outcomes == {"closed", "done"}
    assert done == [None] * (at - 1)
