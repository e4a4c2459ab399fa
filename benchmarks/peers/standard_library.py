"""``multiprocessing.Queue`` and ``multiprocessing.Pipe``."""

# ruff: noqa: D102 - what a method does, peer.py says

from __future__ import annotations

import fcntl
import multiprocessing
from collections.abc import Callable

from ..records import BATCH, DEPTH, One
from .message_peer import MessagePeer, QueuePeer

__all__ = ["StandardPipe", "StandardQueue"]

_PIPE_BYTES = 1 << 20


class StandardQueue(QueuePeer["multiprocessing.Queue[bytes]"]):
    """It pickles what it is given, and a thread of its own writes it into a pipe."""

    title = "multiprocessing.Queue"
    has_thread = True

    def __init__(self, *, is_batched: bool, pauses: int = 0) -> None:
        super().__init__(is_batched=is_batched, pauses=pauses)
        capacity = DEPTH // BATCH if is_batched else DEPTH
        self._queue = multiprocessing.get_context("fork").Queue(capacity)

    def close(self) -> None:
        self._queue.close()


class StandardPipe(MessagePeer):
    """``send_bytes`` and ``recv_bytes``; the kernel's buffer as large as it may be."""

    title = "multiprocessing.Pipe"

    def __init__(self, *, is_batched: bool, pauses: int = 0) -> None:
        super().__init__(is_batched=is_batched, pauses=pauses)
        self._out, self._in = multiprocessing.get_context("fork").Pipe(duplex=False)
        fcntl.fcntl(self._in.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def _putter(self) -> Callable[[bytes], object]:
        return self._in.send_bytes

    def _getter(self) -> Callable[[], bytes]:
        return self._out.recv_bytes

    def try_one(self) -> One | None:
        return self._out.recv_bytes() if self._out.poll(0) else None

    def idle(self, seconds: float) -> None:
        self._out.poll(seconds)

    def close(self) -> None:
        self._in.close()
        self._out.close()
