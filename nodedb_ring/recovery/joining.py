"""``read_batches``: what a log has of a range, in batches of the size that the follower delivers."""

from __future__ import annotations

from collections.abc import Iterator

from ..batch._event_batch import EventBatch
from ..errors import LogError
from ..log import EventLog, JoiningEventLog

__all__ = ["read_batches"]


def read_batches(log: EventLog, core_id: int, first: int, last: int, max_events: int) -> Iterator[EventBatch]:
    """The events from `first` to `last` in batches of `max_events`, and one with the rest.

    A log joins its stored batches itself if it can, which costs less.
    """
    if isinstance(log, JoiningEventLog):
        return log.read_joined(core_id, first, last, max_events)
    return _joined(log.read(core_id, first, last), max_events)


def _joined(batches: Iterator[EventBatch], max_events: int) -> Iterator[EventBatch]:
    pieces: list[EventBatch] = []
    held = 0
    while True:
        try:
            batch = next(batches, None)
        except (LogError, OSError):
            # What came before it is intact. It is raised when the next batch is asked for.
            if pieces:
                yield EventBatch.concat(pieces)
            raise
        if batch is None:
            break
        while held + len(batch) >= max_events:
            missing = max_events - held
            whole = batch[:missing] if missing < len(batch) else batch
            yield EventBatch.concat([*pieces, whole]) if pieces else whole
            batch = batch[missing:]
            pieces, held = [], 0
        if len(batch):
            pieces.append(batch)
            held += len(batch)
    if pieces:
        yield EventBatch.concat(pieces) if len(pieces) > 1 else pieces[0]
