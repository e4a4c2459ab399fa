"""Run on a disk of its own, whose directory is the first argument: a log that fills it. Prints what happened."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Literal

from nodedb_ring import follow
from nodedb_ring.log.sqlite import SqliteEventLog
from tests.unit.log.sqlite.numbered import batch_of, numbers, run_of


def check(error: OSError, said: str) -> None:
    assert error.errno == errno.ENOSPC, error
    assert said in str(error), error


def fill(log: SqliteEventLog, first: int, *, large: bool) -> int:
    """Appends until there is no room; the next number."""
    while True:
        try:
            log.append(0, batch_of(first, value=bytes(20_000)) if large else run_of(first, 8))
        except OSError as error:
            check(error, f"no space for the event log; events {first} to ")
            return first
        first += 1 if large else 8


def fill_disk(directory: Path) -> None:
    with open(directory / "something else", "ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


def main(directory: Path, driver: Literal["sqlite3", "apsw"], large: bool) -> None:
    log = SqliteEventLog(directory / "events.db", driver=driver)
    first, last = 1, fill(log, 1, large=large)
    for _ in range(4):
        # Half of it, again and again.
        log.trim(0, first + (last - first) // 2)
        first = numbers(log)[0]
        grown = fill(log, last, large=large)
        assert grown - last > (last - first) // 2, (first, last, grown)
        last = grown
    assert numbers(log) == list(range(first, last))
    log.save_watermark("g", 0, last - 1)
    log.close()
    fill_disk(directory)
    with SqliteEventLog(directory / "events.db", driver=driver, read_only=True) as closed:
        assert numbers(closed) == list(range(first, last))
        with follow(None, closed, core_id=0, group="h", max_events=100_000) as follower:
            assert len(follower.next_batch(0)) == last - first
    try:
        SqliteEventLog(directory / "events.db", driver=driver)
    except OSError as error:
        check(error, "no space for the event log; the log was not opened")
    os.unlink(directory / "something else")
    with SqliteEventLog(directory / "events.db", driver=driver) as log:
        log.append(0, batch_of(last + 10))
        assert log.last_sequence(0) == last + 10
    print("done")


if __name__ == "__main__":
    main(Path(sys.argv[1]), "apsw" if sys.argv[2] == "apsw" else "sqlite3", sys.argv[3] == "large")
