"""Tables that ``EventBatch.from_arrow`` reads, and the events that they are."""

# The stubs of pyarrow and pandas lag behind them, and know no Arrow capsules.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportAttributeAccessIssue=false
# pyright: reportMissingTypeArgument=false, reportUnknownParameterType=false

from __future__ import annotations

from typing import Any

import pyarrow as pa

from nodedb_ring import EventBatch, WriteEvent, WriteOp

COLUMNS: dict[str, list[Any]] = {
    "sequence": [7, 8, 9],
    "collection": ["t", "größe", ""],
    "op": ["INSERT", "UPDATE", "HEARTBEAT"],
    "row_id": ["a", "", "a row id of more than 12 bytes"],
    "lsn": [1, 2, 3],
}
EXPECTED = [
    WriteEvent(sequence=7, collection="t", op=WriteOp.INSERT, row_id="a", lsn=1),
    WriteEvent(sequence=8, collection="größe", op=WriteOp.UPDATE, row_id="", lsn=2),
    WriteEvent(sequence=9, collection="", op=WriteOp.HEARTBEAT, row_id="a row id of more than 12 bytes", lsn=3),
]


def table(**columns: Any) -> pa.Table:
    """The columns above, with others instead; one that is None is left out."""
    return pa.table({name: column for name, column in (COLUMNS | columns).items() if column is not None})


def read(**columns: Any) -> EventBatch:
    return EventBatch.from_arrow(table(**columns))


class Source:
    """Hands out capsules that it was given, again and again."""

    def __init__(self, *, array: object = None, stream: object = None) -> None:
        self._array = array
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        given = {"__arrow_c_array__": self._array, "__arrow_c_stream__": self._stream}.get(name)
        if given is None:
            raise AttributeError(name)
        return lambda requested_schema=None: given
