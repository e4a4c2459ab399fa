"""``pyzmq``: PUSH and PULL over a Unix socket."""

# ruff: noqa: D102 - what a method does, peer.py says

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable
from typing import Protocol, cast

import numpy as np

from ..records import BATCH, DEPTH, RECORD, Ledger, One
from .message_peer import MessagePeer

__all__ = ["Pyzmq"]


class _Socket(Protocol):
    sndhwm: int
    rcvhwm: int

    def bind(self, address: str) -> object: ...
    def connect(self, address: str) -> object: ...
    def send(self, data: bytes, flags: int = 0, copy: bool = True) -> object: ...
    def recv(self, flags: int = 0, copy: bool = True) -> bytes: ...
    def poll(self, timeout: int) -> int: ...


class _Context(Protocol):
    def socket(self, kind: int) -> _Socket: ...


class _Zmq(Protocol):
    PUSH: int
    PULL: int
    NOBLOCK: int
    Again: type[Exception]

    def Context(self) -> _Context: ...  # noqa: N802


class Pyzmq(MessagePeer):
    """Batches are sent and received without a copy of Python's, events with one: each is the faster way."""

    title = "pyzmq, ipc"
    module = "zmq"

    def __init__(self, *, is_batched: bool, pauses: int = 0) -> None:
        super().__init__(is_batched=is_batched, pauses=pauses)
        self._directory = tempfile.TemporaryDirectory()
        self._address = f"ipc://{self._directory.name}/way"
        self._high_water = DEPTH // BATCH if is_batched else DEPTH

    def _library(self) -> _Zmq:
        return cast(_Zmq, importlib.import_module("zmq"))

    def _putter(self) -> Callable[[bytes], object]:
        library = self._library()
        # A context has threads, which no fork carries over: each process makes its own.
        self._context = library.Context()
        socket = self._context.socket(library.PUSH)
        socket.sndhwm = self._high_water
        socket.connect(self._address)
        if not self.is_batched:
            return socket.send

        def put(batch: bytes) -> None:
            socket.send(batch, copy=False)

        return put

    def _getter(self) -> Callable[[], bytes]:
        library = self._library()
        self._context = library.Context()
        self._socket = self._context.socket(library.PULL)
        self._socket.rcvhwm = self._high_water
        self._socket.bind(self._address)
        self._nothing, self._at_once = library.Again, library.NOBLOCK
        return self._socket.recv

    def receive(self, count: int, ledger: Ledger) -> None:
        if not self.is_batched:
            super().receive(count, ledger)
            return
        receive = self._socket.recv
        while ledger.taken < count:
            ledger.take_records(np.frombuffer(receive(copy=False), RECORD))

    def try_one(self) -> One | None:
        try:
            return self._socket.recv(self._at_once)
        except self._nothing:
            return None

    def idle(self, seconds: float) -> None:
        self._socket.poll(int(seconds * 1000))

    def close(self) -> None:
        self._directory.cleanup()
