"""The run itself: a thread for each Data Plane core that writes, and one for each consumer that keeps a view."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from .. import ConsumerStats, EventConsumer, EventProducer, ProducerStats, WriteOp
from .database import ask_databases, write_flights
from .flights import AIRPORTS, Flight
from .totals import TotalsByCarrier, add_totals
from .view import CarrierView

__all__ = ["Bus", "CoreOutcome", "Outcome", "run"]

Bus: TypeAlias = tuple[list[EventProducer], list[EventConsumer]]
"""What ``create_event_bus`` returns: both ends of each core's ring."""

_TICK: Final = 0.1  # seconds between two looks at how far it is


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CoreOutcome:
    """What went through one core's ring."""

    airports: tuple[str, ...]
    capacity: int
    producer: ProducerStats
    consumer: ConsumerStats
    events: dict[WriteOp, int]

    @property
    def missing(self) -> int:
        """Events that the view has not seen: its core numbered them from 1 without a hole."""
        return (self.producer.emitted_sequence or 0) - sum(self.events.values())


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a run: the view, and what the databases say."""

    cores: tuple[CoreOutcome, ...]
    view: TotalsByCarrier
    database: TotalsByCarrier
    seconds: float

    @property
    def missing(self) -> int:
        """Events that the view has not seen."""
        return sum(core.missing for core in self.cores)


def run(
    flights: Sequence[Flight], databases: tuple[Path, Path], bus: Bus, progress: Callable[[int], object]
) -> Outcome:
    """Writes `flights` into two databases while two consumers keep the view; then asks the databases.

    Each consumer has a thread and a view of its own, and the views are added at the end: nothing is shared between
    cores. One thread for both, polling or on asyncio, took as long but let the rings fill to 6 to 29 %, where two
    threads let them fill to 1 to 5 %.

    Parameters
    ----------
    flights : sequence of Flight, by date
    databases : two Paths
        Empty files.
    bus : Bus
        A ring for each of the two, new.
    progress : callable
        Told now and then, in this thread, how many events are through: received or dropped.
    """
    producers, consumers = bus
    views = [CarrierView() for _ in AIRPORTS]
    shards = [[flight for flight in flights if flight.origin in airports] for airports in AIRPORTS]
    stop = threading.Event()
    started = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(2 * len(AIRPORTS), "core") as threads:
        try:
            # Writers first: a consumer waits for its producer to close, and must not be left with one that nobody runs.
            running = {
                threads.submit(write_flights, *core, stop) for core in zip(databases, shards, producers, strict=True)
            }
            running |= {threads.submit(_keep_view, *core) for core in zip(consumers, views, strict=True)}
            while running:
                done, running = concurrent.futures.wait(running, _TICK, concurrent.futures.FIRST_EXCEPTION)
                for thread in done:
                    thread.result()
                progress(
                    sum(consumer.stats().received for consumer in consumers)
                    + sum(producer.stats().dropped for producer in producers)
                )
        finally:
            # Whatever ended the loop early, a failed thread or Ctrl-C: the writers stop, and then the consumers.
            stop.set()
    seconds = time.perf_counter() - started
    return Outcome(
        cores=tuple(
            CoreOutcome(
                airports=airports,
                capacity=producer.capacity,
                producer=producer.stats(),
                consumer=consumer.stats(),
                events=view.events(),
            )
            for airports, producer, consumer, view in zip(AIRPORTS, producers, consumers, views, strict=True)
        ),
        view=add_totals(view.totals() for view in views),
        database=ask_databases(*databases),
        seconds=seconds,
    )


def _keep_view(consumer: EventConsumer, view: CarrierView) -> None:
    with consumer:
        for batch in consumer:
            view.apply(batch)
