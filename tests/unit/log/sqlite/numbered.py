"""Numbered events and batches, and the numbers that a log has."""

# apsw's stubs name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from nodedb_ring import EventBatch, WriteEvent, WriteOp
from nodedb_ring.log import EventLog

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


def numbers(log: EventLog, core_id: int = 0, first: int = 0, last: int = 2**64 - 1) -> list[int]:
    return [int(number) for batch in log.read(core_id, first, last) for number in batch.sequence]
