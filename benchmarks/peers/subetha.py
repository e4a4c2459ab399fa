"""``subetha-ipc``: a ring of slots of 64 bytes between one writer and one reader."""

# ruff: noqa: D102 - what a method does, peer.py says

from __future__ import annotations

import importlib
from itertools import chain, repeat
from pathlib import Path
from typing import Protocol, cast

import numpy as np

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
from .credit import Credit
from .peer import POLLING, Peer, fresh_name

__all__ = ["Subetha"]

_PATIENCE_S = 60.0
_SLOT = 64
_SLOTS = RECORD_BYTES // _SLOT
"""Slots of one event."""


class _Ring(Protocol):
    payload_size: int

    def push_buffer(self, data: bytes, item_len: int) -> int: ...
    def pop_buffer(self, max_items: int) -> tuple[bytes, int]: ...


class _Rings(Protocol):
    def __call__(self, path: str, capacity: int) -> _Ring: ...
    def open(self, path: str, capacity: int) -> _Ring: ...


class _Notifier(Protocol):
    def wait(self, timeout: float | None = None) -> bool: ...
    def drain(self) -> None: ...


class _NotifierSet(Protocol):
    def signal(self) -> int: ...
    def attach(self) -> _Notifier: ...


class _Subetha(Protocol):
    SpscRing: _Rings

    def NotifierSet(self, path: str) -> _NotifierSet: ...  # noqa: N802


class Subetha(Peer):
    """``push_buffer`` and ``pop_buffer``, which carry many slots by one call: an event is four of them.

    Its frames, for what is larger than a slot, are slower, and carry at most 8 KiB. Its ring cannot wait, so a receiver
    that sleeps has a notifier, which the sender signals after each event.
    """

    title = "subetha-ipc"
    module = "subetha"
    pauses = POLLING
    lap = 4 * CYCLE

    def __init__(self, *, is_batched: bool, pauses: int = 0) -> None:
        super().__init__(is_batched=is_batched, pauses=pauses)
        self._library = cast(_Subetha, importlib.import_module("subetha"))
        name = fresh_name()
        self._path, self._bell = f"/dev/shm/{name}-ring", f"/dev/shm/{name}-bell"
        self._prefix = name
        self._capacity = DEPTH * _SLOTS
        self._created = self._library.SpscRing(self._path, self._capacity)
        # A part of a batch that did not fit would be a copy: so its sender waits until there is room for all of it.
        self._credit = Credit(self._capacity, self.rest)
        self._is_signalled = False
        # The beginning of an event whose last slots have not come yet.
        self._begun = b""

    def _ring(self) -> _Ring:
        return self._library.SpscRing.open(self._path, self._capacity)

    def set_mode(self, mode: str) -> None:
        self._is_signalled = mode != "spinning"

    def open_sender(self) -> None:
        self._push = self._ring().push_buffer
        self._notifiers = self._library.NotifierSet(self._bell)
        self._batches = [records.tobytes() for records in ready_records().reshape(-1, BATCH)]

    def make_ready(self, first: int, count: int) -> None:
        self._ready = ready_bytes(first, count)

    def _push_rest(self, record: bytes, pushed: int) -> None:
        """Pushes the slots of an event for which there was no room."""
        while pushed < _SLOTS:
            self.rest()
            pushed += self._push(record[pushed * _SLOT :], _SLOT)

    def send_fields(self, first: int, count: int) -> None:
        push, pack, push_rest = self._push, PACK.pack, self._push_rest
        tenant, system, valid, shard, rows, op, source, named, user, digest, old, collection = ALIKE
        for number, row_id, value in fields(first, count):
            encoded = row_id.encode()
            record = pack(
                number, number, len(encoded), len(value), tenant, system, valid, shard, rows, op, source,
                named, user, digest, old, collection, encoded, value,
            )  # fmt: skip
            pushed = push(record, _SLOT)
            if pushed < _SLOTS:
                push_rest(record, pushed)

    def send_ready(self) -> None:
        push, push_rest = self._push, self._push_rest
        for record in self._ready:
            pushed = push(record, _SLOT)
            if pushed < _SLOTS:
                push_rest(record, pushed)

    def send_batches(self, count: int) -> None:
        push, wait_for_room = self._push, self._credit.wait_for_room
        for batch in chain.from_iterable(repeat(self._batches, count // CYCLE)):
            wait_for_room(BATCH * _SLOTS)
            push(batch, _SLOT)

    def send_one(self, place: int) -> None:
        self._push(self._ready[place], _SLOT)
        if self._is_signalled:
            self._notifiers.signal()

    def send_stamped(self, number: int, lsn: int) -> None:
        self._push(stamped_bytes(number, lsn), _SLOT)
        if self._is_signalled:
            self._notifiers.signal()

    def open_receiver(self) -> None:
        self._pop = self._ring().pop_buffer
        self._bells = self._library.NotifierSet(self._bell)
        self._notifier = self._bells.attach()

    def receive(self, count: int, ledger: Ledger) -> None:
        pop, give, rest, most = self._pop, self._credit.give, self.rest, BATCH * _SLOTS
        begun = self._begun
        while ledger.taken < count:
            slots, taken = pop(most)
            if not taken:
                rest()
                continue
            give(taken)
            if begun:
                slots = begun + slots
            whole = len(slots) // RECORD_BYTES
            if whole:
                ledger.take_records(np.frombuffer(slots, RECORD, whole))
            begun = slots[whole * RECORD_BYTES :]
        self._begun = begun

    def try_one(self) -> One | None:
        pop = self._pop
        slots, taken = pop(_SLOTS)
        if taken == _SLOTS:
            return slots
        if not taken:
            return None
        # Its other slots are being written.
        while taken < _SLOTS:
            more, came = pop(_SLOTS - taken)
            slots, taken = slots + more, taken + came
        return slots

    def wait_one(self) -> One:
        poll, notifier = self.try_one, self._notifier
        while (one := poll()) is None:
            notifier.wait(_PATIENCE_S)
            notifier.drain()
        return one

    def idle(self, seconds: float) -> None:
        self._notifier.wait(seconds)

    def close(self) -> None:
        for left in Path("/dev/shm").glob(f"{self._prefix}-*"):
            left.unlink()
