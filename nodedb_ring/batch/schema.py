"""The schema of a write event for Python: operations, sources and ``EVENT_DTYPE``.

The columns are written once, in ``core/nodedb_schema.h``, and everything here that names columns is made of that list.

A row is two cache lines. Fixed columns lie in it; a variable-length field is an offset and a length into the payload
that travels with the row, and a length of all ones is None. The bytes that no column names are the ring's own: the
position the row was published at and its span of the arena.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

import numpy as np

from ._schema import columns, members

__all__ = [
    "COLUMNS",
    "EVENT_DTYPE",
    "FIXED_FIELDS",
    "NO_TIME",
    "NULL_LENGTH",
    "REQUIRED_FIELDS",
    "STRING_FIELDS",
    "TIME_FIELDS",
    "VALUE_FIELDS",
    "Column",
    "EventSource",
    "WriteOp",
]


class WriteOp(enum.IntEnum):
    """What a write did. Zero is not an operation, so a row that was not filled in is refused."""

    INSERT = 1
    UPDATE = 2
    DELETE = 3
    BULK_INSERT = 4
    BULK_DELETE = 5
    HEARTBEAT = 6

    @property
    def is_data_event(self) -> bool:
        """False for ``HEARTBEAT`` alone: it says that the core lives, and changes no row."""
        return self is not WriteOp.HEARTBEAT

    def __str__(self) -> str:
        return self.name


class EventSource(enum.IntEnum):
    """On whose behalf a write was made."""

    USER = 0
    TRIGGER = 1
    RAFT_FOLLOWER = 2
    CRDT_SYNC = 3
    DEFERRED = 4

    def __str__(self) -> str:
        return self.name.lower()


NULL_LENGTH: Final = 2**32 - 1
"""The length of a variable-length field that is None."""

NO_TIME: Final = -(2**63)
"""A time that is None: NumPy's NaT, so the columns view as ``datetime64[ms]``."""


class Column(NamedTuple):
    """One column of a write event, as ``core/nodedb_schema.h`` has it."""

    name: str
    kind: str
    """``NUMBER``, ``TIME``, ``MEMBER`` (of ``WriteOp`` or ``EventSource``), ``TEXT`` or ``BYTES``."""
    presence: str
    """``REQUIRED``, ``DEFAULT`` (never None) or ``NULLABLE``."""
    offset: int
    """Of the column in a row, in bytes; of text and bytes, where the row says where they lie in the payload."""
    size: int


COLUMNS: Final = tuple(Column(*column) for column in columns())
"""Every column, in the order of ``WriteEvent``'s arguments."""

_BY_OFFSET: Final = sorted(COLUMNS, key=lambda column: column.offset)

FIXED_FIELDS: Final = tuple(column.name for column in _BY_OFFSET if column.kind in ("NUMBER", "TIME", "MEMBER"))
"""Fields that are columns of their own, in the order in which a row holds them."""

STRING_FIELDS: Final = tuple(column.name for column in _BY_OFFSET if column.kind == "TEXT")
"""Fields that are UTF-8 in the payload, in the order in which an event's payload holds them."""

VALUE_FIELDS: Final = tuple(column.name for column in _BY_OFFSET if column.kind == "BYTES")
"""Fields that are bytes in the payload, after the strings."""

TIME_FIELDS: Final = tuple(column.name for column in _BY_OFFSET if column.kind == "TIME")
"""Fields that are milliseconds since the epoch, ``NO_TIME`` where they are None."""

REQUIRED_FIELDS: Final = tuple(column.name for column in COLUMNS if column.presence == "REQUIRED")
"""Fields without a default."""

_ROW_BYTES: Final = 128


def _event_dtype() -> np.dtype[np.void]:
    names: list[str] = []
    formats: list[str] = []
    offsets: list[int] = []
    for name, kind, _, offset, size in _BY_OFFSET:
        if kind in ("TEXT", "BYTES"):
            names += [f"{name}_offset", f"{name}_length"]
            formats += ["<u4", "<u4"]
            offsets += [offset, offset + 4]
        else:
            names.append(name)
            formats.append(f"<{'i' if kind == 'TIME' else 'u'}{size}")
            offsets.append(offset)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": _ROW_BYTES})


EVENT_DTYPE: Final[np.dtype[np.void]] = _event_dtype()
"""One write event: 128 bytes. Offsets are in bytes into the payload of the batch that holds the row."""

if (range(min(WriteOp), max(WriteOp) + 1), range(min(EventSource), max(EventSource) + 1)) != members():
    raise ImportError(
        f"core/nodedb_schema.h numbers operations and sources by {members()}: WriteOp and EventSource in "
        "batch/schema.py must have the same; change both"
    )
