"""Events per second from one process to another, sent one by one or in batches."""

from __future__ import annotations

import dataclasses
import time
from typing import Final

from ...ends._consumer import EventConsumer
from ...ends._producer import EventProducer
from ...errors import WrongAnswerError
from .sending import send_batches, send_singly
from .workload import Lap, Tally, lap_of

__all__ = ["Throughput"]

_DRAINED: Final = 1024
"""The most events that the reader takes per call, the default of ``drain``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Throughput:
    """Laps of ready events for some seconds: by `emit` if the batch size is 1, by `emit_batch` otherwise.

    The reader drains up to 1024 events or one batch into columns that it owns, and sleeps while the ring is empty:
    ``drain(1024, None)``.
    """

    capacity: int
    batch_size: int
    value_bytes: int
    seconds: float

    @property
    def lap(self) -> Lap:
        """A lap of whole batches."""
        return lap_of(self.batch_size, self.value_bytes)

    def send_lap(self, producer: EventProducer) -> bool:
        """Sends the lap in batches, or one event at a time."""
        if self.batch_size == 1:
            return send_singly(producer, self.lap.events)
        return send_batches(producer, self.lap.batches)

    def write(self, producer: EventProducer) -> tuple[int, int]:
        """Returns how many events were sent, and the time before the first, in nanoseconds."""
        clock, lap_events, sent = time.monotonic_ns, len(self.lap.events), 0
        start = clock()
        end = start + round(self.seconds * 1e9)
        while self.send_lap(producer):
            sent += lap_events
            if clock() >= end:
                break
        return sent, start

    def read(self, consumer: EventConsumer) -> tuple[int, int]:
        """Returns how many events arrived, and the time after the last, in nanoseconds."""
        tally, most = Tally(self.lap, thorough=False), max(_DRAINED, self.batch_size)
        drain, clock, end = consumer.drain, time.monotonic_ns, 0
        while len(batch := drain(most, None)):
            end = clock()
            tally.take(batch)
        tally.close()
        return tally.count, end

    def figure(self, written: tuple[int, int], read: tuple[int, int]) -> float:
        """Events per second."""
        (sent, start), (came, end) = written, read
        if came != sent:
            raise WrongAnswerError(f"{came:,} events arrived, and {sent:,} were sent")
        return came / (end - start) * 1e9
