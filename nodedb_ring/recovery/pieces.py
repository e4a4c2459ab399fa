"""``next_piece``: which events of a batch a follower takes next."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..batch._event_batch import EventBatch
from ..batch.schema import WriteOp

__all__ = ["Piece", "next_piece"]


class Piece(NamedTuple):
    """Rows of a batch. What comes before them are duplicates.

    Attributes
    ----------
    begin, stop : int
        The rows; `begin` is the batch's length where all are duplicates.
    first : int
        The number of the first row. Where it is above the number that is owed, something is missing before it.
    is_silent : bool
        They are heartbeats, and those are not wanted.
    """

    begin: int
    stop: int
    first: int
    is_silent: bool


def next_piece(batch: EventBatch, owed: int, room: int, *, wants_heartbeats: bool) -> Piece:
    """The first rows of a batch that are `owed` or above, up to a hole: at most `room`, or the heartbeats in front."""
    numbers = batch.sequence
    fresh = numbers >= owed
    begin = int(fresh.argmax()) if fresh.any() else len(batch)
    if begin == len(batch):
        return Piece(begin, begin, owed, is_silent=False)
    first = int(numbers[begin])
    broken = np.flatnonzero(numbers[begin:] != np.arange(len(batch) - begin, dtype=np.uint64) + np.uint64(first))
    stop = begin + int(broken[0]) if broken.size else len(batch)
    if not wants_heartbeats:
        # Either the heartbeats that it begins with, or what comes before the first.
        silent = batch.op[begin:stop] == WriteOp.HEARTBEAT
        others = np.flatnonzero(silent != silent[0])
        stop = begin + int(others[0]) if others.size else stop
        if silent[0]:
            return Piece(begin, stop, first, is_silent=True)
    return Piece(begin, min(stop, begin + room), first, is_silent=False)
