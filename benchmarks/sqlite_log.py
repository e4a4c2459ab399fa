"""What the log in a SQLite file costs: ``python -m benchmarks.sqlite_log [--quick] [--strict] [--directory DIR]``.

Each figure is compared with the same work without the log: the same bytes as two blobs in a table with a rowid,
inserted and selected in a bare loop with the same library and pragmas. Both run in turn on the same disk.
Every answer is checked before it is timed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import apsw
import numpy as np

from nodedb_ring import EventBatch
from nodedb_ring.log.sqlite import CHECKPOINT_BYTES, PAGE_BYTES, SqliteEventLog

from .machine import describe
from .measure import check, no_collection
from .sample import VALUE_BYTES, ready_events
from .table import Row, print_rows

__all__ = ["main"]

_EVENTS = 1024
_STRETCH = 32
_APPEND_GOAL = 0.7
_REPLAY_GOAL = 5.0

Driver = Literal["sqlite3", "apsw"]
Synchronous = Literal["NORMAL", "FULL"]
Execute = Callable[..., Any]


class Figures(NamedTuple):
    """Figures of one driver and one level; times in microseconds per batch."""

    append: float
    bare_append: float
    append_ratio: float
    worst_append: float
    replay: float
    bare_replay: float


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark: 0, or with ``--strict`` 1 if a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sqlite_log", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: figures are rougher")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a goal is missed")
    parser.add_argument("--directory", type=Path, help="where the databases are made; a temporary one by default")
    options = parser.parse_args(arguments)
    print(", ".join(f"{name} {value}" for name, value in describe().items()))
    print(f"SQLite of sqlite3 {sqlite_of('sqlite3')}, of apsw {sqlite_of('apsw')}")
    rounds = 6 if options.quick else 20
    rows: list[Row] = []
    levels: list[tuple[Driver, Synchronous]] = [("sqlite3", "NORMAL"), ("apsw", "NORMAL"), ("sqlite3", "FULL")]
    for driver, synchronous in levels:
        with tempfile.TemporaryDirectory(dir=options.directory) as directory:
            rows += _rows(driver, synchronous, measured(Path(directory), driver, synchronous, rounds))
    print_rows(f"Batches of {_EVENTS} events with {VALUE_BYTES}-byte values in a SQLite file", rows)
    missed = [row for row in rows if row.reached is False]
    print(f"{len(missed)} of {sum(row.goal is not None for row in rows)} goals missed")
    return 1 if missed and options.strict else 0


def _rows(driver: Driver, synchronous: Synchronous, got: Figures) -> list[Row]:
    def row(what: str, value: float, unit: str, goal: float | None = None, beside: str = "") -> Row:
        return Row(
            group=driver,
            what=f"{driver} {synchronous}: {what}",
            value=value,
            unit=unit,
            goal=goal,
            at_least=True,
            beside=beside,
        )

    is_asked = synchronous == "NORMAL"
    speed = _EVENTS / got.replay
    return [
        row(
            "append, of a bare loop's speed",
            got.append_ratio,
            "",
            _APPEND_GOAL if is_asked else None,
            f"append {got.append:,.0f} µs a batch, bare INSERT {got.bare_append:,.0f} µs",
        ),
        row("the longest append", got.worst_append / 1000, "ms"),
        row(
            "replay, decoded and checked",
            speed,
            "M events/s",
            _REPLAY_GOAL if is_asked else None,
            f"read {got.replay:,.0f} µs a batch, bare SELECT {got.bare_replay:,.0f} µs",
        ),
    ]


def sqlite_of(driver: Driver) -> str:
    """The version of the SQLite library that a driver uses."""
    import sqlite3

    return sqlite3.sqlite_version if driver == "sqlite3" else apsw.sqlite_lib_version()


def connected(path: Path, driver: Driver, synchronous: Synchronous) -> tuple[Execute, Callable[[], None]]:
    """A connection with the pragmas of a log, and a plain table."""
    import sqlite3

    connection: Any = sqlite3.connect(path, isolation_level=None) if driver == "sqlite3" else apsw.Connection(str(path))
    for pragma in (
        f"page_size = {PAGE_BYTES}",
        "journal_mode = WAL",
        f"synchronous = {synchronous}",
        f"wal_autocheckpoint = {CHECKPOINT_BYTES // PAGE_BYTES}",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    connection.execute("CREATE TABLE blobs(number INTEGER PRIMARY KEY, rows BLOB, payload BLOB)")
    return connection.execute, connection.close


def measured(directory: Path, driver: Driver, synchronous: Synchronous, rounds: int) -> Figures:
    """Appends and then reads, in turn a part of the log and a part of the bare loop."""
    batches = [EventBatch.from_events(ready_events(_EVENTS, 1 + _EVENTS * n)) for n in range(_STRETCH)]
    execute, close = connected(directory / "bare.db", driver, synchronous)
    with SqliteEventLog(directory / "log.db", driver=driver, synchronous=synchronous) as log:
        for number, batch in enumerate(batches):
            log.append(99, batch)
            execute("INSERT INTO blobs VALUES (?, ?, ?)", (-1 - number, *blobs(batch)))
        expected = [event for batch in batches for event in batch]
        check("the events read", [event for batch in log.read(99, 0, 2**62) for event in batch] == expected, True)
        found = execute("SELECT rows, payload FROM blobs WHERE number = -1").fetchall()
        check("the blobs read", found, [tuple(bytes(blob) for blob in blobs(batches[0]))])
        log.trim(99, 2**62)

        clock = time.perf_counter_ns
        appended: list[float] = []
        inserted: list[float] = []
        worst = 0
        for turn in range(rounds):
            stretch = [renumbered(batch, turn * _STRETCH * _EVENTS) for batch in batches]
            pairs = [blobs(batch) for batch in stretch]
            with no_collection():
                start = clock()
                for batch in stretch:
                    before = clock()
                    log.append(0, batch)
                    worst = max(worst, clock() - before)
                between = clock()
                for number, pair in enumerate(pairs, turn * _STRETCH):
                    execute("INSERT INTO blobs VALUES (?, ?, ?)", (number, *pair))
                end = clock()
            appended.append((between - start) / 1000 / _STRETCH)
            inserted.append((end - between) / 1000 / _STRETCH)
        total = rounds * _STRETCH
        check("the last number", log.last_sequence(0), total * _EVENTS)

        read: list[float] = []
        selected: list[float] = []
        for turn in range(rounds):
            first = 1 + turn * _STRETCH * _EVENTS
            with no_collection():
                start = clock()
                count = 0
                for batch in log.read(0, first, first + _STRETCH * _EVENTS - 1):
                    count += len(batch)
                between = clock()
                size = 0
                for number in range(turn * _STRETCH, (turn + 1) * _STRETCH):
                    [(rows, _payload)] = execute(
                        "SELECT rows, payload FROM blobs WHERE number = ?", (number,)
                    ).fetchall()
                    size += len(rows)
                end = clock()
            check("events read", (count, size), (_STRETCH * _EVENTS, 128 * _STRETCH * _EVENTS))
            read.append((between - start) / 1000 / _STRETCH)
            selected.append((end - between) / 1000 / _STRETCH)
    close()
    # Appends sometimes wait for the disk, so their medians are compared. Reads hit cached pages, so the best is.
    ratio = statistics.median(bare / own for bare, own in zip(inserted, appended, strict=True))
    return Figures(
        append=statistics.median(appended),
        bare_append=statistics.median(inserted),
        append_ratio=ratio,
        worst_append=worst / 1000,
        replay=min(read),
        bare_replay=min(selected),
    )


def renumbered(batch: EventBatch, by: int) -> EventBatch:
    """The same events with other numbers, in a new batch."""
    records = batch.records.copy()
    records["sequence"] += np.uint64(by)
    return EventBatch(records, batch.payload)


def blobs(batch: EventBatch) -> tuple[memoryview, memoryview]:
    """The bytes that the log stores of a packed batch."""
    return batch.records.view(np.uint8).data, batch.payload.data


if __name__ == "__main__":
    raise SystemExit(main())
