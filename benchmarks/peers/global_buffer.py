"""``global-buffer``: a stream of arrays in shared memory, whose readers poll a counter."""

# ruff: noqa: D102 - what a method does, peer.py says

from __future__ import annotations

import importlib
import os
from itertools import chain, islice, repeat
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from ..measure import check
from ..records import (
    ALIKE,
    BATCH,
    CYCLE,
    DEPTH,
    PACK,
    RECORD,
    RECORD_BYTES,
    Ledger,
    One,
    fields,
    ready_bytes,
    ready_records,
    stamped_bytes,
)
from .credit import GROUP, Credit
from .peer import POLLING, Peer, fresh_name

__all__ = ["GlobalBuffer"]

_PATIENCE_S = 60.0


class _Writer(Protocol):
    def write(self, data: npt.NDArray[np.uint8]) -> None: ...
    def close(self) -> None: ...


class _Reader(Protocol):
    overruns: int

    def next_into(self, out: npt.NDArray[np.uint8], timeout: float | None = None) -> int: ...
    def next(self, timeout: float | None = None) -> npt.NDArray[np.uint8]: ...
    def next_batch_into(self, out: npt.NDArray[np.uint8], timeout: float | None = None) -> int: ...


class _GlobalBuffer(Protocol):
    Empty: type[Exception]

    def ArraySpec(self, dtype: str, shape: tuple[int, ...]) -> object: ...  # noqa: N802
    def create(self, name: str, schema: object, capacity: int) -> _Writer: ...
    def attach(self, name: str) -> _Reader: ...


class GlobalBuffer(Peer):
    """Events by ``write`` and ``next_batch_into``, batches by ``write`` and ``next_into`` a fresh array."""

    title = "global-buffer"
    module = "global_buffer"
    pauses = POLLING
    lap = 4 * CYCLE

    def __init__(self, *, is_batched: bool, pauses: int = 0) -> None:
        super().__init__(is_batched=is_batched, pauses=pauses)
        self._library = cast(_GlobalBuffer, importlib.import_module("global_buffer"))
        self._name = fresh_name()
        capacity = DEPTH // BATCH if is_batched else DEPTH
        shape = (BATCH, RECORD_BYTES) if is_batched else (RECORD_BYTES,)
        self._writer = self._library.create(self._name, self._library.ArraySpec("uint8", shape), capacity)
        self._credit = Credit(capacity, self.rest)

    def open_sender(self) -> None:
        self._batches = list(ready_records().view(np.uint8).reshape(-1, BATCH, RECORD_BYTES))

    def make_ready(self, first: int, count: int) -> None:
        self._ready = [np.frombuffer(record, np.uint8) for record in ready_bytes(first, count)]

    def send_fields(self, first: int, count: int) -> None:
        write, pack_into, wait_for_room = self._writer.write, PACK.pack_into, self._credit.wait_for_room
        tenant, system, valid, shard, rows, op, source, named, user, digest, old, collection = ALIKE
        record = bytearray(RECORD_BYTES)
        row = np.frombuffer(record, np.uint8)
        events = fields(first, count)
        for _ in range(count // GROUP):
            wait_for_room(GROUP)
            for number, row_id, value in islice(events, GROUP):
                encoded = row_id.encode()
                pack_into(record, 0,
                    number, number, len(encoded), len(value), tenant, system, valid, shard, rows, op, source,
                    named, user, digest, old, collection, encoded, value,
                )  # fmt: skip
                write(row)

    def send_ready(self) -> None:
        write, wait_for_room = self._writer.write, self._credit.wait_for_room
        events = iter(self._ready)
        for _ in range(len(self._ready) // GROUP):
            wait_for_room(GROUP)
            for row in islice(events, GROUP):
                write(row)

    def send_batches(self, count: int) -> None:
        write, wait_for_room = self._writer.write, self._credit.wait_for_room
        for batch in chain.from_iterable(repeat(self._batches, count // CYCLE)):
            wait_for_room(1)
            write(batch)

    def send_one(self, place: int) -> None:
        self._writer.write(self._ready[place])

    def send_stamped(self, number: int, lsn: int) -> None:
        self._writer.write(np.frombuffer(stamped_bytes(number, lsn), np.uint8))

    def open_receiver(self) -> None:
        self._reader = self._library.attach(self._name)

    def receive(self, count: int, ledger: Ledger) -> None:
        if self.is_batched:
            self._receive_batches(count, ledger)
        else:
            self._receive_events(count, ledger)
        check("messages overrun", self._reader.overruns, 0)

    def _receive_events(self, count: int, ledger: Ledger) -> None:
        take, give, rest, nothing = self._reader.next_batch_into, self._credit.give, self.rest, self._library.Empty
        out = np.empty((BATCH, RECORD_BYTES), np.uint8)
        records = out.view(RECORD)[:, 0]
        while ledger.taken < count:
            try:
                taken = take(out, 0.0)
            except nothing:
                rest()
                continue
            give(taken)
            ledger.take_records(records[:taken].copy())

    def _receive_batches(self, count: int, ledger: Ledger) -> None:
        take, give, rest, nothing = self._reader.next_into, self._credit.give, self.rest, self._library.Empty
        while ledger.taken < count:
            out = np.empty((BATCH, RECORD_BYTES), np.uint8)
            try:
                take(out, 0.0)
            except nothing:
                rest()
                continue
            give(1)
            ledger.take_records(out.view(RECORD)[:, 0])

    def try_one(self) -> One | None:
        one = np.empty(RECORD_BYTES, np.uint8)
        try:
            self._reader.next_into(one, 0.0)
        except self._library.Empty:
            return None
        return one

    def wait_one(self) -> One:
        one = np.empty(RECORD_BYTES, np.uint8)
        self._reader.next_into(one, _PATIENCE_S)
        return one

    def idle(self, seconds: float) -> None:
        try:
            self._reader.next(seconds)
        except self._library.Empty:
            return

    def close(self) -> None:
        self._writer.close()
        # Its own unlink() unregisters twice at Python 3.11's resource tracker, which prints an error.
        os.unlink(f"/dev/shm/gb_{self._name}")
