"""Peers that carry one bytes object after another, and wait in their own calls."""

# ruff: noqa: D102 - what a method does, peer.py says

from __future__ import annotations

import abc
import queue
from collections.abc import Callable
from itertools import chain, islice, repeat
from typing import ClassVar, Generic, Protocol, TypeVar

import numpy as np

from ..records import (
    ALIKE,
    BATCH,
    CYCLE,
    PACK,
    RECORD,
    Ledger,
    One,
    fields,
    ready_bytes,
    ready_records,
    stamped_bytes,
)
from .peer import WAITING, Peer

__all__ = ["MessagePeer", "QueuePeer"]


class _Queue(Protocol):
    @property
    def put(self) -> Callable[[bytes], object]: ...
    @property
    def get(self) -> Callable[..., bytes]: ...
    @property
    def get_nowait(self) -> Callable[[], bytes]: ...


Q = TypeVar("Q", bound=_Queue)


class MessagePeer(Peer):
    """An event is a message of 256 bytes; a batch is one of 256 KiB."""

    pauses: ClassVar[tuple[int, ...]] = WAITING

    @abc.abstractmethod
    def _putter(self) -> Callable[[bytes], object]:
        """What sends one message, in the process that sends."""

    @abc.abstractmethod
    def _getter(self) -> Callable[[], bytes]:
        """What takes one message, in the process that receives."""

    def open_sender(self) -> None:
        self._put = self._putter()
        self._batches = [records.tobytes() for records in ready_records().reshape(-1, BATCH)]

    def make_ready(self, first: int, count: int) -> None:
        self._ready = ready_bytes(first, count)

    def send_fields(self, first: int, count: int) -> None:
        put, pack = self._put, PACK.pack
        tenant, system, valid, shard, rows, op, source, named, user, digest, old, collection = ALIKE
        for number, row_id, value in fields(first, count):
            encoded = row_id.encode()
            record = pack(
                number, number, len(encoded), len(value), tenant, system, valid, shard, rows, op, source,
                named, user, digest, old, collection, encoded, value,
            )  # fmt: skip
            put(record)

    def send_ready(self) -> None:
        put = self._put
        for record in self._ready:
            put(record)

    def send_batches(self, count: int) -> None:
        put = self._put
        for batch in chain.from_iterable(repeat(self._batches, count // CYCLE)):
            put(batch)

    def send_one(self, place: int) -> None:
        self._put(self._ready[place])

    def send_stamped(self, number: int, lsn: int) -> None:
        self._put(stamped_bytes(number, lsn))

    def open_receiver(self) -> None:
        self._get = self._getter()

    def receive(self, count: int, ledger: Ledger) -> None:
        messages = iter(self._get, None)
        while ledger.taken < count:
            # A message that nobody else has is memory of the receiver's own; so is what several are joined into.
            taken = next(messages) if self.is_batched else b"".join(islice(messages, BATCH))
            ledger.take_records(np.frombuffer(taken, RECORD))

    def wait_one(self) -> One:
        return self._get()


class QueuePeer(MessagePeer, Generic[Q]):
    """A peer with the methods of ``queue.Queue``."""

    _queue: Q

    def _putter(self) -> Callable[[bytes], object]:
        return self._queue.put

    def _getter(self) -> Callable[[], bytes]:
        return self._queue.get

    def try_one(self) -> One | None:
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    def idle(self, seconds: float) -> None:
        try:
            self._queue.get(timeout=seconds)
        except queue.Empty:
            return
