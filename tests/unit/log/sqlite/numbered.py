"""Numbered events and batches, and the numbers that a log has."""

# apsw's stubs name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np

from nodedb_ring import EventBatch, WriteEvent, WriteOp
from nodedb_ring.log import EventLog
from nodedb_ring.log.sqlite import SqliteEventLog

Driver = Literal["sqlite3", "apsw"]
Sql = Callable[..., list[tuple[Any, ...]]]


def event(sequence: int, value: bytes | None = None) -> WriteEvent:
    return WriteEvent(
        sequence=sequence, collection="t", op=WriteOp.INSERT, row_id=str(sequence), lsn=sequence, new_value=value
    )


def batch_of(*sequences: int, value: bytes | None = None) -> EventBatch:
    return EventBatch.from_events([event(sequence, value) for sequence in sequences])


def run_of(first: int, count: int) -> EventBatch:
    return EventBatch.from_columns(
        sequence=np.arange(first, first + count, dtype=np.uint64),
        collection="t",
        op=int(WriteOp.INSERT),
        row_id="r",
        lsn=np.arange(count, dtype=np.uint64),
    )


def calls_of(log: SqliteEventLog, reading: Iterator[EventBatch]) -> list[Callable[[], object]]:
    """Each call of a log that has 1 and 2, and the next batch of a read that was begun."""
    return [
        lambda: log.append(0, batch_of(3)),
        lambda: log.read(0, 0, 1),
        lambda: next(reading),
        lambda: log.last_sequence(0),
        lambda: log.trim(0, 1),
        lambda: log.load_watermark("a", 0),
        lambda: log.save_watermark("a", 0, 1),
    ]


def numbers(log: EventLog, core_id: int = 0, first: int = 0, last: int = 2**64 - 1) -> list[int]:
    return [int(number) for batch in log.read(core_id, first, last) for number in batch.sequence]
