"""``GapCursor``: holes in the sequence numbers that a consumer receives."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ..batch._event_batch import EventBatch
    from ..ends._consumer import EventConsumer

__all__ = ["GapCursor"]


@final
class GapCursor:
    """Drains a consumer and reports which numbers were dropped: each hole once, also one after the last event.

    Parameters
    ----------
    consumer : EventConsumer
    after : int, default 0
        Numbers up to this one are not reported. 0 suits a core whose numbers begin at 1.

    Thread safety
    -------------
    That of the consumer, one thread at a time.
    """

    __slots__ = ("_consumer", "_position")

    def __init__(self, consumer: EventConsumer, after: int = 0) -> None:
        if not 0 <= after < 2**64:
            raise ValueError(f"after {after}: must be in 0 .. {2**64 - 1}")
        self._consumer = consumer
        self._position = after

    @property
    def position(self) -> int:
        """Every number up to this one has been received or reported."""
        return self._position

    def drain(self, max_events: int = 1024, timeout: float | None = 0.0) -> tuple[EventBatch, npt.NDArray[np.uint64]]:
        """As ``EventConsumer.drain``, and the holes: an array of shape (k, 2), the first and last number of each.

        A hole after the last event is reported when a drain finds the ring empty. A retried event may still come after
        its number was reported.
        """
        # Read before the drain: what was tried by now is in the ring when the drain begins, or was dropped.
        tail = self._consumer.emitted_sequence
        batch = self._consumer.drain(max_events, timeout)
        if len(batch):
            gaps = batch.gaps(after=self._position)
            self._position = max(self._position, int(batch.sequence.max()))
        elif tail is not None and tail > self._position:
            gaps = np.array([[self._position + 1, tail]], np.uint64)
            self._position = tail
        else:
            gaps = np.empty((0, 2), np.uint64)
        return batch, gaps
