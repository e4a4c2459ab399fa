"""Samples of a shared bus, and the rates between one and the next. It claims no end and delays nobody."""

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
from ..capture_status import CaptureStatus, read_status

__all__ = ["BusSample", "CaptureSample", "CorruptRing", "Rates", "RingSample", "Watch"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What went through a ring, in events per second between two samples. Never negative.

    Attributes
    ----------
    emitted : float
        Enqueued.
    received : float
        Taken out by consumers. Redelivered events count again, because they were taken twice.
    dropped : float
        Attempts refused, for any reason.
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
    # During a succession one of the two counts may be updated before the other.
    return max(after - before, 0) / seconds


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RingSample:
    """One core's ring.

    Attributes
    ----------
    core_id : int
    stats : RingStats
    rates : Rates or None
        Since the sample before; None in the first sample of this ring.
    """

    core_id: int
    stats: RingStats
    rates: Rates | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CorruptRing:
    """One core's ring, whose block holds impossible values.

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
class CaptureSample:
    """What ``nodedb-ring capture`` has written about itself.

    Attributes
    ----------
    status : CaptureStatus
        The last that it wrote.
    has_gone : bool
        Whether another process, or none, has the producer's end of its core by now.
    age : float
        Seconds since it wrote.
    """

    status: CaptureStatus
    has_gone: bool
    age: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BusSample:
    """All rings of a bus, sampled one after another.

    Attributes
    ----------
    bus : EventBus
        The sampled bus. It may be closed by now.
    incarnation : int
        1 for the first bus of the name, 2 for the next one, and so on.
    is_linked : bool
        Whether the name still led to this bus.
    at : float
        Time of the sample, in seconds on the watch's clock.
    seconds : float or None
        Since the sample before, the time that the rates cover; None in the first sample of this bus.
    rings : tuple of RingSample or CorruptRing, by core
    captures : tuple of CaptureSample, by core
        Of the cores that have one.
    """

    bus: EventBus
    incarnation: int
    is_linked: bool
    at: float
    seconds: float | None
    rings: tuple[AnyRing, ...]
    captures: tuple[CaptureSample, ...] = ()


class Watch:
    """Samples the bus of a name. If another bus takes the name, it samples that one from then on.

    While no bus has the name it keeps sampling the last one, which other processes may still have open.

    Parameters
    ----------
    name : str
    directory : Path
    clock : callable
        Returns seconds and never goes backwards.

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
        """Samples every ring once.

        Raises
        ------
        LayoutError, OSError
            The file of that name is not a bus, or this process may not open it.
        """
        is_linked = self._bus.is_linked or self._found_another()
        before = self._last
        at = self._clock()
        seconds = None if before is None or at <= before.at else at - before.at
        rings = tuple(
            self._sample_ring(core_id, None if before is None else before.rings[core_id], seconds)
            for core_id in range(self._bus.num_cores)
        )
        sample = BusSample(
            bus=self._bus,
            incarnation=self._incarnation,
            is_linked=is_linked,
            at=at,
            seconds=seconds,
            rings=rings,
            captures=tuple(capture for ring in rings if (capture := self._capture_of(ring)) is not None),
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
        # Its counts start again, so there are no rates over both buses.
        self._last = None
        return True

    def _sample_ring(self, core_id: int, before: AnyRing | None, seconds: float | None) -> AnyRing:
        try:
            stats = self._bus.ring_stats(core_id)
            taken = stats.consumer.received
            # The producer's count is read first, so the consumer's may be ahead of it, but not of a later reading.
            is_ahead = taken > stats.producer.emitted and taken > self._bus.ring_stats(core_id).producer.emitted
        except CorruptRingError as error:
            return CorruptRing(core_id=core_id, error=str(error))
        if is_ahead or stats.lag > self._bus.capacity:
            return CorruptRing(
                core_id=core_id,
                error=f"core {core_id}: taken position {taken}: is not within a ring's length of what was published;"
                " something else has written to this block: unlink the bus, create it again, and replay from the log",
            )
        rates = Rates.between(before.stats, stats, seconds) if isinstance(before, RingSample) and seconds else None
        return RingSample(core_id=core_id, stats=stats, rates=rates)

    def _capture_of(self, ring: AnyRing) -> CaptureSample | None:
        status = read_status(self._bus.name, self._bus.directory, ring.core_id)
        if status is None:
            return None
        # The pid of a process in another namespace is not known here.
        has_gone = isinstance(ring, RingSample) and not (
            ring.stats.producer_pid == status.pid or ring.stats.producer_is_elsewhere
        )
        return CaptureSample(status=status, has_gone=has_gone, age=max(0.0, time.time() - status.time))

    def close(self) -> None:
        """Closes the bus; may be called again."""
        self._bus.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
