"""The event of the benchmarks between processes: 256 bytes in every library.

A library that carries bytes carries a record of ``RECORD``; the ring carries the same fields as a row of 128 bytes and
128 bytes of payload. All start from the same number, str and bytes, and carry every column of an event, including the
constant ones and the length of each text or value, which distinguishes None from empty. The place of a field follows
from the lengths before it, so a record does not hold it.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from itertools import cycle
from typing import Final, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from nodedb_ring import EventBatch, EventSource, WriteEvent, WriteOp
from nodedb_ring.batch.schema import NO_TIME, NULL_LENGTH

from .measure import WrongAnswerError, check

__all__ = [
    "ALIKE",
    "BATCH",
    "COLLECTION",
    "CYCLE",
    "DEPTH",
    "PACK",
    "PAYLOAD_BYTES",
    "RECORD",
    "RECORD_BYTES",
    "Fields",
    "Ledger",
    "One",
    "Records",
    "fields",
    "number_of",
    "packed",
    "ready_batches",
    "ready_bytes",
    "ready_events",
    "ready_records",
    "stamp_of",
    "stamped_bytes",
    "stamped_event",
]

Records: TypeAlias = npt.NDArray[np.void]
Fields: TypeAlias = tuple[int, str, bytes]
"""Number, row id and value of an event."""

One: TypeAlias = bytes | npt.NDArray[np.uint8] | WriteEvent
"""One event as a receiver gets it, always in memory that the receiver owns."""

BATCH: Final = 1024
"""Events in a batch, and the most that a receiver takes at once."""

CYCLE: Final = 5 * BATCH
"""Row ids, values and ready batches repeat after so many events: few enough to stay in the core's cache, like new
events. Not a power of two, so that a slot of the ring gets a different event in the next lap."""

DEPTH: Final = 16 * BATCH
"""Events that each library may hold. It is the same for all, because the memory touched is a large part of the cost."""

COLLECTION: Final = "flights"
"""The collection that every event names."""

_VALUE_BYTES: Final = 112

PAYLOAD_BYTES: Final = len(COLLECTION) + 9 + _VALUE_BYTES
"""Payload bytes of each event, for which the ring needs room besides the row."""

RECORD: Final[np.dtype[np.void]] = np.dtype(
    {
        "names": [
            *("sequence", "lsn", "row_id_length", "new_value_length"),
            *("tenant_id", "system_time_ms", "valid_time_ms", "vshard_id", "count", "op", "source"),
            *("collection_length", "user_id_length", "statement_digest_length", "old_value_length"),
            *("collection", "row_id", "new_value"),
        ],
        "formats": [
            *("<u8", "<u8", "<u4", "<u4"),
            *("<u8", "<i8", "<i8", "<u4", "<u4", "u1", "u1"),
            *("<u4", "<u4", "<u4", "<u4"),
            *("S7", "S9", f"V{_VALUE_BYTES}"),
        ],
        "offsets": [0, 8, 16, 20, 24, 32, 40, 48, 52, 56, 57, 60, 64, 68, 72, 128, 135, 144],
        "itemsize": 256,
    }
)
"""One event as a peer carries it."""

RECORD_BYTES: Final = RECORD.itemsize

PACK: Final = struct.Struct(f"<QQIIQqqIIBB2xIIII52x7s9s{_VALUE_BYTES}s")
"""Packs all fields into a record, in its order."""

_STAMP: Final = struct.Struct("<QQ")
"""The number and the LSN of a record."""

ALIKE: Final = (
    *(0, NO_TIME, NO_TIME, 0, 1, int(WriteOp.INSERT), int(EventSource.USER)),
    *(len(COLLECTION), NULL_LENGTH, NULL_LENGTH, NULL_LENGTH, COLLECTION.encode()),
)
"""The fields from ``tenant_id`` to ``collection``, which are equal in all events."""


@functools.cache
def _values() -> tuple[bytes, ...]:
    """A different value for each event of a cycle."""
    return tuple(number.to_bytes(8, "little") * (_VALUE_BYTES // 8) for number in range(1, CYCLE + 1))


@functools.cache
def _row_ids() -> tuple[str, ...]:
    """A row id for each event of a cycle, 9 characters each."""
    return tuple(f"{number:09}" for number in range(1, CYCLE + 1))


def fields(first: int, count: int) -> Iterator[Fields]:
    """The parts of `count` events, numbered from `first` on; `first` is one more than a multiple of the cycle."""
    return zip(range(first, first + count), cycle(_row_ids()), cycle(_values()), strict=False)


def ready_events(first: int, count: int) -> list[WriteEvent]:
    """Events as the ring takes them."""
    return [
        WriteEvent(
            sequence=number, collection=COLLECTION, op=WriteOp.INSERT, row_id=row_id, lsn=number, new_value=value
        )
        for number, row_id, value in fields(first, count)
    ]


def ready_batches() -> list[EventBatch]:
    """The events of a cycle in batches, as the ring takes them."""
    events = ready_events(1, CYCLE)
    return [EventBatch.from_events(events[start : start + BATCH]) for start in range(0, CYCLE, BATCH)]


def ready_records() -> Records:
    """The events of a cycle as records."""
    return np.frombuffer(b"".join(ready_bytes(1, CYCLE)), RECORD).copy()


def packed(number: int, row_id: str, value: bytes) -> bytes:
    """One event as a record."""
    return PACK.pack(number, number, len(row_id), len(value), *ALIKE, row_id.encode(), value)


def ready_bytes(first: int, count: int) -> list[bytes]:
    """Events, each packed into one record."""
    return [packed(number, row_id, value) for number, row_id, value in fields(first, count)]


def stamped_event(number: int, lsn: int) -> WriteEvent:
    """Makes one event of its fields; all but the number and the LSN are those of the first one."""
    return WriteEvent(
        sequence=number,
        collection=COLLECTION,
        op=WriteOp.INSERT,
        row_id=_row_ids()[0],
        lsn=lsn,
        new_value=_values()[0],
    )


def stamped_bytes(number: int, lsn: int) -> bytes:
    """The same as a record."""
    row_id, value = _row_ids()[0], _values()[0]
    return PACK.pack(number, lsn, len(row_id), len(value), *ALIKE, row_id.encode(), value)


def stamp_of(one: One) -> tuple[int, int]:
    """The number and the LSN of one event, in whichever form it was received."""
    if isinstance(one, WriteEvent):
        return one.sequence, one.lsn
    number, lsn = _STAMP.unpack_from(cast(bytes, one))
    return number, lsn


def number_of(one: One) -> int:
    """The number of one event, in whichever form it was received."""
    if isinstance(one, WriteEvent):
        return one.sequence
    return int(np.frombuffer(one, RECORD)["sequence"][0])


class Ledger:
    """What a receiver has taken: every event in its place, in an array that nothing overwrites.

    Parameters
    ----------
    first : int
        The number of the first event.
    is_cyclic : bool
        Whether the numbers start again after each cycle, as those of ready batches do.
    is_thorough : bool
        Whether every byte of every event is compared. In a timed round only the ends of each batch are.
    """

    def __init__(self, first: int, *, is_cyclic: bool, is_thorough: bool) -> None:
        self.taken = 0
        self._first = first
        self._is_cyclic = is_cyclic
        self._is_thorough = is_thorough
        self._kept: Records | EventBatch | None = None
        self._kept_bytes = b""
        self._records = ready_records() if is_thorough else np.empty(0, RECORD)
        self._events = ready_events(1, CYCLE) if is_thorough else []

    def take_records(self, records: Records) -> None:
        """Records a batch of another library."""
        self._keep(records, records)
        places = self._places(len(records))
        self._take(records["sequence"])
        if self._is_thorough:
            check("the lsns", bool((records["lsn"] == records["sequence"]).all()), True)
            for name in (RECORD.names or ())[2:]:
                check(f"the column {name}", bool((records[name] == self._records[name][places]).all()), True)

    def take_batch(self, batch: EventBatch) -> None:
        """Records a batch of the ring."""
        self._keep(batch, batch.records)
        places = self._places(len(batch))
        self._take(batch.sequence)
        if self._is_thorough:
            expected = [self._events[place] for place in places]
            check("the lsns", bool((batch.lsn == batch.sequence).all()), True)
            check("the ops", set(batch.op.tolist()), {WriteOp.INSERT})
            check("the collections", set(batch.strings("collection")), {COLLECTION})
            check("the row ids", batch.strings("row_id").tolist(), [event.row_id for event in expected])
            check("the values", batch.values("new_value").tolist(), [event.new_value for event in expected])

    def _take(self, sequence: npt.NDArray[np.uint64]) -> None:
        count = len(sequence)
        first, last = self._number(self.taken), self._number(self.taken + count - 1)
        if int(sequence[0]) != first or int(sequence[-1]) != last:
            raise WrongAnswerError(f"events {sequence[0]} to {sequence[-1]}, but {first} to {last} were next")
        if self._is_thorough:
            numbers = [self._number(place) for place in range(self.taken, self.taken + count)]
            check("the numbers", sequence.tolist(), numbers)
        self.taken += count

    def close(self) -> None:
        """Checks the first batch again: memory that the receiver does not own would be overwritten by now."""
        if self._kept is not None:
            records = self._kept.records if isinstance(self._kept, EventBatch) else self._kept
            check("whether the first batch is as it was", records.tobytes() == self._kept_bytes, True)

    def _keep(self, batch: Records | EventBatch, records: Records) -> None:
        if self._is_thorough and self._kept is None:
            self._kept, self._kept_bytes = batch, records.tobytes()

    def _number(self, place: int) -> int:
        return place % CYCLE + 1 if self._is_cyclic else place + self._first

    def _places(self, count: int) -> npt.NDArray[np.intp]:
        """The places of the next events in the cycle."""
        if not self._is_thorough:
            return np.empty(0, np.intp)
        return np.arange(self.taken, self.taken + count, dtype=np.intp) % CYCLE
