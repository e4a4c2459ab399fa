"""``python -m benchmarks.demo``: the demo and the parts of it, compared with its own SQL.

The SQL is the same in all runs: flights are written into files, a thousand rows per transaction. It runs alone,
captured, captured with a log, and in the demo as a whole, with its consumers and its view. These run in turn, and a
ratio is the median of the ratios of the rounds. With one thread it is processor time, which other processes disturb
less; with two it is the time that passes. Answers are checked in every round: events against row changes, and the view
against what the databases answer.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import msgpack

from nodedb_ring import EventBatch, EventConsumer, create_event_bus
from nodedb_ring.command.demo.database import (
    ask_databases,
    open_database,
    open_log,
    transactions_left,
    write_flights,
    write_transaction,
)
from nodedb_ring.command.demo.flights import AIRPORTS, Flight, flights_by_core, load_flights
from nodedb_ring.command.demo.run import run
from nodedb_ring.command.demo.totals import TotalsByCarrier, add_totals
from nodedb_ring.command.demo.view import CarrierView
from nodedb_ring.log.sqlite import SqliteEventLog

from .measure import best, check, no_collection
from .suite import Show, run_suite
from .table import Row

__all__ = ["main"]

_PARTS: Final = ("capture", "demo", "view")
_PAYLOAD: Final = 512  # bytes per event, at most: two rows of some 140 bytes
_BATCH: Final = 1024

Shards: TypeAlias = Sequence[Sequence[Flight]]
"""The flights of each thread and database."""

Timed: TypeAlias = Callable[[Path, Shards], float]
"""Writes the flights into files of a folder, checks what became of them, and returns the seconds it took."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark."""
    return run_suite("benchmarks.demo", __doc__, _PARTS, _run, arguments)


def _run(parts: set[str], quick: bool, show: Show) -> None:
    flights = load_flights(20_000 if quick else 60_000)
    rounds = 3 if quick else 7
    by_core = flights_by_core(flights)
    if "capture" in parts:
        runs: dict[str, Timed] = {"captured": _captured, "captured and logged": _captured_and_logged}
        goals = {"captured": 2.0}
        show("One thread, of its SQL alone", _compare("capture", runs, goals, [flights], rounds))
    if "demo" in parts:
        runs = {"captured": _captured, "the demo": _demo, "the demo with logs": _demo_with_logs}
        goals = {"the demo": 2.5}
        show("Two threads, of their SQL alone", _compare("demo", runs, goals, by_core, rounds))
    if "view" in parts:
        show("The view", [_view(by_core, rounds)])


def _compare(group: str, runs: dict[str, Timed], goals: dict[str, float], shards: Shards, rounds: int) -> list[Row]:
    """The runs in turn with the SQL alone."""
    changes = 2 * sum(map(len, shards))
    timed = {"alone": _sql_alone, **runs}
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds):
        for name, once in timed.items():
            with tempfile.TemporaryDirectory() as folder, no_collection():
                seconds[name].append(once(Path(folder), shards))
    alone = min(seconds["alone"]) * 1e6 / changes
    return [
        Row(
            group=group,
            what=f"{name}, of the SQL alone",
            value=statistics.median(a / b for a, b in zip(seconds[name], seconds["alone"], strict=True)),
            unit="",
            goal=goals.get(name),
            beside=f"{min(seconds[name]) * 1e6 / changes:.2f} µs per change; alone {alone:.2f} µs",
        )
        for name in runs
    ]


def _sql_alone(folder: Path, shards: Shards) -> float:
    paths = _paths(folder, shards)
    took = _in_threads(_write, [*zip(paths, shards, strict=True)])
    for path, shard in zip(paths, shards, strict=True):
        with contextlib.closing(open_database(path)) as connection:
            check("transactions that are left", len([*transactions_left(connection, shard)]), 0)
    return took


def _write(path: Path, flights: Sequence[Flight]) -> None:
    with contextlib.closing(open_database(path)) as connection:
        for transaction in transactions_left(connection, flights):
            write_transaction(connection, transaction)


def _captured(folder: Path, shards: Shards) -> float:
    took, consumers = _capture(_paths(folder, shards), shards)
    for consumer, shard in zip(consumers, shards, strict=True):
        check("events", sum(map(len, consumer)), 2 * len(shard))
    return took


