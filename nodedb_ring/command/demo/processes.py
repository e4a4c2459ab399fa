"""The run between processes: one writer for each Data Plane core, and one consumer that keeps the views of all cores.

Each child has a link to the parent. A writer gets its flights over it, and a message to begin once all have claimed
their ends of the bus. Warnings and the consumer's views come back over it. Its end of file means that the child ended.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_links
from pathlib import Path
from typing import Final, TypeAlias

from ... import EventBus, EventConsumer, wait
from ..child_process import Child, send, stop
from ..termination import termination_deferred
from .children import TerminationFlag, spawn
from .database import ask_databases, write_flights
from .flights import AIRPORTS, Flight, flights_by_core
from .outcome import CoreView, Outcome, collect_outcome
from .view import CarrierView

__all__ = ["run"]

_TICK: Final = 0.1  # seconds between two progress reports, and between two checks that the parent is there
_READY: Final = None
_BEGIN: Final = None


_Views: TypeAlias = tuple[CoreView, ...]
"""The view of each core."""


def run(
    flights: Sequence[Flight],
    databases: tuple[Path, Path],
    bus: EventBus,
    progress: Callable[[int], object],
    show: Callable[[str], object],
) -> Outcome:
    """Writes `flights` into two databases from two processes while a third keeps the view; then asks the databases.

    No child is left, however it ends: only the parent answers Ctrl-C, and a child that dies ends the run.

    Parameters
    ----------
    flights : sequence of Flight, by date
    databases : two Paths
        Empty files.
    bus : EventBus
        A new bus with two rings. The caller unlinks it.
    progress : callable
        Called regularly with the number of events received or dropped.
    show : callable
        Called with each warning of the bus in a child, one line at a time.

    Raises
    ------
    ChildProcessError
        A child was killed or failed; the message says which. A child that failed has printed its traceback to stderr.
    """
    children: list[Child] = []
    try:
        for number, database in enumerate(databases):
            with termination_deferred():
                children.append(spawn(f"the writer of core {number}", _write, bus, number, database))
        with termination_deferred():
            children.append(spawn("the consumer", _consume, bus))
        writers = children[:-1]
        for writer, shard in zip(writers, flights_by_core(flights), strict=True):
            # Not as an argument, because that would wait forever for a child that dies before it reads.
            send(writer, shard)
        for child in children:
            child.await_ready()
        started = time.perf_counter()
        for writer in writers:
            send(writer, _BEGIN)
        views, ended = _listen(children, bus, progress, show)
    finally:
        stop(children)
    return collect_outcome(
        [(bus.capacity, ring.producer, ring.consumer) for ring in bus.stats()],
        views,
        ask_databases(*databases),
        seconds=ended - started,
    )


def _listen(
    children: Sequence[Child], bus: EventBus, progress: Callable[[int], object], show: Callable[[str], object]
) -> tuple[_Views, float]:
    """Waits until all children have ended without error; returns the views and when they arrived."""
    received: list[tuple[_Views, float]] = []
    running = list(children)
    while running:
        ready = wait_for_links([child.link for child in running], _TICK)
        for child in [child for child in running if child.link in ready]:
            try:
                message: str | _Views = child.receive()
            except EOFError:
                running.remove(child)
            else:
                if isinstance(message, str):
                    show(message)
                else:
                    received.append((message, time.perf_counter()))
        progress(sum(ring.consumer.received + ring.producer.dropped for ring in bus.stats()))
    [views_and_when] = received
    return views_and_when


# In the children.


def _write(link: Connection, bus: EventBus, core_id: int, database: Path) -> None:
    flights: list[Flight] = link.recv()
    with bus.producer(core_id) as producer:
        link.send(_READY)
        link.recv()
        # SIGTERM from here on leaves whole transactions and a properly closed database.
        write_flights(database, flights, producer, TerminationFlag())


def _consume(link: Connection, bus: EventBus) -> None:
    views = [CarrierView() for _ in AIRPORTS]
    with contextlib.ExitStack() as ends:
        consumers = [ends.enter_context(consumer) for consumer in bus.consumers()]
        link.send(_READY)
        _keep_views(consumers, views, link)
    link.send(tuple(CoreView(totals=view.totals(), events=view.events()) for view in views))


def _keep_views(consumers: Sequence[EventConsumer], views: Sequence[CarrierView], link: Connection) -> None:
    """Reads all rings from this thread until their producers are disconnected."""
    running = list(consumers)
    while running:
        ready = wait(running, _TICK)
        for consumer in ready:
            batch = consumer.drain()
            if len(batch):
                views[consumer.core_id].apply(batch)
            elif consumer.is_producer_disconnected:
                running.remove(consumer)
        # The parent sends nothing, so a readable link means that it has ended and no writer will come. That is why this
        # is not a merge.
        if not ready and link.poll():
            sys.exit("the demo that started this process has gone")
