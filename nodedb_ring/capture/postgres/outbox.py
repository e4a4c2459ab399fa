"""``Outbox``: delivers batches in a thread of its own, while the next ones are received.

The socket holds less than a millisecond of a busy server's changes. If nobody read while the log is written, the server
would wait, and the two would take turns.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, NamedTuple, Self, final

from ...batch._event_batch import EventBatch
from .delivery import Delivery, Stopped
from .position import Position

__all__ = ["Delivered", "Outbox", "Parcel"]

_MOST: Final = 2
"""Batches that wait, beside the one that is delivered."""

_WAIT_SECONDS: Final = 0.1
"""How long a wait lasts before it is looked whether the capture is to stop."""


class Parcel(NamedTuple):
    """A batch, and what the server may be told when it is delivered."""

    batch: EventBatch
    position: Position
    end_lsn: int


class Delivered(NamedTuple):
    """How far the stream is delivered: up to where commits have ended, and which event was the last."""

    end_lsn: int
    position: Position
    last_sequence: int


@final
class Outbox:
    """A queue and its thread; a context manager.

    Parameters
    ----------
    delivery : Delivery
    stopping : threading.Event
        Once it is set, `put` and `flush` raise `Stopped`.
    """

    def __init__(self, delivery: Delivery, stopping: threading.Event) -> None:
        self._delivery, self._stopping = delivery, stopping
        self._changed = threading.Condition()
        self._parcels: collections.deque[Parcel] = collections.deque()
        self._closed = False
        self._delivered = Delivered(0, Position(0, 0), 0)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="nodedb_ring-delivery", daemon=True)

    def put(self, parcel: Parcel) -> None:
        """Waits while the queue is full.

        Raises
        ------
        Exception
            What has ended the thread: an earlier batch was not delivered.
        """
        with self._changed:
            self._wait(lambda: len(self._parcels) <= _MOST)
            self._parcels.append(parcel)
            self._changed.notify_all()

    def flush(self) -> None:
        """Waits until all is delivered. Raises as `put`."""
        with self._changed:
            self._wait(lambda: not self._parcels)

    def check(self) -> None:
        """Raises what has ended the thread, if something has."""
        if self._error is not None:
            raise self._error

    @property
    def oldest(self) -> Parcel | None:
        """What has waited longest, and is perhaps being delivered."""
        with self._changed:
            return self._parcels[0] if self._parcels else None

    @property
    def delivered(self) -> Delivered:
        """As of the last batch."""
        return self._delivered

    def _wait(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self.check()
            if self._stopping.is_set():
                raise Stopped
            self._changed.wait(_WAIT_SECONDS)
        self.check()

    def _run(self) -> None:
        try:
            self._delivery.begin()
            while (parcel := self._next()) is not None:
                self._delivery.deliver(parcel.batch)
                self._finish(parcel)
        except Stopped:
            with self._changed:
                # The log has what is still to be emitted.
                if self._delivery.has_appended:
                    self._delivered = _delivered(self._parcels[0])
        except BaseException as error:
            self._error = error
        with self._changed:
            self._changed.notify_all()

    def _next(self) -> Parcel | None:
        with self._changed:
            while not self._parcels and not self._closed:
                self._changed.wait()
            return None if self._closed else self._parcels[0]

    def _finish(self, parcel: Parcel) -> None:
        with self._changed:
            self._delivered = _delivered(parcel)
            self._parcels.popleft()
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the thread, when it has delivered what it has begun, or found that it must stop. May be repeated."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _delivered(parcel: Parcel) -> Delivered:
    return Delivered(parcel.end_lsn, parcel.position, int(parcel.batch.sequence[-1]))
