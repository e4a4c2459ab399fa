"""``LoggedProducer``: appends events to an event log before it emits them."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

import numpy as np

from ..batch._event import WriteEvent
from ..batch._event_batch import EventBatch
from ..batch.schema import NULL_LENGTH, STRING_FIELDS, VALUE_FIELDS
from ..core.backpressure import PressureState
from ..ends._producer import EventProducer
from ..errors import BusyError, EventTooLargeError, LogConflictError
from . import EventLog
from .encoding import check_rising

__all__ = ["LoggedProducer", "logged"]

_FIELDS: Final = STRING_FIELDS + VALUE_FIELDS
_NOTHING: Final = EventBatch.from_events([])


class LoggedProducer:
    """A producer that appends events to an event log before it emits them, so that the ring may drop them.

    Parameters
    ----------
    producer : EventProducer
        Emit only through this object from now on. An event that is emitted directly is not in the log.
    log : EventLog

    Notes
    -----
    If the log raises, nothing was emitted. An event that the ring drops, because it is full or has no consumer, counts
    as dropped and is in the log, where a follower finds it.

    After an exception in an emit, including one that a signal handler raised, ``next_sequence`` asks the log. If it is
    above the events' numbers, they are in the log, and a follower delivers them. If not, emit them again.

    Thread safety
    -------------
    One thread at a time, as with the producer. A signal handler that emits while it interrupts an emit gets a
    `BusyError`.
    """

    def __init__(self, producer: EventProducer, log: EventLog) -> None:
        self._producer = producer
        self._log = log
        self._last = log.last_sequence(producer.core_id)
        # An append ended with an exception, and only the log knows whether it has the events.
        self._must_ask_log = False
        self._is_emitting = False

    @property
    def producer(self) -> EventProducer:
        """The producer that emits."""
        return self._producer

    @property
    def log(self) -> EventLog:
        """The event log."""
        return self._log

    @property
    def core_id(self) -> int:
        """The producer's core."""
        return self._producer.core_id

    @property
    def pressure_state(self) -> PressureState:
        """The ring's pressure state."""
        return self._producer.pressure_state

    @property
    def next_sequence(self) -> int:
        """The number of the next event: one more than the highest that the log or the ring has.

        After an emit that ended with an exception this asks the log, which may raise.
        """
        last = self._log.last_sequence(self.core_id) if self._must_ask_log else self._last
        highest = _higher(last, self._producer.emitted_sequence)
        return 1 if highest is None else highest + 1

    def emit(self, event: WriteEvent) -> bool:
        """Appends one event and emits it. Returns whether the ring took it. As ``emit_batch``."""
        return self._append_and_emit(EventBatch.from_events([event]), 0.0) == 1

    def emit_batch(self, batch: EventBatch, timeout: float | None = 0.0) -> int:
        """Appends the events and emits them in order. Returns how many the ring took: the first ones of the batch.

        With a `timeout` it waits at most so long for room before it drops the rest, as ``EventProducer.emit_batch``
        does. If an exception ends that wait, the whole batch is in the log: continue with ``next_sequence``.

        Raises
        ------
        LogConflictError
            The numbers do not rise strictly from ``next_sequence`` on, or another writer has appended to the log.
        EventTooLargeError
            The ring could never hold an event. Nothing was appended.
        OwnershipError, ClosedError
            The producer belongs to another thread, or is closed. Nothing was appended.
        BusyError
            A signal handler called this while it interrupts such a call. Nothing was appended.
        OSError, LogError
            The log could not append. Nothing was emitted.
        """
        if type(batch) is not EventBatch:
            raise TypeError(f"{batch!r}: must be an EventBatch; EventBatch.from_events makes one of events")
        return self._append_and_emit(batch, timeout)

    def _append_and_emit(self, batch: EventBatch, timeout: float | None) -> int:
        # Events that the ring would refuse must not be in the log. An empty batch is refused for the same reasons.
        self._producer.emit_batch(_NOTHING, timeout)
        if self._is_emitting:
            raise BusyError(
                f"core {self.core_id}: an emit is in progress, which this call interrupts; emit when it has returned"
            )
        self._is_emitting = True
        try:
            if not len(batch):
                return 0
            self._check_size(batch)
            # If the log has more than that, of an interrupted append, it refuses the batch itself.
            check_rising(batch, above=_higher(self._last, self._producer.emitted_sequence))
            self._append(batch)
            return self._producer.emit_batch(batch, timeout)
        finally:
            self._is_emitting = False

    def _append(self, batch: EventBatch) -> None:
        last = int(batch.sequence[-1])
        self._must_ask_log = True
        try:
            self._log.append(self.core_id, batch)
        except LogConflictError:
            last_of_all = self._log.last_sequence(self.core_id)
            self._last, self._must_ask_log = last_of_all, False
            raise
        self._last, self._must_ask_log = last, False

    def _check_size(self, batch: EventBatch) -> None:
        arena_bytes = self._producer.ring.arena_bytes
        # No event can need more than all of its fields over the whole payload.
        if len(_FIELDS) * len(batch.payload) <= arena_bytes:
            return
        sizes = np.zeros(len(batch), np.int64)
        for name in _FIELDS:
            lengths = batch.records[f"{name}_length"]
            sizes += np.where(lengths == NULL_LENGTH, 0, lengths)
        place = int(np.argmax(sizes > arena_bytes))
        if sizes[place] > arena_bytes:
            raise EventTooLargeError(
                f"sequence {int(batch.sequence[place])}: payload of {int(sizes[place])} bytes; the arena of core"
                f" {self.core_id} has {arena_bytes}; make the bus with a larger arena_bytes"
            )

    def close(self) -> None:
        """Closes the producer. May be repeated. The log stays open, since other cores may use it."""
        self._producer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        # Without a call to the log, which may be closed or unreachable.
        after = "unknown" if self._must_ask_log else self.next_sequence
        return f"<LoggedProducer core_id={self.core_id} next_sequence={after} log={self._log!r}>"


def _higher(one: int | None, other: int | None) -> int | None:
    return max((number for number in (one, other) if number is not None), default=None)


def logged(producer: EventProducer, log: EventLog) -> LoggedProducer:
    """A producer that appends to `log` before it emits."""
    return LoggedProducer(producer, log)
