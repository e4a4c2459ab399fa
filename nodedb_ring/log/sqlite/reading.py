"""A range of a core's stored batches, many rows at a time, in batches of the size that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

from ...batch._event_batch import EventBatch
from .. import MAX_BATCH_EVENTS
from .._joining import join_stored
from ..encoding import decode_batch
from .drivers import Bindings, Query
from .schema import COVERING, NEXT_BATCHES

__all__ = ["joined_rows"]

_Some = Callable[[str, str, Bindings, int, int], list[tuple[Any, ...]]]

READ_BYTES: Final = 16 * 1024 * 1024
"""Rows and payload of the stored batches that are read at once, unless a single one has more."""


def joined_rows(
    query: Query, some: _Some, core_id: int, first: int, last: int, *, max_events: int
) -> Iterator[EventBatch]:
    """``SqliteEventLog.read_joined``."""
    if first > last:
        return
    undone = f"events {first} to {last} of core {core_id} were not read, or not all of them"
    covering = query(undone, COVERING, (core_id, first))
    after = int(covering[0][0]) - 1 if covering else first - 1
    rest: list[EventBatch] = []
    missing = max_events
    while rows := some(undone, NEXT_BATCHES, (core_id, after, last), min(missing, MAX_BATCH_EVENTS), READ_BYTES):
        block, intact = join_stored(core_id, rows)
        if block is not None:
            after = rows[intact - 1][0]
            rest.append(_between(EventBatch._over(block), first, last))  # pyright: ignore[reportPrivateUsage]
            yield from _filled(rest, max_events)
            missing = max_events - sum(map(len, rest))
        if intact < len(rows):
            if rest:
                yield EventBatch.concat(rest)
                rest = []
                missing = max_events
            # Damaged, or too large to be joined.
            row_first, row_last, count, checksum, row_bytes, payload = rows[intact]
            batch = decode_batch(
                row_bytes, payload, checksum, core_id=core_id, first=row_first, last=row_last, count=count
            )
            after = row_first
            rest.append(_between(batch, first, last))
            yield from _filled(rest, max_events)
            missing = max_events - sum(map(len, rest))
    if any(map(len, rest)):
        yield EventBatch.concat(rest) if len(rest) > 1 else rest[0]


def _filled(pieces: list[EventBatch], max_events: int) -> Iterator[EventBatch]:
    """Batches of `max_events`, as many as the pieces are enough for, which are left with the rest."""
    while sum(map(len, pieces)) >= max_events:
        *before, last = pieces
        missing = max_events - sum(map(len, before))
        batch = (
            EventBatch.concat([*before, last[:missing]]) if before else last[:missing] if missing < len(last) else last
        )
        pieces[:] = [last[missing:]] if missing < len(last) else []
        yield batch


def _between(batch: EventBatch, first: int, last: int) -> EventBatch:
    """The events of a batch from `first` to `last`."""
    numbers = batch.sequence
    if int(numbers[0]) >= first and int(numbers[-1]) <= last:
        return batch
    start = np.searchsorted(numbers, np.uint64(first), "left")
    stop = np.searchsorted(numbers, np.uint64(last), "right")
    return batch[int(start) : int(stop)]
