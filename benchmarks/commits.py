"""``python -m benchmarks.commits``: ``merge(by="lsn")`` over the log of a database, compared with any order.

Two connections commit in turn, in runs of random length. That each commit came once and in order is checked; a wrong
answer ends the run.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import apsw
import numpy as np

from nodedb_ring import EventBatch, Follower, create_event_bus, follow, merge
from nodedb_ring.capture import SqliteCapture
from nodedb_ring.log.sqlite import SqliteEventLog

from .measure import check, no_collection
from .suite import Show, run_suite
from .table import Row

__all__ = ["main"]

_PARTS: Final = ("merge",)
_COMMITS: Final = 4_000
_MAX_EVENTS: Final = 1_024


def main(arguments: list[str] | None = None) -> int:
    """Runs the parts that were asked for: 0, or with ``--strict`` 1 if a goal was missed."""
    return run_suite("benchmarks.commits", __doc__, _PARTS, _run, arguments)


def _run(wanted: set[str], quick: bool, show: Show) -> None:
    rounds = 2 if quick else 8
    if "merge" in wanted:
        kinds = [*merging(1, 1, rounds), *merging(8, 1, rounds), *merging(8, 50, rounds)]
        show("Two cores of one database, from its log", kinds)


def merging(rows: int, run: int, rounds: int) -> list[Row]:
    """Reads a log of commits of `rows` events, `run` of them on average before the other core has one."""
    events = _COMMITS * rows
    with TemporaryDirectory() as folder:
        path = Path(folder, "database")
        log = _written(path, rows, run)
        any_order = in_order = float("inf")
        batches = 0
        for number in range(rounds):
            with _followers(log, f"any {number}") as followers:
                took, numbers = _timed(merge(followers, _MAX_EVENTS), events)
                any_order = min(any_order, took)
                commits = np.sort(np.concatenate(numbers))
                check("the commits", commits.tolist(), np.repeat(np.arange(_COMMITS) + 1, rows).tolist())
            with _followers(log, f"in order {number}") as followers:
                took, numbers = _timed(merge(followers, _MAX_EVENTS, by="lsn"), events)
                in_order, batches = min(in_order, took), len(numbers)
                check("the commits in order", np.concatenate(numbers).tolist(), commits.tolist())
        log.close()
    return [
        Row(
            group="commits",
            what=f"commits of {rows}, in turn after {run} on average: by commit, in time of any order",
            value=in_order / any_order,
            unit="",
            beside=f"{events / in_order / 1e6:.2f} M events/s in {batches} batches; {events / any_order / 1e6:.2f}",
        )
    ]


@contextlib.contextmanager
def _followers(log: SqliteEventLog, group: str) -> Generator[list[Follower], None, None]:
    with contextlib.ExitStack() as opened:
        yield [
            opened.enter_context(follow(None, log, core_id=core, group=group, max_events=_MAX_EVENTS))
            for core in (0, 1)
        ]


def _timed(
    merged: Iterator[tuple[int, EventBatch]], events: int
) -> tuple[float, list[np.ndarray[tuple[int], np.dtype[np.uint64]]]]:
    """The seconds that so many events took to come, and the numbers of their commits."""
    count, numbers = 0, []
    with no_collection():
        start = time.perf_counter()
        while count < events:
            _, batch = next(merged)
            count += len(batch)
            numbers.append(batch.lsn)
        return time.perf_counter() - start, numbers


def _written(path: Path, rows: int, run: int) -> SqliteEventLog:
    first = apsw.Connection(str(path))
    for statement in ("PRAGMA journal_mode = WAL", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)"):
        first.execute(statement).fetchall()
    log = SqliteEventLog(path, driver="apsw")
    producers, _ = create_event_bus(2)
    connections = [first, apsw.Connection(str(path))]
    captures = [
        SqliteCapture(connection, producer, log=log)
        for connection, producer in zip(connections, producers, strict=True)
    ]
    draw, core = random.Random(run), 0
    for commit in range(_COMMITS):
        if draw.random() < 1 / run:
            core = 1 - core
        values = ", ".join(f"({commit * rows + row}, 'item {row}')" for row in range(rows))
        connections[core].execute(f"INSERT INTO t VALUES {values}")
    for capture, connection in zip(captures, connections, strict=True):
        capture.close()
        connection.close()
    return log


if __name__ == "__main__":
    raise SystemExit(main())
