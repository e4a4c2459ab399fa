"""Events of several kinds, and batches from columns."""

from __future__ import annotations

from typing import Any

from nodedb_ring import EventBatch, WriteEvent, WriteOp
from tests.unit.builders import FULL, event

STRINGS = ("collection", "row_id", "user_id", "statement_digest")
VALUES = ("new_value", "old_value")
LEAST: dict[str, Any] = {"sequence": [1, 2], "collection": "t", "op": WriteOp.INSERT, "row_id": "", "lsn": 0}
MIXED = [
    event(1),
    WriteEvent(**FULL),
    event(2, op=WriteOp.HEARTBEAT),
    event(3, row_id="", new_value=b"", user_id="é"),
]


def columns(**given: Any) -> EventBatch:
    return EventBatch.from_columns(**(LEAST | given))
