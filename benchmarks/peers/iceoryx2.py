"""``iceoryx2``: publish and subscribe over loaned samples, and events that wake."""

# ruff: noqa: D102 - what a method does, peer.py says

from __future__ import annotations

import ctypes
import importlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

from ..records import BATCH, DEPTH, RECORD_BYTES, One
from .peer import fresh_name
from .polled_peer import PolledPeer

__all__ = ["Iceoryx2"]

_PATIENCE_S = 60


class _Event(ctypes.Structure):
    _fields_ = (("record", ctypes.c_uint8 * RECORD_BYTES),)


class _Batch(ctypes.Structure):
    _fields_ = (("records", ctypes.c_uint8 * (RECORD_BYTES * BATCH)),)


class _Loan(Protocol):
    payload_ptr: int

    def assume_init(self) -> _Sendable: ...


class _Sendable(Protocol):
    def send(self) -> int: ...


class _Sample(Protocol):
    payload_ptr: int

    def delete(self) -> None: ...


class _Publisher(Protocol):
    def loan_uninit(self) -> _Loan: ...


class _Subscriber(Protocol):
    def receive(self) -> _Sample | None: ...


class _Notifier(Protocol):
    def notify(self) -> int: ...


class _Listener(Protocol):
    def timed_wait(self, timeout: object) -> list[object]: ...


class Iceoryx2(PolledPeer):
    """Each message is copied into a loaned sample and out of a received one.

    Its sender waits while the receiver's buffer is full. A receiver that sleeps listens to an event, of which the
    sender notifies it after each message; a receiver that only polls has no such event, and its sender pays for none.
    """

    title = "iceoryx2"
    module = "iceoryx2"

    def __init__(self, *, is_batched: bool, pauses: int = 0) -> None:
        super().__init__(is_batched=is_batched, pauses=pauses)
        self._name = fresh_name()
        self._root = tempfile.mkdtemp()
        self._is_notified = False

    def _services(self) -> tuple[Any, Any]:
        """Each process has a node of its own, because a node watches the process that made it."""
        library = self._library = cast(Any, importlib.import_module("iceoryx2"))
        library.set_log_level(library.LogLevel.Error)
        config = library.config.default()
        config.global_cfg.prefix = library.FileName.new(f"{self._name}-")
        config.global_cfg.root_path = library.Path.new(self._root)
        self._node = library.NodeBuilder.new().config(config).create(library.ServiceType.Ipc)
        name = library.ServiceName.new(self._name)
        messages = (
            self._node.service_builder(name)
            .publish_subscribe(_Batch if self.is_batched else _Event)
            .enable_safe_overflow(False)
            .subscriber_max_buffer_size(DEPTH // BATCH if self.is_batched else DEPTH)
            .max_publishers(1)
            .max_subscribers(1)
            .open_or_create()
        )
        return messages, self._node.service_builder(name).event().open_or_create()

    def set_mode(self, mode: str) -> None:
        self._is_notified = mode != "spinning"

    def _putter(self) -> Callable[[bytes], object]:
        messages, event = self._services()
        publisher: _Publisher = messages.publisher_builder().create()
        self._notifier: _Notifier = event.notifier_builder().create()
        loan, copy, size = publisher.loan_uninit, ctypes.memmove, self._message_bytes

        def put(message: bytes) -> None:
            sample = loan()
            copy(sample.payload_ptr, message, size)
            sample.assume_init().send()

        return put

    @property
    def _message_bytes(self) -> int:
        return RECORD_BYTES * (BATCH if self.is_batched else 1)

    def send_one(self, place: int) -> None:
        super().send_one(place)
        if self._is_notified:
            self._notifier.notify()

    def send_stamped(self, number: int, lsn: int) -> None:
        super().send_stamped(number, lsn)
        if self._is_notified:
            self._notifier.notify()

    def _poller(self) -> Callable[[], bytes | None]:
        messages, event = self._services()
        subscriber: _Subscriber = messages.subscriber_builder().create()
        self._listener: _Listener = event.listener_builder().create()
        self._patience = self._library.Duration.from_secs(_PATIENCE_S)
        receive, copy, size = subscriber.receive, ctypes.string_at, self._message_bytes

        def poll() -> bytes | None:
            sample = receive()
            if sample is None:
                return None
            message = copy(sample.payload_ptr, size)
            sample.delete()
            return message

        return poll

    def wait_one(self) -> One:
        poll, wait, patience = self._poll, self._listener.timed_wait, self._patience
        refused = self._library.ListenerWaitError
        while (message := poll()) is None:
            try:
                wait(patience)
            except refused as error:
                # A system call that was interrupted, which Python would repeat by itself.
                if str(error) != "InterruptSignal":
                    raise
        return message

    def idle(self, seconds: float) -> None:
        self._listener.timed_wait(self._library.Duration.from_millis(round(seconds * 1000)))

    def close(self) -> None:
        # Both processes have ended, and with them their nodes; what these left has our prefix.
        for left in Path("/dev/shm").glob(f"{self._name}-*"):
            left.unlink()
        shutil.rmtree(self._root)
