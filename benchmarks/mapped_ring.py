"""A careful hand-written ring for comparison: fixed records in a mapped file, two positions, and only NumPy.

One producer, one consumer. Each position has its own cache lines, each side caches the other's position, the capacity
is a power of two, and a batch is one or two copies. There are no fields, no checks and no waiting. It relies on x86,
where aligned stores of 8 bytes are atomic and stay in order; on other processors it is not correct.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["MappedConsumer", "MappedProducer", "MappedRing"]

_HEAD: Final = 0
_TAIL: Final = 16  # in words of 8 bytes: 128 bytes on
_FIRST: Final = mmap.PAGESIZE


class MappedRing:
    """The mapped file: positions, then `capacity` records of `record_bytes`."""

    def __init__(self, path: Path, capacity: int, record_bytes: int) -> None:
        size = _FIRST + capacity * record_bytes
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
            self.block = mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        finally:
            os.close(descriptor)
        self.positions = memoryview(self.block)[:_FIRST].cast("Q")
        self.records: npt.NDArray[np.uint8] = np.frombuffer(self.block, np.uint8, offset=_FIRST).reshape(
            capacity, record_bytes
        )
        self.capacity = capacity
        self.record_bytes = record_bytes


class MappedProducer:
    """The writing end."""

    __slots__ = ("_block", "_capacity", "_head", "_limit", "_mask", "_pack", "_positions", "_record_bytes", "_records")

    def __init__(self, ring: MappedRing, form: struct.Struct) -> None:
        self._pack = form.pack_into
        self._block = memoryview(ring.block)[_FIRST:]
        self._records = ring.records
        self._positions = ring.positions
        self._record_bytes = ring.record_bytes
        self._capacity = ring.capacity
        self._mask = ring.capacity - 1
        self._head = ring.positions[_HEAD]
        self._limit = ring.positions[_TAIL] + ring.capacity

    def push(self, record: bytes) -> bool:
        """One record; False when the ring is full."""
        head = self._head
        if head == self._limit:
            self._limit = self._positions[_TAIL] + self._capacity
            if head == self._limit:
                return False
        at = (head & self._mask) * self._record_bytes
        self._block[at : at + self._record_bytes] = record
        self._head = self._positions[_HEAD] = head + 1
        return True

    def pack(self, *fields: int | bytes) -> bool:
        """Packs one record into its place; False if the ring is full."""
        head = self._head
        if head == self._limit:
            self._limit = self._positions[_TAIL] + self._capacity
            if head == self._limit:
                return False
        self._pack(self._block, (head & self._mask) * self._record_bytes, *fields)
        self._head = self._positions[_HEAD] = head + 1
        return True

    def push_batch(self, records: npt.NDArray[np.uint8]) -> bool:
        """All rows of the array as records, or none if they do not fit."""
        head, count = self._head, len(records)
        if head + count > self._limit:
            self._limit = self._positions[_TAIL] + self._capacity
            if head + count > self._limit:
                return False
        slot = head & self._mask
        before_end = self._capacity - slot
        if count <= before_end:
            np.copyto(self._records[slot : slot + count], records)
        else:
            np.copyto(self._records[slot:], records[:before_end])
            np.copyto(self._records[: count - before_end], records[before_end:])
        self._head = self._positions[_HEAD] = head + count
        return True


class MappedConsumer:
    """The reading end."""

    __slots__ = ("_capacity", "_mask", "_positions", "_records", "_seen", "_tail")

    def __init__(self, ring: MappedRing) -> None:
        self._records = ring.records
        self._positions = ring.positions
        self._capacity = ring.capacity
        self._mask = ring.capacity - 1
        self._tail = ring.positions[_TAIL]
        self._seen = ring.positions[_HEAD]

    def take(self, most: int) -> npt.NDArray[np.uint8] | None:
        """Up to `most` records as an array that the caller owns, or None if there are none."""
        tail = self._tail
        count = self._seen - tail
        if count < most:
            self._seen = self._positions[_HEAD]
            count = self._seen - tail
            if count == 0:
                return None
        count = min(count, most)
        slot = tail & self._mask
        before_end = self._capacity - slot
        if count <= before_end:
            taken = self._records[slot : slot + count].copy()
        else:
            taken = np.concatenate((self._records[slot:], self._records[: count - before_end]))
        self._tail = self._positions[_TAIL] = tail + count
        return taken
