"""The results of a run: figures of every round, their median and spread. As JSON it is an object with these fields."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from .machine import Machine
from .settings import Settings

__all__ = ["PERCENTILES", "SCHEMA", "LatencyResult", "PercentileResult", "Results", "Spread", "ThroughputResult"]

SCHEMA: Final = 1
"""Increased when a field is removed or changes its meaning, not when one is added."""

PERCENTILES: Final = (
    *(0.0, 1.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 85.0, 90.0, 92.0, 94.0, 95.0, 96.0, 97.0, 98.0),
    *(98.5, 99.0, 99.2, 99.4, 99.5, 99.6, 99.7, 99.8, 99.85, 99.9, 99.95, 99.99, 100.0),
)
"""The latency percentiles that are kept: 0 is the fastest event of a round and 100 the slowest."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One figure over all rounds: its median, the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Self:
        """From one figure per round; at least one round."""
        return cls(median=statistics.median(rounds), least=min(rounds), most=max(rounds))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ThroughputResult:
    """Events per second through a ring of one capacity, sent in batches of one size.

    Attributes
    ----------
    rounds : tuple of float
        Events per second of each round, in order.
    """

    capacity: int
    batch_size: int
    events_per_second: Spread
    rounds: tuple[float, ...]

    @classmethod
    def of(cls, capacity: int, batch_size: int, rounds: Sequence[float]) -> Self:
        """From the figures of all rounds."""
        return cls(capacity=capacity, batch_size=batch_size, events_per_second=Spread.of(rounds), rounds=tuple(rounds))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PercentileResult:
    """The latency that this percentage of the events did not exceed."""

    percentile: float
    nanoseconds: Spread


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LatencyResult:
    """One-way latency of events to a reader that waits in one of two ways.

    Attributes
    ----------
    wait : str
        ``spinning`` or ``parked``.
    spin_seconds : float
        The reader's ``EventConsumer.spin``.
    capacity : int
    events_per_round : int
    percentiles : tuple of PercentileResult
        One for each of `PERCENTILES`, ascending, with the spread of that percentile over the rounds.
    """

    wait: str
    spin_seconds: float
    capacity: int
    events_per_round: int
    percentiles: tuple[PercentileResult, ...]

    @classmethod
    def of(cls, wait: str, spin: float, capacity: int, rounds: Sequence[npt.NDArray[np.int64]]) -> Self:
        """From the nanoseconds of all events of each round."""
        # The latency of a real event, not a value between two.
        table = np.array([np.percentile(took, PERCENTILES, method="higher") for took in rounds])
        return cls(
            wait=wait,
            spin_seconds=spin,
            capacity=capacity,
            events_per_round=len(rounds[0]),
            percentiles=tuple(
                PercentileResult(percentile=percentile, nanoseconds=Spread.of(table[:, place].tolist()))
                for place, percentile in enumerate(PERCENTILES)
            ),
        )

    def at(self, percentile: float) -> Spread:
        """The spread of one of `PERCENTILES`."""
        return self.percentiles[PERCENTILES.index(percentile)].nanoseconds


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """A whole run.

    Attributes
    ----------
    nodedb_ring : str
        Version of the library.
    seconds : float
        Duration of the run, including its start.
    latency_rate : int
        Events per second at which latency was measured.
    """

    schema: int = SCHEMA
    nodedb_ring: str
    seconds: float
    machine: Machine
    settings: Settings
    latency_rate: int
    throughput: tuple[ThroughputResult, ...]
    latency: tuple[LatencyResult, ...]

    def document(self) -> dict[str, Any]:
        """As plain dicts, lists and numbers."""
        return dataclasses.asdict(self)
