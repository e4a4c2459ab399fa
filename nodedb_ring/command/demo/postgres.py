"""The run with PostgreSQL: two connections write, and a capture follows what they commit, in the order of the commits.

::

    writer ──SQL──┐                  publication, slot
                  ├──► PostgreSQL ──────────────────────► PostgresCapture ──► ring ──► view
    writer ──SQL──┘

The server is one core. Neither writer waits for the ring: when it is full the capture waits, and the server keeps its
log for the slot.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from ...capture.postgres import PostgresCapture
from .flights import AIRPORTS, Flight, flights_by_core
from .outcome import CoreView, Outcome, collect_outcome
from .postgres_database import ask_database, end_position, write_flights
from .run import Bus, keep_views
from .view import CarrierView

__all__ = ["WRITERS", "run"]

WRITERS: Final = len(AIRPORTS)
"""Connections that write."""

_TICK: Final = 0.1  # seconds between two progress reports


def run(
    flights: Sequence[Flight], dsn: str, bus: Bus, capture: PostgresCapture, progress: Callable[[int], object]
) -> Outcome:
    """Writes `flights` from two threads while one keeps the view of what is captured; then asks the server.

    Parameters
    ----------
    flights : sequence of Flight, by date
    dsn : str
        A database with the tables of the demo, which are empty.
    bus : Bus
        A new bus with one ring.
    capture : PostgresCapture
        Into this ring, with a slot that was made before the first flight. It is closed at the end.
    progress : callable
        Called regularly, in this thread, with the number of events received.

    Raises
    ------
    CaptureError
        The server refused a statement or was lost, or the capture has ended.
    """
    [producer], [consumer] = bus
    view = CarrierView()
    stop = threading.Event()
    started = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(WRITERS + 1, "demo") as threads:
        try:
            capture.start()
            running = {threads.submit(write_flights, dsn, shard, stop) for shard in flights_by_core(flights)}
            reading = threads.submit(keep_views, [consumer], [view], [])
            running.add(reading)
            end: int | None = None
            while end is None or capture.stats().position < end:
                done, running = concurrent.futures.wait(running, _TICK, concurrent.futures.FIRST_EXCEPTION)
                for thread in done:
                    thread.result()
                if capture.error is not None:
                    break  # closing it raises that
                progress(consumer.stats().received)
                if end is None and running == {reading}:
                    end = end_position(dsn)
            capture.close()
            producer.close()
            reading.result()
            progress(consumer.stats().received)
        finally:
            # After an error or Ctrl-C the writers stop, and then the capture and the reader.
            stop.set()
            try:
                with contextlib.suppress(Exception):
                    capture.close()
            finally:
                producer.close()
    seconds = time.perf_counter() - started
    return collect_outcome(
        [(producer.capacity, producer.stats(), consumer.stats())],
        [CoreView(totals=view.totals(), events=view.events())],
        ask_database(dsn),
        seconds=seconds,
        airports=[tuple(airport for airports in AIRPORTS for airport in airports)],
    )
