"""The run in one process: one thread for each writer, and one for each consumer that keeps a view."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from ... import EventConsumer, EventProducer, Follower, follow
from ...log.sqlite import SqliteEventLog
from .database import open_log, write_flights
from .flights import AIRPORTS, Flight, flights_by_core
from .outcome import CoreView, Outcome, Recovered, collect_outcome
from .view import CarrierView

__all__ = ["Bus", "run"]

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
    """Writes `flights` into two databases while two consumers keep the view; then asks the databases.

    Each consumer has its own thread and its own view, and the views are added at the end: cores share nothing. With
    one thread for both consumers, polling or on asyncio, it takes as long, but the rings fill to 6 to 29 % and not
    to 1 to 5 %.

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
            None if log is None else follow(consumer, log, group=_GROUP)
            for consumer, log in zip(consumers, logs, strict=True)
        ]
        threads = ends.enter_context(concurrent.futures.ThreadPoolExecutor(2 * len(AIRPORTS), "core"))
        try:
            # Writers first: a consumer waits for its producer to close, so it must not start before the writer runs.
            running = {
                threads.submit(write_flights, path, shard, producer, stop, log)
                for path, shard, producer, log in zip(databases, shards, producers, logs, strict=True)
            }
            running |= {threads.submit(_keep_view, *core) for core in zip(consumers, views, followers, strict=True)}
            while running:
                done, running = concurrent.futures.wait(running, _TICK, concurrent.futures.FIRST_EXCEPTION)
                for thread in done:
                    thread.result()
                progress(
                    sum(consumer.stats().received for consumer in consumers)
                    + sum(producer.stats().dropped for producer in producers)
                )
        finally:
            # After a failed thread or Ctrl-C the writers stop, and then the consumers.
            stop.set()
        recovered = [
            None if log is None or follower is None else _recovered(log, follower)
            for log, follower in zip(logs, followers, strict=True)
        ]
    return collect_outcome(
        [(producer.capacity, producer.stats(), consumer.stats()) for producer, consumer in zip(*bus, strict=True)],
        [
            CoreView(totals=view.totals(), events=view.events(), recovered=fetched)
            for view, fetched in zip(views, recovered, strict=True)
        ],
        databases,
        seconds=time.perf_counter() - started,
    )


def _keep_view(consumer: EventConsumer, view: CarrierView, follower: Follower | None) -> None:
    with consumer:
        committed = time.monotonic()
        for batch in consumer if follower is None else follower:
            view.apply(batch)
            # Not after each batch: a commit waits for the writer's transaction, because both write to one file.
            if follower is not None and time.monotonic() - committed >= _COMMIT:
                follower.commit()
                committed = time.monotonic()
        if follower is not None:
            follower.commit()


def _recovered(log: SqliteEventLog, follower: Follower) -> Recovered:
    stats = follower.stats()
    return Recovered(
        last_sequence=log.last_sequence(follower.core_id) or 0,
        gaps=stats.gaps,
        replayed=stats.replayed,
        episodes=stats.episodes,
    )
