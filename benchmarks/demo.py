"""What capture and the view cost the demo's own SQL: ``python -m benchmarks.demo [flights]``.

Each figure is a ratio to the same SQL, on the same files, without a capture, in the same round. First one thread writes
one database: nobody else wants the interpreter's lock, so the difference is the capture's. Then two threads write two
databases, as in the demo, and the demo itself runs, with its consumers and its view. Each run is checked: events against
rows, and the view against what the databases answer.
"""

# pyright: reportPrivateUsage=false, reportUnknownMemberType=false

from __future__ import annotations

import concurrent.futures
import contextlib
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import apsw

from nodedb_ring import create_event_bus
from nodedb_ring.command.demo import database, run
from nodedb_ring.command.demo.flights import Flight, flights_by_core, load_flights
from nodedb_ring.log.sqlite import SqliteEventLog

ROUNDS = 5


def write_alone(path: Path, flights: Sequence[Flight]) -> int:
    """The demo's SQL and nothing else. Returns how many row changes it made."""
    changes = 0
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "normal")
        with connection:
            connection.execute(database._SCHEMA)
        for transaction in database._transactions(flights):
            with connection:
                for sql, rows in transaction:
                    connection.executemany(sql, rows)
                    changes += len(rows)
    return changes


def write_captured(path: Path, flights: Sequence[Flight], *, logged: bool = False) -> int:
    """The same with a capture, into a ring that has room for all events. Returns how many it took."""
    [producer], [consumer] = create_event_bus(1, capacity=2 * len(flights), arena_bytes=800 * len(flights))
    with contextlib.ExitStack() as ends:
        log = ends.enter_context(SqliteEventLog(path, driver="apsw")) if logged else None
        database.write_flights(path, flights, producer, threading.Event(), log)
    return len(consumer.drain(2 * len(flights)))


def write_logged(path: Path, flights: Sequence[Flight]) -> int:
    """The same with a log in the database."""
    return write_captured(path, flights, logged=True)


def in_two_threads(write: Callable[[Path, Sequence[Flight]], int], folder: Path, flights: Sequence[Flight]) -> int:
    """One writer for each core of the demo. Returns the number of row changes."""
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        cores = enumerate(flights_by_core(flights))
        return sum(threads.map(lambda core: write(folder / f"{core[0]}.db", core[1]), cores))


def demo(folder: Path, flights: Sequence[Flight]) -> int:
    """The demo as a whole. Returns the number of events in its view."""
    outcome = run.run(flights, (folder / "0.db", folder / "1.db"), create_event_bus(2), lambda _: None)
    if outcome.view != outcome.database:
        sys.exit("the demo's view is not what its databases answer")
    return sum(sum(core.events.values()) for core in outcome.cores)


def seconds(work: Callable[[Path, Sequence[Flight]], int], flights: Sequence[Flight], expected: int | None) -> float:
    """How long it takes, in a folder of its own, once it is known to have made as many changes as expected."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        changes = work(Path(folder), flights)
        took = time.perf_counter() - start
    if expected is not None and changes != expected:
        sys.exit(f"{changes} changes, and not {expected}")
    return took


def alone(write: Callable[[Path, Sequence[Flight]], int]) -> Callable[[Path, Sequence[Flight]], int]:
    """The same as a function of a folder."""
    return lambda folder, flights: write(folder / "0.db", flights)


def together(write: Callable[[Path, Sequence[Flight]], int]) -> Callable[[Path, Sequence[Flight]], int]:
    """The same in two threads."""
    return lambda folder, flights: in_two_threads(write, folder, flights)


def main() -> None:
    """Prints the table."""
    flights = load_flights(int(sys.argv[1]) if len(sys.argv) > 1 else 30_000)
    with tempfile.TemporaryDirectory() as folder:
        expected = write_alone(Path(folder, "0.db"), flights)
    groups = [
        [
            ("one thread, SQL alone", alone(write_alone)),
            ("one thread, captured", alone(write_captured)),
            ("one thread, captured and logged", alone(write_logged)),
        ],
        [
            ("two threads, SQL alone", together(write_alone)),
            ("two threads, captured", together(write_captured)),
            ("two threads, the demo: captured, drained, in the view", demo),
        ],
    ]
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, SQLite", end=" ")
    print(f"{apsw.sqlite_lib_version()}; {expected} changes in files, 1,000 a transaction, best of {ROUNDS}")
    print(f"{'':56}{'us per change':>14}{'ratio':>8}")
    for group in groups:
        rounds = [[seconds(work, flights, expected) for _, work in group] for _ in range(ROUNDS)]
        for place, (name, _) in enumerate(group):
            best = min(taken[place] for taken in rounds)
            # The ratio of each round, because its two sides ran next to each other.
            ratio = statistics.median(taken[place] / taken[0] for taken in rounds)
            print(f"{name:56}{1e6 * best / expected:14.2f}{ratio:8.2f}", flush=True)


if __name__ == "__main__":
    main()
