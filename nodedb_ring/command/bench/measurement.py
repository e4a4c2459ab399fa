"""What the two processes of a benchmark are given to do: the same object, which pickles."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from ...ends._consumer import EventConsumer
from ...ends._producer import EventProducer
from .workload import Lap

__all__ = ["Measurement"]

_Figure_co = TypeVar("_Figure_co", covariant=True)


class Measurement(Protocol[_Figure_co]):
    """What one process writes and the other reads, and the figure that comes of it.

    Before the clock runs the writer sends a lap, and the reader compares every field of every event. The clocks of the
    two may be compared: Linux has one ``CLOCK_MONOTONIC`` for all processes.
    """

    @property
    def capacity(self) -> int:
        """Of the ring that it goes through."""
        ...

    @property
    def lap(self) -> Lap:
        """What is sent and compared first."""
        ...

    def send_lap(self, producer: EventProducer) -> bool:
        """Sends the lap, in the way that is to be timed; False if the reader has gone."""
        ...

    def write(self, producer: EventProducer) -> Any:
        """The writer's part, against the clock. It returns early if the reader has gone."""
        ...

    def read(self, consumer: EventConsumer) -> Any:
        """The reader's part, until the writer has closed its end; WrongAnswerError if that is not what was sent."""
        ...

    def figure(self, written: Any, read: Any) -> _Figure_co:
        """What came of it, from what both returned; WrongAnswerError if they do not agree."""
        ...
