"""The schema of a write event, written once: its operations, its sources and its row.

A row is two cache lines. Fixed columns lie in it; a variable-length field is an offset and a length into the payload
that travels with the row, and a length of all ones is None. The bytes that no column names are the ring's own: the
position the row was published at and its span of the arena (``_ring.pxd`` has the C view of the same 128 bytes).
"""

from __future__ import annotations

import enum
from typing import Final

import numpy as np

__all__ = [
    "EVENT_DTYPE",
    "FIXED_FIELDS",
    "NO_TIME",
    "NULL_LENGTH",
    "STRING_FIELDS",
    "VALUE_FIELDS",
    "EventSource",
    "WriteOp",
]


class WriteOp(enum.IntEnum):
    """What a write did. Zero is no operation, so a row that nobody filled in is refused."""

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
"""A stamp that is None: NumPy's NaT, so the columns view as ``datetime64[ms]``."""

FIXED_FIELDS: Final = (
    "sequence",
    "lsn",
    "tenant_id",
    "system_time_ms",
    "valid_time_ms",
    "vshard_id",
    "count",
    "op",
    "source",
)
"""Fields that are columns of their own."""

STRING_FIELDS: Final = ("collection", "row_id", "user_id", "statement_digest")
"""Fields that are UTF-8 in the payload, in the order in which an event's payload holds them."""

VALUE_FIELDS: Final = ("new_value", "old_value")
"""Fields that are bytes in the payload, after the strings."""

_ROW_BYTES: Final = 128
_FIXED_AT: Final = {
    "sequence": ("<u8", 0),
    "lsn": ("<u8", 8),
    "tenant_id": ("<u8", 16),
    "system_time_ms": ("<i8", 24),
    "valid_time_ms": ("<i8", 32),
    "vshard_id": ("<u4", 40),
    "count": ("<u4", 44),
    "op": ("u1", 48),
    "source": ("u1", 49),
}
_VARIABLE_AT: Final = 64


def _event_dtype() -> np.dtype[np.void]:
    names: list[str] = []
    formats: list[str] = []
    offsets: list[int] = []
    for name, (code, at) in _FIXED_AT.items():
        names.append(name)
        formats.append(code)
        offsets.append(at)
    for place, name in enumerate(STRING_FIELDS + VALUE_FIELDS):
        for half, suffix in enumerate(("offset", "length")):
            names.append(f"{name}_{suffix}")
            formats.append("<u4")
            offsets.append(_VARIABLE_AT + 8 * place + 4 * half)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": _ROW_BYTES})


EVENT_DTYPE: Final[np.dtype[np.void]] = _event_dtype()
"""One write event: 128 bytes. Offsets are in bytes into the payload of the batch that holds the row."""
