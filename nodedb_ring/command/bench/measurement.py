"""What the two processes of a benchmark do. Both get the same object, pickled."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from ...ends._consumer import EventConsumer
from ...ends._producer import EventProducer
from .workload import Lap

__all__ = ["Measurement"]

_Figure_co = TypeVar("_Figure_co", covariant=True)


class Measurement(Protocol[_Figure_co]):
    """What one process writes and the other reads, and the figure computed from both.

    Before the timed part the writer sends one lap, and the reader compares every field of every event. Times of the two
    processes may be compared, because Linux has one ``CLOCK_MONOTONIC`` for all.
    """

    @property
    def capacity(self) -> int:
        """Capacity of the ring to use."""
        ...

    @property
    def lap(self) -> Lap:
        """The events that are sent and compared first."""
        ...

    def send_lap(self, producer: EventProducer) -> bool:
        """Sends the lap in the way that will be timed; False if the reader is disconnected."""
        ...

    def write(self, producer: EventProducer) -> Any:
        """The writer's timed part. It returns early if the reader is disconnected."""
        ...

    def read(self, consumer: EventConsumer) -> Any:
        """The reader's part, until the writer closes its end; WrongAnswerError if the events are wrong."""
        ...

    def figure(self, written: Any, read: Any) -> _Figure_co:
        """The figure, from what both returned; WrongAnswerError if they do not agree."""
        ...
