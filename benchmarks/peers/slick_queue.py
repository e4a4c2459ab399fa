"""``slick-queue-py``: a queue in shared memory whose reader has a cursor of its own."""

# ruff: noqa: D102 - what a method does, peer.py says

from __future__ import annotations

import importlib
from collections.abc import Callable
from itertools import chain, islice, repeat
from typing import Protocol, cast

from ..measure import check
from ..records import BATCH, CYCLE, DEPTH, RECORD_BYTES, Ledger, fields, packed
from .credit import GROUP, Credit
from .peer import fresh_name
from .polled_peer import PolledPeer

__all__ = ["SlickQueue"]


class _Queue(Protocol):
    def reserve(self, n: int = 1) -> int: ...
    def publish(self, index: int, n: int = 1) -> None: ...
    def __getitem__(self, index: int) -> memoryview: ...
    def read(self, read_index: int) -> tuple[bytes | None, int, int]: ...
    def loss_count(self) -> int: ...
    def close(self) -> None: ...
    def unlink(self) -> None: ...


class _Traits(Protocol):
    enable_read_last: bool


class _SlickQueue(Protocol):
    QueueTraits: type[_Traits]

    def SlickQueue(  # noqa: N802
        self, *, name: str, size: int, element_size: int, traits: type[_Traits]
    ) -> _Queue: ...


class SlickQueue(PolledPeer):
    """A message is copied into a reserved element and published; a batch is one large element. It cannot sleep.

    It does not keep track of the last element for ``read_last``, which costs a compare-and-swap of each ``publish``.
    """

    title = "slick-queue-py"
    module = "slick_queue_py"
    lap = 4 * CYCLE
    can_wait = False

    def __init__(self, *, is_batched: bool, pauses: int = 0) -> None:
        super().__init__(is_batched=is_batched, pauses=pauses)
        library = cast(_SlickQueue, importlib.import_module("slick_queue_py"))
        capacity = DEPTH // BATCH if is_batched else DEPTH
        self._queue = library.SlickQueue(
            name=fresh_name(),
            size=capacity,
            element_size=RECORD_BYTES * (BATCH if is_batched else 1),
            traits=type("_WithoutLast", (library.QueueTraits,), {"enable_read_last": False}),
        )
        self._credit = Credit(capacity, self.rest)

    def _putter(self) -> Callable[[bytes], object]:
        queue = self._queue
        reserve, publish = queue.reserve, queue.publish

        def put(message: bytes) -> None:
            index = reserve()
            queue[index][:] = message
            publish(index)

        return put

    def send_fields(self, first: int, count: int) -> None:
        put, wait_for_room = self._put, self._credit.wait_for_room
        events = fields(first, count)
        for _ in range(count // GROUP):
            wait_for_room(GROUP)
            for number, row_id, value in islice(events, GROUP):
                put(packed(number, row_id, value))

    def send_ready(self) -> None:
        put, wait_for_room = self._put, self._credit.wait_for_room
        events = iter(self._ready)
        for _ in range(len(self._ready) // GROUP):
            wait_for_room(GROUP)
            for record in islice(events, GROUP):
                put(record)

    def send_batches(self, count: int) -> None:
        put, wait_for_room = self._put, self._credit.wait_for_room
        for batch in chain.from_iterable(repeat(self._batches, count // CYCLE)):
            wait_for_room(1)
            put(batch)

    def _poller(self) -> Callable[[], bytes | None]:
        read, place = self._queue.read, 0

        def poll() -> bytes | None:
            nonlocal place
            message, _, place = read(place)
            return message

        return poll

    def _has_taken(self, count: int) -> None:
        self._credit.give(count)

    def receive(self, count: int, ledger: Ledger) -> None:
        super().receive(count, ledger)
        check("elements lost", self._queue.loss_count(), 0)

    def close(self) -> None:
        self._queue.close()
        self._queue.unlink()
