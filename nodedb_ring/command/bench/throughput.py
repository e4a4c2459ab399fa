"""Events a second from one process to another, sent one by one or in batches."""

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
"""The most that the reader takes at once, as ``drain`` does by default."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Throughput:
    """Laps of ready events for so many seconds: `emit` of each if the batch size is 1, `emit_batch` otherwise.

    The reader drains what there is, up to 1024 events or a batch, into columns of its own, and sleeps when there is
    nothing: ``drain(1024, None)``.
    """

    capacity: int
    batch_size: int
    value_bytes: int
    seconds: float

    @property
    def lap(self) -> Lap:
        """Whole batches."""
        return lap_of(self.batch_size, self.value_bytes)

    def send_lap(self, producer: EventProducer) -> bool:
        """In batches, or one by one."""
        if self.batch_size == 1:
            return send_singly(producer, self.lap.events)
        return send_batches(producer, self.lap.batches)

    def write(self, producer: EventProducer) -> tuple[int, int]:
        """Returns how many events were sent, and the clock before the first, in nanoseconds."""
        clock, lap_events, sent = time.monotonic_ns, len(self.lap.events), 0
        start = clock()
        end = start + round(self.seconds * 1e9)
        while self.send_lap(producer):
            sent += lap_events
            if clock() >= end:
                break
        return sent, start

    def read(self, consumer: EventConsumer) -> tuple[int, int]:
        """Returns how many events came, and the clock when the last had come, in nanoseconds."""
        tally, most = Tally(self.lap, thorough=False), max(_DRAINED, self.batch_size)
        drain, clock, end = consumer.drain, time.monotonic_ns, 0
        while len(batch := drain(most, None)):
            end = clock()
            tally.take(batch)
        tally.close()
        return tally.count, end

    def figure(self, written: tuple[int, int], read: tuple[int, int]) -> float:
        """Events a second."""
        (sent, start), (came, end) = written, read
        if came != sent:
            raise WrongAnswerError(f"{came:,} events came, and {sent:,} were sent")
        return came / (end - start) * 1e9
