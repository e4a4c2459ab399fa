"""A run of the benchmark: every kind of measurement in turn, round after round."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ... import __version__
from .latency import Latency
from .machine import describe_machine, two_cpus
from .pair import pair_of_processes
from .results import LatencyResult, Results, ThroughputResult
from .settings import RATE, WAITS, Settings
from .throughput import Throughput

__all__ = ["Progress", "measurements", "run"]

Progress: TypeAlias = Callable[[int, str], object]
"""Called before each measurement with the number done and the next one, and once at the end."""


def measurements(settings: Settings) -> int:
    """How many measurements a run has."""
    return settings.rounds * (len(settings.transfers) + len(WAITS))


def run(settings: Settings, progress: Progress) -> Results:
    """Runs all measurements; returns after both processes have ended.

    Raises
    ------
    WrongAnswerError
        The events that came out of a ring are not those that went in.
    CapacityError, OSError
        The rings do not fit in memory; ``ChildProcessError`` if a process was killed.
    """
    started, load = time.monotonic(), os.getloadavg()[0]
    cpus = two_cpus()
    rates: dict[tuple[int, int], list[float]] = {transfer: [] for transfer in settings.transfers}
    times: dict[str, list[npt.NDArray[np.int64]]] = {wait: [] for wait in WAITS}
    largest = settings.capacities[-1]
    done = 0
    with pair_of_processes(settings, cpus) as pair:
        for number in range(settings.rounds):
            where = f"round {number + 1} of {settings.rounds}"
            for (capacity, batch_size), rounds in rates.items():
                progress(done, f"{where}: capacity {capacity:,}, batches of {batch_size:,}")
                transfer = Throughput(
                    capacity=capacity,
                    batch_size=batch_size,
                    value_bytes=settings.value_bytes,
                    seconds=settings.seconds_throughput,
                )
                rounds.append(pair.measure(transfer))
                done += 1
            for wait, trips in times.items():
                progress(done, f"{where}: latency, {wait}")
                trip = Latency(
                    capacity=largest,
                    value_bytes=settings.value_bytes,
                    rate=RATE,
                    events=max(1, round(settings.seconds_latency * RATE)),
                    spin=WAITS[wait],
                )
                trips.append(pair.measure(trip))
                done += 1
        progress(done, "done")
    return Results(
        nodedb_ring=__version__,
        seconds=round(time.monotonic() - started, 1),
        machine=describe_machine(cpus, load),
        settings=settings,
        latency_rate=RATE,
        throughput=tuple(
            ThroughputResult.of(capacity, batch_size, rounds) for (capacity, batch_size), rounds in rates.items()
        ),
        latency=tuple(LatencyResult.of(wait, WAITS[wait], largest, trips) for wait, trips in times.items()),
    )
