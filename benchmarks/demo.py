"""What capture and the view cost the demo's own SQL: ``python -m benchmarks.demo [flights]``.

Each figure is a ratio to the same SQL, on the same files, without a capture, in the same round. First one thread writes
one database, in processor time: the difference is the capture's. Then two threads write two databases, as in the demo,
and the demo itself runs, with its consumers and its view; that is the time that passes. Each run is checked: events
against rows, and the view against what the databases answer.
"""

# pyright: reportPrivateUsage=false, reportUnknownMemberType=false

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import apsw

from nodedb_ring import EventProducer, create_event_bus
from nodedb_ring.command.demo import database, run
from nodedb_ring.command.demo.flights import Flight, flights_by_core, load_flights
from nodedb_ring.log.sqlite import SqliteEventLog

ROUNDS = 3


def write_alone(path: Path, flights: Sequence[Flight], _: EventProducer) -> int:
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


def write_captured(path: Path, flights: Sequence[Flight], producer: EventProducer) -> int:
    """The same with a capture. Returns how many events the ring took."""
    database.write_flights(path, flights, producer, threading.Event())
    return producer.stats().emitted


def write_logged(path: Path, flights: Sequence[Flight], producer: EventProducer) -> int:
    """The same with a log in the database."""
    with SqliteEventLog(path, driver="apsw") as log:
        database.write_flights(path, flights, producer, threading.Event(), log)
    return producer.stats().emitted


Writer = Callable[[Path, Sequence[Flight], EventProducer], int]


def alone(write: Writer, folder: Path, flights: Sequence[Flight], bus: run.Bus) -> int:
    """One writer. Returns the number of row changes."""
    return write(folder / "0.db", flights, bus[0][0])


def together(write: Writer, folder: Path, flights: Sequence[Flight], bus: run.Bus) -> int:
    """One writer for each core of the demo, in a thread of its own."""
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        paths = [folder / "0.db", folder / "1.db"]
        return sum(threads.map(write, paths, flights_by_core(flights), bus[0]))


def demo(folder: Path, flights: Sequence[Flight], bus: run.Bus) -> int:
    """The demo as a whole. Returns the number of events in its view."""
    outcome = run.run(flights, (folder / "0.db", folder / "1.db"), bus, lambda _: None)
    if outcome.view != outcome.database:
        sys.exit("the demo's view is not what its databases answer")
    return sum(sum(core.events.values()) for core in outcome.cores)


Work = Callable[[Path, Sequence[Flight], run.Bus], int]


def seconds(work: Work, flights: Sequence[Flight], expected: int, clock: Callable[[], float]) -> float:
    """How long it takes, in a folder and on a bus of its own, if it makes as many changes as expected."""
    # Room for all events, so that a writer never waits.
    bus = create_event_bus(2, capacity=2 * len(flights), arena_bytes=800 * len(flights))
    with tempfile.TemporaryDirectory() as folder:
        start = clock()
        changes = work(Path(folder), flights, bus)
        took = clock() - start
    if changes != expected:
        sys.exit(f"{changes} changes, and not {expected}")
    return took


def main() -> None:
    """Prints the table."""
    flights = load_flights(int(sys.argv[1]) if len(sys.argv) > 1 else 30_000)
    # Each flight is written twice: when it is scheduled, and when it has flown or was cancelled.
    expected = 2 * len(flights)
    one_thread: list[tuple[str, Work]] = [
        ("one thread, SQL alone", functools.partial(alone, write_alone)),
        ("one thread, captured", functools.partial(alone, write_captured)),
        ("one thread, captured and logged", functools.partial(alone, write_logged)),
    ]
    as_the_demo: list[tuple[str, Work]] = [
        ("two threads, SQL alone", functools.partial(together, write_alone)),
        ("two threads, captured", functools.partial(together, write_captured)),
        ("the demo: two writers, two consumers with their views", demo),
    ]
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, SQLite", end=" ")
    print(f"{apsw.sqlite_lib_version()}; {expected} changes in files, 1,000 a transaction, best of {ROUNDS}")
    print(f"{'':56}{'us per change':>14}{'ratio':>8}")
    for group, clock in ((one_thread, time.process_time), (as_the_demo, time.perf_counter)):
        rounds = [[seconds(work, flights, expected, clock) for _, work in group] for _ in range(ROUNDS)]
        for place, (name, _) in enumerate(group):
            best = min(taken[place] for taken in rounds)
            # The ratio of each round, because its two sides ran next to each other.
            ratio = statistics.median(taken[place] / taken[0] for taken in rounds)
            print(f"{name:56}{1e6 * best / expected:14.2f}{ratio:8.2f}", flush=True)


if __name__ == "__main__":
    main()
