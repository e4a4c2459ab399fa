"""``Delivery``: a batch into the log, and then into the ring, which is waited for."""

from __future__ import annotations

import logging
import threading
from typing import Final, final

import numpy as np

from ...batch._event_batch import EventBatch
from ...ends._producer import EventProducer
from ...ends.logger import log_safely
from ...errors import CaptureError, LogUnavailableError
from ...log import EventLog
from .connection import shown_lsn

__all__ = ["Delivery", "Stopped"]

_WAIT_SECONDS: Final = 0.1
"""How long a wait for room lasts before it is looked whether the capture is to stop."""

_PART: Final = 8
"""A batch larger than the room of the ring is emitted in parts of one in so many of it."""


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """The capture is to stop, and was waiting."""


@final
class Delivery:
    """What a capture does with its events. One thread at a time, which owns the producer.

    Parameters
    ----------
    producer : EventProducer
    log : EventLog or None
    stopping : threading.Event
        Set from another thread, it ends the waits with `Stopped`.

    Attributes
    ----------
    emitted : int
        Events that the ring has taken.
    has_appended : bool
        Whether the log has the batch that was delivered last.
    """

    def __init__(self, producer: EventProducer, log: EventLog | None, stopping: threading.Event) -> None:
        self._producer = producer
        self._log = log
        self._stopping = stopping
        self._consumer_has_gone = False
        self.emitted: int = 0
        self.has_appended: bool = False

    def begin(self) -> None:
        """Makes the calling thread the producer's owner."""
        self._producer.bind()

    def deliver(self, batch: EventBatch) -> None:
        """Returns when the log has the events, and the ring has taken them.

        With a log, events for which there is no consumer are dropped by the ring: the log has them for the next one.

        Raises
        ------
        CaptureError
            An event is larger than the arena. Nothing was appended or emitted.
        Stopped
            ``has_appended`` says whether the log has the events. Some may have been emitted.
        LogConflictError
            Another writer has appended to the log.
        """
        self.has_appended = False
        starts = self._checked_starts(batch)
        if self._log is not None:
            self._append(self._log, batch)
            self.has_appended = True
        at = 0
        while at < len(batch):
            at = self._emit_some(batch, starts, at)

    def _checked_starts(self, batch: EventBatch) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Where the payload of each event begins, and behind the last one where it ends."""
        starts = np.append(batch.records["collection_offset"].astype(np.int64), len(batch.payload))
        arena_bytes = self._producer.ring.arena_bytes
        if len(batch.payload) > arena_bytes:
            sizes = np.diff(starts)
            place = int(np.argmax(sizes))
            if sizes[place] > arena_bytes:
                raise CaptureError(
                    f"table {batch[place].collection}: a change of {int(sizes[place])} bytes in commit"
                    f" {shown_lsn(int(batch.lsn[place]))} is larger than the arena of core {self._producer.core_id},"
                    f" {arena_bytes} bytes; make the bus with a larger arena_bytes"
                )
        return starts

    def _append(self, log: EventLog, batch: EventBatch) -> None:
        """Waits for a log that cannot be reached: the server keeps what it has not got."""
        delay = 0.1
        while True:
            try:
                log.append(self._producer.core_id, batch)
            except LogUnavailableError as error:
                log_safely(logging.WARNING, "core %d: the log is not reached: %s", self._producer.core_id, error)
                if self._stopping.wait(delay):
                    raise Stopped from error
                delay = min(2 * delay, 5.0)
            else:
                return

    def _emit_some(self, batch: EventBatch, starts: np.ndarray[tuple[int], np.dtype[np.int64]], at: int) -> int:
        """Emits events from `at` on, as many as there is room for; returns the number of the next one."""
        producer = self._producer
        stop = self._part_end(starts, at)
        if producer.wait_for_room(stop - at, 0.0, payload_bytes=int(starts[stop] - starts[at])):
            self._consumer_has_gone = False
            self.emitted += producer.emit_batch(batch[at:stop])
            return stop
        if producer.is_consumer_disconnected:
            if not self._consumer_has_gone:
                self._consumer_has_gone = True
                what = "waits for another" if self._log is None else "goes on, into its log alone"
                log_safely(logging.WARNING, "core %d: the consumer has gone; the capture %s", producer.core_id, what)
            if self._log is not None:
                producer.emit_batch(batch[at:])
                return len(batch)
            if self._stopping.wait(_WAIT_SECONDS):
                raise Stopped
            return at
        if self._stopping.is_set():
            raise Stopped
        producer.wait_for_room(stop - at, _WAIT_SECONDS, payload_bytes=int(starts[stop] - starts[at]))
        return at

    def _part_end(self, starts: np.ndarray[tuple[int], np.dtype[np.int64]], at: int) -> int:
        """The whole rest, where half of the ring could hold it; else a part, of one event at least."""
        count = len(starts) - 1 - at
        capacity, arena_bytes = self._producer.capacity, self._producer.ring.arena_bytes
        if 2 * count <= capacity and 2 * (starts[-1] - starts[at]) <= arena_bytes:
            return at + count
        most = min(count, max(1, capacity // _PART))
        limit = int(np.searchsorted(starts[at + 1 : at + 1 + most], starts[at] + arena_bytes // _PART, "right"))
        return at + max(1, limit)