def _captured_and_logged(folder: Path, shards: Shards) -> float:
    paths = _paths(folder, shards)
    with contextlib.ExitStack() as ends:
        logs = [ends.enter_context(open_log(path)) for path in paths]
        took, _ = _capture(paths, shards, logs)
        for core_id, (log, shard) in enumerate(zip(logs, shards, strict=True)):
            check("events in the log", log.last_sequence(core_id), 2 * len(shard))
    return took


def _capture(
    paths: Sequence[Path], shards: Shards, logs: Sequence[SqliteEventLog | None] | None = None
) -> tuple[float, list[EventConsumer]]:
    """Writes into rings that have room for all events; returns the seconds and the ends that can be drained."""
    most = 2 * max(map(len, shards))
    # A writer would wait for its consumer in a ring that is nearly full.
    producers, consumers = create_event_bus(len(shards), 2 * most, arena_bytes=2 * most * _PAYLOAD)
    never = threading.Event()
    work = zip(paths, shards, producers, [never] * len(shards), logs or [None] * len(shards), strict=True)
    return _in_threads(write_flights, [*work]), consumers


def _demo(folder: Path, shards: Shards, *, logged: bool = False) -> float:
    flights = sorted((flight for shard in shards for flight in shard), key=lambda flight: flight.date)
    first, second = _paths(folder, AIRPORTS)
    outcome = run(flights, (first, second), create_event_bus(len(AIRPORTS)), lambda _: None, logged=logged)
    check("the view", outcome.view, outcome.database)
    check("events in the view", [sum(core.events.values()) for core in outcome.cores], [2 * len(s) for s in shards])
    return outcome.seconds


def _demo_with_logs(folder: Path, shards: Shards) -> float:
    return _demo(folder, shards, logged=True)


def _next_batch(consumer: EventConsumer) -> EventBatch | None:
    return consumer.drain(_BATCH) or None


def _view(shards: Shards, rounds: int) -> Row:
    """The view alone, over the events of a run in batches as a consumer drains them."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = paths = _paths(Path(folder), shards)
        _, consumers = _capture(paths, shards)
        cores = [[*iter(functools.partial(_next_batch, consumer), None)] for consumer in consumers]
        expected = ask_databases(first, second)
    events = sum(len(batch) for batches in cores for batch in batches)
    check("events", events, 2 * sum(map(len, shards)))
    check("the view", _totals(cores), expected)
    view = best(rounds, lambda: _seconds(lambda: _totals(cores))) * 1e6 / events
    values = [
        value
        for batches in cores
        for batch in batches
        for field in ("new_value", "old_value")
        for value in batch.values(field)
        if value is not None
    ]

    def unpack() -> None:
        for value in values:
            msgpack.unpackb(value)

    unpacked = best(rounds, lambda: _seconds(unpack))
    unpacked *= 1e6 / events
    return Row(
        group="view",
        what="the view, from the columns of batches of 1,024",
        value=view,
        unit="µs per event",
        goal=0.4,
        beside=f"msgpack.unpackb of its rows alone {unpacked:.2f} µs, {unpacked / view:.1f} times as long",
    )


def _totals(cores: Sequence[Sequence[EventBatch]]) -> TotalsByCarrier:
    views = [CarrierView() for _ in cores]
    for view, batches in zip(views, cores, strict=True):
        for batch in batches:
            view.apply(batch)
    return add_totals(view.totals() for view in views)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _in_threads(work: Callable[..., None], arguments: Sequence[tuple[object, ...]]) -> float:
    """Runs `work` in a thread for each tuple of arguments; returns the seconds until all have ended.

    Of one thread alone it is the processor's time.
    """
    clock = time.process_time if len(arguments) == 1 else time.perf_counter
    with concurrent.futures.ThreadPoolExecutor(len(arguments)) as threads:
        start = clock()
        for thread in [threads.submit(work, *each) for each in arguments]:
            thread.result()
        return clock() - start


def _paths(folder: Path, cores: Sequence[object]) -> list[Path]:
    return [folder / f"flights.{number}" for number in range(len(cores))]


if __name__ == "__main__":
    raise SystemExit(main())
