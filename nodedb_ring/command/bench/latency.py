"""How long an event takes from one process to another, one way, at a rate that keeps nobody busy."""

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
    """From when the writer begins to make an event until the reader has it in a batch; in Python, both of them.

    The writer looks at the clock until the next event is due, and does not wait for the reader: what holds the reader
    up is in the figures of all events that come meanwhile. `spin` is how the reader waits, ``EventConsumer.spin``.
    """

    capacity: int
    value_bytes: int
    rate: int
    events: int
    spin: float

    @property
    def lap(self) -> Lap:
        """One by one, as those that are timed."""
        return lap_of(1, self.value_bytes)

    def send_lap(self, producer: EventProducer) -> bool:
        """One by one."""
        return send_singly(producer, self.lap.events)

    def write(self, producer: EventProducer) -> _Clocks:
        """Returns the clock at which each was begun, in nanoseconds: the event's LSN."""
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
            # A small ring is full when the reader is held up for long: then the wait is the event's.
            if not emit(event) and not send_singly(producer, (event,)):
                break
            begun[number - 1] = now
        return begun

    def read(self, consumer: EventConsumer) -> tuple[_Clocks, _Clocks]:
        """Returns the LSN of each event, and the clock when it had come, in nanoseconds."""
        consumer.spin = self.spin
        drain, clock, came = consumer.drain, time.monotonic_ns, 0
        numbers, begun, seen = (np.zeros(self.events, np.uint64) for _ in range(3))
        while len(batch := drain(timeout=None)):
            now = clock()
            here = slice(came, came + len(batch))
            came += len(batch)
            if came > self.events:
                raise WrongAnswerError(f"{came:,} events came, and {self.events:,} were sent")
            numbers[here], begun[here], seen[here] = batch.sequence, batch.lsn, now
        if not np.array_equal(numbers[:came], np.arange(1, self.events + 1)):
            raise WrongAnswerError(f"{came:,} of {self.events:,} events came, or not in their order")
        return begun, seen

    def figure(self, written: _Clocks, read: tuple[_Clocks, _Clocks]) -> npt.NDArray[np.int64]:
        """Nanoseconds of each event."""
        begun, seen = read
        if not np.array_equal(written, begun):
            raise WrongAnswerError("the stamps that came are not those that were sent")
        took = seen.astype(np.int64) - begun.astype(np.int64)
        if took.min() < 0:
            raise WrongAnswerError(f"an event came {-took.min():,} ns before it was sent: the cores' clocks differ")
        return took
