"""Samples of a bus between processes, and the rates between one and the next. Nothing is claimed, and nobody waits."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

from ...bus.event_bus import EventBus
from ...ends.stats import RingStats
from ...errors import CorruptRingError

__all__ = ["BusSample", "CorruptRing", "Rates", "RingSample", "Watch"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What went through a ring, in events a second between two samples. Never negative.

    Attributes
    ----------
    emitted : float
        Enqueued.
    received : float
        Taken out, by whoever consumes. Counts what a successor gets again, too: it was taken twice.
    dropped : float
        Attempts refused, for whichever reason.
    """

    emitted: float
    received: float
    dropped: float

    @classmethod
    def between(cls, before: RingStats, after: RingStats, seconds: float) -> Rates:
        """The rates from one sample of a ring to another, `seconds` later."""
        return cls(
            emitted=_rate(before.producer.emitted, after.producer.emitted, seconds),
            received=_rate(before.consumer.handed_out, after.consumer.handed_out, seconds),
            dropped=_rate(before.producer.dropped, after.producer.dropped, seconds),
        )


def _rate(before: int, after: int, seconds: float) -> float:
    # A sample that comes while a successor takes over may see it in one of its two counts and not yet in the other.
    return max(after - before, 0) / seconds


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RingSample:
    """One core's ring.

    Attributes
    ----------
    core_id : int
    stats : RingStats
    rates : Rates or None
        Since the sample before; None where there is none of this ring.
    """

    core_id: int
    stats: RingStats
    rates: Rates | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CorruptRing:
    """One core's ring, whose block holds what no ring can.

    Attributes
    ----------
    core_id : int
    error : str
        What is wrong, and what to do.
    """

    core_id: int
    error: str


AnyRing: TypeAlias = RingSample | CorruptRing


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BusSample:
    """All rings of a bus at about one moment.

    Attributes
    ----------
    bus : EventBus
        Which was sampled. It may be closed by now.
    incarnation : int
        1 for the bus that was found first, one more for each that has had its name since.
    is_linked : bool
        Whether the name led to this bus still.
    at : float
        When, in seconds on the watch's clock.
    seconds : float or None
        Since the sample before, which the rates are over; None for the first one of this bus.
    rings : tuple of RingSample or CorruptRing, by core
    """

    bus: EventBus
    incarnation: int
    is_linked: bool
    at: float
    seconds: float | None
    rings: tuple[AnyRing, ...]


class Watch:
    """Samples the bus that has a name: when another one takes the name, that.

    While nobody has the name it stays with the last one that had, which its users may still have open.

    Parameters
    ----------
    name : str
    directory : Path
    clock : callable
        Returns seconds, and never goes back.

    Raises
    ------
    LayoutError, OSError
        The bus cannot be opened.

    Thread safety
    -------------
    One thread at a time.
    """

    def __init__(self, name: str, directory: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._incarnation = 1
        self._last: BusSample | None = None
        self._bus = EventBus.open(name, directory=directory)

    def sample(self) -> BusSample:
        """Looks at every ring once.

        Raises
        ------
        LayoutError, OSError
            What has the name now is no bus, or one that this process may not open.
        """
        is_linked = self._bus.is_linked or self._found_another()
        before = self._last
        at = self._clock()
        seconds = None if before is None or at <= before.at else at - before.at
        sample = BusSample(
            bus=self._bus,
            incarnation=self._incarnation,
            is_linked=is_linked,
            at=at,
            seconds=seconds,
            rings=tuple(
                self._look(core_id, None if before is None else before.rings[core_id], seconds)
                for core_id in range(self._bus.num_cores)
            ),
        )
        self._last = sample
        return sample

    def _found_another(self) -> bool:
        try:
            bus = EventBus.open(self._bus.name, directory=self._bus.directory)
        except FileNotFoundError:
            return False
        self._bus.close()
        self._bus = bus
        self._incarnation += 1
        # Its counts have nothing to do with those of the last one.
        self._last = None
        return True

    def _look(self, core_id: int, before: AnyRing | None, seconds: float | None) -> AnyRing:
        try:
            stats = self._bus.ring_stats(core_id)
            taken = stats.consumer.received
            # The producer's count is read first: the consumer's may have passed it, but not where it is a moment later.
            is_ahead = taken > stats.producer.emitted and taken > self._bus.ring_stats(core_id).producer.emitted
        except CorruptRingError as error:
            return CorruptRing(core_id=core_id, error=str(error))
        if is_ahead or stats.lag > self._bus.capacity:
            return CorruptRing(
                core_id=core_id,
                error=f"core {core_id}: taken position {taken}: is not within a ring's length of what was published;"
                " something else has written to this block: unlink the bus, create it anew, and replay from the log",
            )
        rates = Rates.between(before.stats, stats, seconds) if isinstance(before, RingSample) and seconds else None
        return RingSample(core_id=core_id, stats=stats, rates=rates)

    def close(self) -> None:
        """Lets go of the bus; may be repeated."""
        self._bus.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
