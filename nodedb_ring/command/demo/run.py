"""The run in one process: one thread for each writer, and one that keeps the views of all cores."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from ... import EventConsumer, EventProducer, Follower, follow, merge
from ...log.sqlite import SqliteEventLog
from .database import ask_databases, open_log, write_flights
from .flights import AIRPORTS, Flight, flights_by_core
from .outcome import CoreView, Outcome, Recovered, collect_outcome
from .view import CarrierView

__all__ = ["Bus", "keep_views", "run"]

Bus: TypeAlias = tuple[list[EventProducer], list[EventConsumer]]
"""What ``create_event_bus`` returns: both ends of each core's ring."""

_TICK: Final = 0.1  # seconds between two progress reports
_COMMIT: Final = 0.2  # seconds between two watermarks
_GROUP: Final = "demo"


def run(
    flights: Sequence[Flight],
    databases: tuple[Path, Path],
    bus: Bus,
    progress: Callable[[int], object],
    *,
    logged: bool = False,
) -> Outcome:
    """Writes `flights` into two databases while one thread keeps the view; then asks the databases.

    Each core has a view of its own, and the views are added at the end. The thread reads all cores by ``merge``.

    Parameters
    ----------
    flights : sequence of Flight, by date
    databases : two Paths
        Empty files.
    bus : Bus
        A new bus with two rings.
    progress : callable
        Called regularly, in this thread, with the number of events received or dropped.
    logged : bool, default False
        Each database keeps a log of its events, from which the view gets the events that the ring drops.
    """
    producers, consumers = bus
    views = [CarrierView() for _ in AIRPORTS]
    shards = flights_by_core(flights)
    stop = threading.Event()
    started = time.perf_counter()
    with contextlib.ExitStack() as ends:
        logs = [ends.enter_context(open_log(path)) if logged else None for path in databases]
        followers = [
            follow(consumer, log, group=_GROUP)
            for consumer, log in zip(consumers, logs, strict=True)
            if log is not None
        ]
        threads = ends.enter_context(concurrent.futures.ThreadPoolExecutor(len(AIRPORTS) + 1, "core"))
        try:
            # Writers first: the reader waits for the producers to close, so it must not start before the writers run.
            running = {
                threads.submit(write_flights, path, shard, producer, stop, log)
                for path, shard, producer, log in zip(databases, shards, producers, logs, strict=True)
            }
            running.add(threads.submit(keep_views, consumers, views, followers))
            while running:
                done, running = concurrent.futures.wait(running, _TICK, concurrent.futures.FIRST_EXCEPTION)
                for thread in done:
                    thread.result()
                progress(
                    sum(consumer.stats().received for consumer in consumers)
                    + sum(producer.stats().dropped for producer in producers)
                )
        finally:
            # After a failed thread or Ctrl-C the writers stop, and then the reader.
            stop.set()
        recovered = [None if log is None else _recovered(log, followers[core_id]) for core_id, log in enumerate(logs)]
    seconds = time.perf_counter() - started
    return collect_outcome(
        [(producer.capacity, producer.stats(), consumer.stats()) for producer, consumer in zip(*bus, strict=True)],
        [
            CoreView(totals=view.totals(), events=view.events(), recovered=fetched)
            for view, fetched in zip(views, recovered, strict=True)
        ],
        ask_databases(*databases),
        seconds=seconds,
    )


def keep_views(consumers: Sequence[EventConsumer], views: Sequence[CarrierView], followers: Sequence[Follower]) -> None:
    """Reads all cores until their producers have closed: through the followers, if there are logs."""
    with contextlib.ExitStack() as ends:
        for consumer in consumers:
            ends.enter_context(consumer)
        committed = time.monotonic()
        for core_id, batch in merge(followers or consumers):
            views[core_id].apply(batch)
            # Not after each batch: a commit waits for the writer's transaction, because both write to one file.
            if time.monotonic() - committed >= _COMMIT:
                _commit(followers)
                committed = time.monotonic()
        _commit(followers)


def _commit(followers: Sequence[Follower]) -> None:
    for follower in followers:
        follower.commit()


def _recovered(log: SqliteEventLog, follower: Follower) -> Recovered:
    stats = follower.stats()
    return Recovered(
        last_sequence=log.last_sequence(follower.core_id) or 0,
        gaps=stats.gaps,
        replayed=stats.replayed,
        episodes=stats.episodes,
    )
