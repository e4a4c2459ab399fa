"""``tachyon-ipc``: a ring of messages between one sender and one receiver, who sleeps on a futex."""

# ruff: noqa: D102 - what a method does, peer.py says

from __future__ import annotations

import contextlib
import importlib
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import chain, repeat
from pathlib import Path
from types import FrameType
from typing import Final, Protocol, cast

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
from .peer import WAITING, Peer

__all__ = ["Tachyon"]

_PATIENCE_S = 60.0
_NEVER_SLEEP = 2**32 - 1
_SPINS = {"spinning": _NEVER_SLEEP, "hybrid": 10_000, "parked": 0}
"""How often it looks before it sleeps; by default 10,000 times."""

_PART: Final = BATCH // 4
"""Events in a message of a batch. Its receiver gives room back once it has taken 32 messages, so a ring that holds
fewer, like one of 16 whole batches, stops for good when it is full."""


class _Batch(contextlib.AbstractContextManager["_Batch"], Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> memoryview: ...


class _Bus(Protocol):
    def set_polling_mode(self, pure_spin: int) -> None: ...
    def send(self, data: bytes) -> None: ...
    def drain_batch(self, max_msgs: int, spin_threshold: int) -> _Batch: ...


class _Buses(Protocol):
    def listen(self, socket_path: str, capacity: int) -> _Bus: ...
    def connect(self, socket_path: str) -> _Bus: ...


class _Tachyon(Protocol):
    Bus: _Buses
    TachyonError: type[Exception]


class Tachyon(Peer):
    """``send`` and ``drain_batch``, which waits itself.

    A message takes 64 bytes more than its own, so as many bytes as those of the others hold fewer messages. A batch is
    four of them.
    """

    title = "tachyon-ipc"
    module = "tachyon"
    to_install = "pip compiles it with GCC 14 or Clang 17"
    pauses = WAITING
    lap = 4 * CYCLE

    def __init__(self, *, is_batched: bool, pauses: int = 0) -> None:
        super().__init__(is_batched=is_batched, pauses=pauses)
        self._library = cast(_Tachyon, importlib.import_module("tachyon"))
        self._directory = tempfile.TemporaryDirectory()
        self._socket = Path(self._directory.name, "way")
        self._spins = _NEVER_SLEEP

    @classmethod
    def has(cls, mode: str) -> bool:
        return mode in _SPINS

    def set_mode(self, mode: str) -> None:
        self._spins = _SPINS[mode]
        # Its sender need not look whether the receiver sleeps.
        self._bus.set_polling_mode(int(mode == "spinning"))

    def open_sender(self) -> None:
        end = time.monotonic() + _PATIENCE_S
        while True:
            try:
                self._bus = self._library.Bus.connect(str(self._socket))
                break
            except ConnectionError:
                # The receiver, which makes the ring, does not listen yet.
                if time.monotonic() > end:
                    raise
                time.sleep(0.001)
        self._bus.set_polling_mode(1)
        self._batches = [records.tobytes() for records in ready_records().reshape(-1, _PART)]

    def make_ready(self, first: int, count: int) -> None:
        self._ready = ready_bytes(first, count)

    def _send(self, message: bytes) -> None:
        """Sends when there is room."""
        send, full, rest = self._bus.send, self._library.TachyonError, self.rest
        while True:
            try:
                return send(message)
            except full:
                rest()

    def send_fields(self, first: int, count: int) -> None:
        send, pack, full, send_later = self._bus.send, PACK.pack, self._library.TachyonError, self._send
        tenant, system, valid, shard, rows, op, source, named, user, digest, old, collection = ALIKE
        for number, row_id, value in fields(first, count):
            encoded = row_id.encode()
            record = pack(
                number, number, len(encoded), len(value), tenant, system, valid, shard, rows, op, source,
                named, user, digest, old, collection, encoded, value,
            )  # fmt: skip
            try:
                send(record)
            except full:
                send_later(record)

    def send_ready(self) -> None:
        send, full, send_later = self._bus.send, self._library.TachyonError, self._send
        for record in self._ready:
            try:
                send(record)
            except full:
                send_later(record)

    def send_batches(self, count: int) -> None:
        send = self._send
        for batch in chain.from_iterable(repeat(self._batches, count // CYCLE)):
            send(batch)

    def send_one(self, place: int) -> None:
        self._bus.send(self._ready[place])

    def send_stamped(self, number: int, lsn: int) -> None:
        # It holds fewer messages than the others.
        self._send(stamped_bytes(number, lsn))

    def open_receiver(self) -> None:
        self._bus = self._library.Bus.listen(str(self._socket), DEPTH * RECORD_BYTES)
        self._bus.set_polling_mode(1)

    def receive(self, count: int, ledger: Ledger) -> None:
        drain, spins, most = self._bus.drain_batch, self._spins, BATCH
        if self.is_batched:
            most = BATCH // _PART
        while ledger.taken < count:
            with drain(most, spins) as messages:
                joined = b"".join(cast(Sequence[memoryview], messages))
            ledger.take_records(np.frombuffer(joined, RECORD))

    def taker(self, mode: str) -> Callable[[], One]:
        drain, spins = self._bus.drain_batch, _SPINS[mode]

        def take() -> bytes:
            with drain(1, spins) as messages:
                return bytes(messages[0])

        return take

    def idle(self, seconds: float) -> None:
        # Its wait has no end of its own, but a signal handler may raise. It looks for a signal only when one ends its
        # sleep, so there must be more than one.
        def over(_number: int, _frame: FrameType | None) -> None:
            raise TimeoutError

        self._bus.set_polling_mode(0)
        signal.signal(signal.SIGALRM, over)
        signal.setitimer(signal.ITIMER_REAL, seconds, 0.1)
        try:
            with contextlib.suppress(TimeoutError):
                self._bus.drain_batch(1, _SPINS["hybrid"])
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def close(self) -> None:
        self._directory.cleanup()
