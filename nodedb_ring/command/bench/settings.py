"""What a run of the benchmark measures, and for how long."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final, Self

from ...bus.region import ring_size
from .workload import payload_bytes

__all__ = ["RATE", "WAITS", "Settings"]

RATE: Final = 10_000
"""Events per second at which latency is measured: far below the throughput, so that no event waits for another."""

WAITS: Final = {"spinning": 0.01, "parked": 0.0}
"""How a reader waits, as seconds of ``EventConsumer.spin``: it spins all the time, or sleeps in the kernel at once."""

_DEFAULTS: Final = ((1_024, 8_192, 65_536), (1, 4, 16, 64, 256, 1_024), 5, 50.0)
_QUICK: Final = ((1_024, 65_536), (1, 32, 1_024), 3, 3.5)
_SHARE_OF_THROUGHPUT: Final = 0.6
_LEAST_SECONDS: Final = 0.005
"""Least seconds of one measurement: in less time its start and end weigh too much."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a run measures; the values have been checked.

    Attributes
    ----------
    capacities : tuple of int
        Events per ring, powers of two, ascending.
    batch_sizes : tuple of int
        Events that the writer sends per call, ascending.
    value_bytes : int
        Length of each event's ``new_value``.
    rounds : int
        How often everything is measured, in turn.
    seconds_throughput, seconds_latency : float
        Duration of one measurement of each kind.
    """

    capacities: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    value_bytes: int
    rounds: int
    seconds_throughput: float
    seconds_latency: float

    @classmethod
    def of(
        cls,
        *,
        quick: bool = False,
        capacities: Sequence[int] | None = None,
        batch_sizes: Sequence[int] | None = None,
        value_bytes: int = 128,
        seconds: float | None = None,
    ) -> Self:
        """Fills in defaults, and divides `seconds`, the time of the whole run, among the measurements.

        Raises
        ------
        CapacityError
            Such a ring is impossible.
        ValueError
            A batch size that fits no ring, a capacity that holds no batch, or too little time.
        """
        usual_capacities, usual_sizes, rounds, usual_seconds = _QUICK if quick else _DEFAULTS
        rings = sorted({ring_size(capacity, None)[0] for capacity in capacities or usual_capacities})
        sizes = sorted(set(batch_sizes or [size for size in usual_sizes if size <= rings[-1]]))
        if sizes[-1] > rings[-1]:
            raise ValueError(f"batch size {sizes[-1]:,}: must be at most {rings[-1]:,} events, the largest capacity")
        if rings[0] < sizes[0]:
            raise ValueError(f"capacity {rings[0]:,}: must be at least {sizes[0]:,} events, the smallest batch size")
        for ring in rings:
            ring_size(ring, _arena_bytes(ring, value_bytes))
        total = usual_seconds if seconds is None else seconds
        kinds = sum(size <= ring for size in sizes for ring in rings)
        settings = cls(
            capacities=tuple(rings),
            batch_sizes=tuple(sizes),
            value_bytes=value_bytes,
            rounds=rounds,
            seconds_throughput=_SHARE_OF_THROUGHPUT * total / (rounds * kinds),
            seconds_latency=(1 - _SHARE_OF_THROUGHPUT) * total / (rounds * len(WAITS)),
        )
        if settings.seconds_throughput < _LEAST_SECONDS:
            least = _LEAST_SECONDS * rounds * kinds / _SHARE_OF_THROUGHPUT
            raise ValueError(
                f"--seconds {total:g}: {rounds} rounds of {kinds} kinds of transfer need at least {least:.1f}; give"
                " more seconds, or fewer capacities or batch sizes"
            )
        return settings

    @property
    def transfers(self) -> list[tuple[int, int]]:
        """Capacity and batch size of every kind of transfer in which the ring holds at least one batch."""
        return [(ring, size) for ring in self.capacities for size in self.batch_sizes if size <= ring]

    def arena_bytes(self, capacity: int) -> int:
        """Payload room of a ring of that capacity: so much that slots, not bytes, limit the ring."""
        return _arena_bytes(capacity, self.value_bytes)


def _arena_bytes(capacity: int, value_bytes: int) -> int:
    # One event more than there are slots, because the end of the arena may be too short for an event.
    return max(ring_size(capacity, None)[1], (capacity + 1) * payload_bytes(value_bytes))
