"""What a run found out: figures of every round, their median and spread. As JSON it is an object of these fields."""

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
"""Grows when a field goes or changes what it means, not when one is added."""

PERCENTILES: Final = (
    *(0.0, 1.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 85.0, 90.0, 92.0, 94.0, 95.0, 96.0, 97.0, 98.0),
    *(98.5, 99.0, 99.2, 99.4, 99.5, 99.6, 99.7, 99.8, 99.85, 99.9, 99.95, 99.99, 100.0),
)
"""Percentiles of the latency that are kept: 0 is the least event of a round and 100 the slowest."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One figure of every round: the median of them, the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Self:
        """Of one figure a round, at least one."""
        return cls(median=statistics.median(rounds), least=min(rounds), most=max(rounds))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ThroughputResult:
    """Events a second through a ring of that capacity, handed over so many at a time.

    Attributes
    ----------
    rounds : tuple of float
        Events a second of each round, in order.
    """

    capacity: int
    batch_size: int
    events_per_second: Spread
    rounds: tuple[float, ...]

    @classmethod
    def of(cls, capacity: int, batch_size: int, rounds: Sequence[float]) -> Self:
        """Of the figures of all rounds."""
        return cls(capacity=capacity, batch_size=batch_size, events_per_second=Spread.of(rounds), rounds=tuple(rounds))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PercentileResult:
    """So many of a hundred events took no longer than this."""

    percentile: float
    nanoseconds: Spread


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LatencyResult:
    """How long events took, one way, to a reader that waits in that way.

    Attributes
    ----------
    wait : str
        ``spinning`` or ``parked``.
    spin_seconds : float
        The reader's ``EventConsumer.spin``.
    capacity : int
    events_per_round : int
    percentiles : tuple of PercentileResult
        One for each of `PERCENTILES`, ascending. Each has the spread of that percentile over the rounds.
    """

    wait: str
    spin_seconds: float
    capacity: int
    events_per_round: int
    percentiles: tuple[PercentileResult, ...]

    @classmethod
    def of(cls, wait: str, spin: float, capacity: int, rounds: Sequence[npt.NDArray[np.int64]]) -> Self:
        """Of the nanoseconds of all events of each round."""
        # Of events that there were, and not between two of them.
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
        The version that was measured.
    seconds : float
        That the run took, the time to start included.
    latency_rate : int
        Events a second that the latency was measured at.
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
