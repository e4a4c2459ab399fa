"""``LoggedProducer``: what is emitted is in the log first."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

import numpy as np

from ..batch._event import WriteEvent
from ..batch.event_batch import EventBatch
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
    """A producer whose events are appended to a log before they are emitted: the ring may drop what the log has.

    Parameters
    ----------
    producer : EventProducer
        Emit through this object alone from now on: what goes to the ring directly is not in the log.
    log : EventLog

    Notes
    -----
    An exception of the log means that nothing was emitted. An event that the ring drops, for lack of room or of a
    consumer, is counted there as dropped and is in the log, where a follower finds it.

    After an exception out of an emit, one of a signal handler included, ``next_sequence`` asks the log: if it is above
    the events' numbers, they are in the log, and a follower delivers them; if not, emit them again.

    Thread safety
    -------------
    The producer's, one thread at a time. A signal handler that emits in the midst of an emit is refused with
    `BusyError`.
    """

    def __init__(self, producer: EventProducer, log: EventLog) -> None:
        self._producer = producer
        self._log = log
        self._last = log.last_sequence(producer.core_id)
        # An append has begun, and whether the log has it by now only the log can tell.
        self._is_doubtful = False
        self._is_emitting = False

    @property
    def producer(self) -> EventProducer:
        """The producer that emits."""
        return self._producer

    @property
    def log(self) -> EventLog:
        """The log that is written first."""
        return self._log

    @property
    def core_id(self) -> int:
        """The core whose events these are."""
        return self._producer.core_id

    @property
    def pressure_state(self) -> PressureState:
        """That of the ring."""
        return self._producer.pressure_state

    @property
    def next_sequence(self) -> int:
        """The number of the next event: one more than the highest that the log or the ring has.

        Known, but for after an emit that ended with an exception: then the log is asked, and may raise.
        """
        last = self._log.last_sequence(self.core_id) if self._is_doubtful else self._last
        highest = _higher(last, self._producer.emitted_sequence)
        return 1 if highest is None else highest + 1

    def emit(self, event: WriteEvent) -> bool:
        """Appends one event, then emits it: whether the ring took it. See ``emit_batch``."""
        return self._append_and_emit(EventBatch.from_events([event]), 0.0) == 1

    def emit_batch(self, batch: EventBatch, timeout: float | None = 0.0) -> int:
        """Appends the events, then emits them in order; returns how many the ring took, a prefix.

        With a `timeout` it waits for room so long before the ring drops the rest, as ``EventProducer.emit_batch`` does.
        If that wait ends with an exception, the whole batch is in the log all the same: go on with ``next_sequence``.

        Raises
        ------
        LogConflictError
            The numbers do not rise strictly from ``next_sequence`` on, or another writer appended to the log.
        EventTooLargeError
            An event that the ring could never hold. Nothing was appended.
        OwnershipError, ClosedError
            The producer is another thread's, or closed. Nothing was appended.
        BusyError
            A signal handler called this while it interrupts such a call. Nothing was appended.
        OSError, LogError
            The log could not append. Nothing was emitted.
        """
        if type(batch) is not EventBatch:
            raise TypeError(f"{batch!r}: must be an EventBatch; EventBatch.from_events makes one of events")
        return self._append_and_emit(batch, timeout)

    def _append_and_emit(self, batch: EventBatch, timeout: float | None) -> int:
        # What the ring would refuse must not be in the log: an empty batch is refused for whose and how it is.
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
            # What the log has more than that, of an append that was interrupted, it says itself.
            check_rising(batch, above=_higher(self._last, self._producer.emitted_sequence))
            self._append(batch)
            return self._producer.emit_batch(batch, timeout)
        finally:
            self._is_emitting = False

    def _append(self, batch: EventBatch) -> None:
        last = int(batch.sequence[-1])
        self._is_doubtful = True
        try:
            self._log.append(self.core_id, batch)
        except LogConflictError:
            last_of_all = self._log.last_sequence(self.core_id)
            self._last, self._is_doubtful = last_of_all, False
            raise
        self._last, self._is_doubtful = last, False

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
        """Closes the producer. The log stays open: it may be the log of other cores too. Idempotent."""
        self._producer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        # Asks the log nothing: it may be closed, or away.
        after = "unknown" if self._is_doubtful else self.next_sequence
        return f"<LoggedProducer core_id={self.core_id} next_sequence={after} log={self._log!r}>"


def _higher(one: int | None, other: int | None) -> int | None:
    return max((number for number in (one, other) if number is not None), default=None)


def logged(producer: EventProducer, log: EventLog) -> LoggedProducer:
    """A producer that appends to `log` before it emits."""
    return LoggedProducer(producer, log)
