"""Events of which every byte follows from the sequence number, made and checked one by one or as columns.

So a torn, stale or misplaced event is detected by its own number alone.
"""

from __future__ import annotations

import functools
from typing import Final

import numpy as np
import numpy.typing as npt

from nodedb_ring import EVENT_DTYPE, EventBatch, EventSource, WriteEvent, WriteOp
from nodedb_ring.batch.schema import FIXED_FIELDS, STRING_FIELDS, VALUE_FIELDS

Words = npt.NDArray[np.uint64]

NULL: Final = 2**32 - 1
"""The length of a field that is None."""

PERIOD: Final = 4093
"""Lengths repeat after so many numbers; contents do not."""

VARIABLE: Final = STRING_FIELDS + VALUE_FIELDS
U64: Final = 2**64


class WrongEventError(Exception):
    """An event is not what its sequence number says."""


def mix(x: Words) -> Words:
    """Scatters the bits of numbers (the finalizer of splitmix64)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


_TAPE: Final = (33 + mix(np.arange(1 << 18, dtype=np.uint64)) % np.uint64(94)).astype(np.uint8)
"""Printable ASCII: a payload is a stretch of it, from where the number says."""

_TEXT: Final = _TAPE.tobytes().decode()
_OPS: Final = tuple(WriteOp)
_SOURCES: Final = tuple(EventSource)


# The fixed columns come first in a row, and then two words a variable one.
_FIXED_BYTES: Final = 50
_FIELDS_AT: Final = 64
_FIELDS_END: Final = _FIELDS_AT + 8 * len(VARIABLE)


class NumberedEvents:
    """The events of a ring whose payload is at most `most` bytes an event."""

    def __init__(self, most: int) -> None:
        self.most = most
        numbers = np.arange(PERIOD, dtype=np.uint64)
        size = (mix(~numbers) % np.uint64(most + 1)).astype(np.int64)
        lengths = np.zeros((PERIOD, 6), np.int64)
        is_null = np.zeros((PERIOD, 6), np.bool_)
        for k in range(5):
            room = size - lengths.sum(1)
            share = (mix(numbers ^ np.uint64(k << 40)) % (room + 1).astype(np.uint64)).astype(np.int64) // 2
            is_null[:, k] = (k >= 2) & (mix(numbers + np.uint64(k << 50)) % np.uint64(8) == 0)
            lengths[:, k] = np.where(is_null[:, k], 0, share)
        lengths[:, 5] = size - lengths.sum(1)
        self._size = size
        self._before = np.cumsum(lengths, 1) - lengths
        self._bytes = lengths
        self._lengths = np.where(is_null, NULL, lengths).astype(np.uint32)
        self._layout = list(zip(self._before.tolist(), self._lengths.tolist(), strict=True))

    def size(self, sequence: int) -> int:
        """Payload bytes of an event."""
        return int(self._size[sequence % PERIOD])

    def event(self, sequence: int) -> WriteEvent:
        """One event."""
        word = _mix_one(sequence)
        start = word % (len(_TEXT) - self.most)
        before, lengths = self._layout[sequence % PERIOD]
        text = [
            None if length == NULL else _TEXT[start + at : start + at + length]
            for at, length in zip(before, lengths, strict=True)
        ]
        return WriteEvent(
            sequence=sequence,
            collection=text[0] or "",
            op=_OPS[sequence % 6],
            row_id=text[1] or "",
            lsn=word,
            tenant_id=sequence ^ (U64 - 1),
            vshard_id=word & NULL,
            source=_SOURCES[sequence % 5],
            count=1 + sequence % 7,
            new_value=None if text[4] is None else text[4].encode(),
            old_value=None if text[5] is None else text[5].encode(),
            system_time_ms=word >> 1,
            valid_time_ms=-(word >> 2),
            user_id=text[2],
            statement_digest=text[3],
        )

    def columns(self, first: int, count: int) -> tuple[npt.NDArray[np.void], npt.NDArray[np.uint8]]:
        """The rows of `count` events from number `first` on, and their payload, back to back."""
        sequence = np.arange(first, first + count, dtype=np.uint64)
        records = self._records(sequence)
        at = (sequence % np.uint64(PERIOD)).astype(np.int64)
        size = self._size[at]
        begins = np.cumsum(size) - size
        for k, name in enumerate(VARIABLE):
            records[f"{name}_offset"] = begins + self._before[at, k]
            records[f"{name}_length"] = self._lengths[at, k]
        payload = _TAPE[_stretches(self._starts(sequence), size)]
        return records, payload

    def batch(self, first: int, count: int) -> EventBatch:
        """The same as a batch, which a ring takes in one copy."""
        return EventBatch(*self.columns(first, count))

    def scattered(self, first: int, count: int) -> EventBatch:
        """The same with a byte of nobody's between any two events, which a ring has to pack event by event."""
        records, payload = self.columns(first, count)
        sizes = self._size[(np.arange(first, first + count, dtype=np.uint64) % np.uint64(PERIOD)).astype(np.int64)]
        gaps = np.arange(1, count + 1, dtype=np.uint32)
        spread = np.full(len(payload) + count + 1, ord("~"), np.uint8)
        begins = np.cumsum(sizes) - sizes
        spread[_stretches(begins + gaps, sizes)] = payload
        for name in VARIABLE:
            records[f"{name}_offset"] += gaps
        return EventBatch(records, spread)

    def check(self, batch: EventBatch) -> None:
        """Compares every field and every byte of payload with what the sequence numbers say.

        Raises
        ------
        WrongEventError
            Names the first event that differs, and the field.
        """
        records, payload = batch.records, batch.payload
        sequence = records["sequence"].copy()
        expected = self._records(sequence)
        rows = _bytes_of(records)
        if not np.array_equal(rows[:, :_FIXED_BYTES], _bytes_of(expected)[:, :_FIXED_BYTES]):
            for name in FIXED_FIELDS:
                _refuse(sequence, records[name] != expected[name], name)
        at = (sequence % np.uint64(PERIOD)).astype(np.int64)
        fields = rows[:, _FIELDS_AT:_FIELDS_END].copy().view(np.uint32).reshape(-1, len(VARIABLE), 2)
        lengths = self._bytes[at]
        offsets = fields[:, :, 0].astype(np.int64)
        wrong = (fields[:, :, 1] != self._lengths[at]) | ((lengths != 0) & (offsets + lengths > len(payload)))
        if wrong.any():
            for k, name in enumerate(VARIABLE):
                _refuse(sequence, wrong[:, k], f"where {name} lies")
        want = _TAPE[_stretches((self._starts(sequence)[:, None] + self._before[at]).ravel(), lengths.ravel())]
        have = payload[_stretches(offsets.ravel(), lengths.ravel())]
        if not np.array_equal(want, have):
            _refuse(np.repeat(sequence, lengths.sum(1)), want != have, "a byte of its payload")

    def _records(self, sequence: Words) -> npt.NDArray[np.void]:
        word = mix(sequence)
        records = np.zeros(len(sequence), EVENT_DTYPE)
        records["sequence"] = sequence
        records["lsn"] = word
        records["tenant_id"] = ~sequence
        records["system_time_ms"] = (word >> np.uint64(1)).astype(np.int64)
        records["valid_time_ms"] = -(word >> np.uint64(2)).astype(np.int64)
        records["vshard_id"] = word & np.uint64(NULL)
        records["count"] = 1 + sequence % np.uint64(7)
        records["op"] = 1 + sequence % np.uint64(6)
        records["source"] = sequence % np.uint64(5)
        return records

    def _starts(self, sequence: Words) -> npt.NDArray[np.int64]:
        return (mix(sequence) % np.uint64(len(_TAPE) - self.most)).astype(np.int64)


@functools.cache
def numbered_events(most: int) -> NumberedEvents:
    """Made once a process, or before it is forked: it takes some milliseconds."""
    return NumberedEvents(most)


def _mix_one(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) % U64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % U64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % U64
    return x ^ (x >> 31)


def _bytes_of(records: npt.NDArray[np.void]) -> npt.NDArray[np.uint8]:
    return records.view(np.uint8).reshape(-1, EVENT_DTYPE.itemsize)


def _stretches(starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The indices of stretches of bytes, one behind the other."""
    begins = np.cumsum(lengths) - lengths
    return np.repeat(starts - begins, lengths) + np.arange(int(lengths.sum()), dtype=np.int64)


def _refuse(sequence: Words, wrong: npt.NDArray[np.bool_], what: str) -> None:
    if wrong.any():
        raise WrongEventError(f"event {int(sequence[np.flatnonzero(wrong)[0]])}: {what} is another's, or torn")
