"""One-way latency of an event between two processes, at a low rate."""

from __future__ import annotations

import dataclasses
import time
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ...batch._event import WriteEvent
from ...batch.schema import WriteOp
from ...ends._consumer import EventConsumer
from ...ends._producer import EventProducer
from ...errors import WrongAnswerError
from .sending import send_singly
from .workload import COLLECTION, Lap, lap_of

__all__ = ["Latency"]

_Clocks: TypeAlias = npt.NDArray[np.uint64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latency:
    """The time from when the writer begins to make an event until the reader has it in a batch; both run Python.

    The writer polls the clock until the next event is due and does not wait for the reader, so a delay of the reader
    counts for every event that arrives meanwhile. `spin` is the reader's ``EventConsumer.spin``.
    """

    capacity: int
    value_bytes: int
    rate: int
    events: int
    spin: float

    @property
    def lap(self) -> Lap:
        """Single events, like those that are timed."""
        return lap_of(1, self.value_bytes)

    def send_lap(self, producer: EventProducer) -> bool:
        """Sends the lap one event at a time."""
        return send_singly(producer, self.lap.events)

    def write(self, producer: EventProducer) -> _Clocks:
        """Returns the time at which each event was begun, in nanoseconds; it is the event's LSN."""
        clock, emit, insert = time.monotonic_ns, producer.emit, WriteOp.INSERT
        value, interval = self.lap.events[0].new_value, round(1e9 / self.rate)
        begun = np.zeros(self.events, np.uint64)
        due = clock()
        for number in range(1, self.events + 1):
            due += interval
            while (now := clock()) < due:
                pass
            event = WriteEvent(
                sequence=number, collection=COLLECTION, op=insert, row_id="now", lsn=now, new_value=value
            )
            # A small ring may be full if the reader is delayed for long; then the wait counts for this event.
            if not emit(event) and not send_singly(producer, (event,)):
                break
            begun[number - 1] = now
        return begun

    def read(self, consumer: EventConsumer) -> tuple[_Clocks, _Clocks]:
        """Returns the LSN of each event and the time of its arrival, in nanoseconds."""
        consumer.spin = self.spin
        drain, clock, came = consumer.drain, time.monotonic_ns, 0
        numbers, begun, seen = (np.zeros(self.events, np.uint64) for _ in range(3))
        while len(batch := drain(timeout=None)):
            now = clock()
            here = slice(came, came + len(batch))
            came += len(batch)
            if came > self.events:
                raise WrongAnswerError(f"{came:,} events arrived, and {self.events:,} were sent")
            numbers[here], begun[here], seen[here] = batch.sequence, batch.lsn, now
        if not np.array_equal(numbers[:came], np.arange(1, self.events + 1)):
            raise WrongAnswerError(f"{came:,} of {self.events:,} events arrived, or they are out of order")
        return begun, seen

    def figure(self, written: _Clocks, read: tuple[_Clocks, _Clocks]) -> npt.NDArray[np.int64]:
        """The latency of each event in nanoseconds."""
        begun, seen = read
        if not np.array_equal(written, begun):
            raise WrongAnswerError("the timestamps that arrived are not those that were sent")
        took = seen.astype(np.int64) - begun.astype(np.int64)
        if took.min() < 0:
            raise WrongAnswerError(f"an event arrived {-took.min():,} ns before it was sent: the cores' clocks differ")
        return took
