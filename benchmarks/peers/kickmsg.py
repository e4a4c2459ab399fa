"""``kickmsg``: publish and subscribe over slots in shared memory."""

# ruff: noqa: D102 - what a method does, peer.py says

from __future__ import annotations

import contextlib
import importlib
from itertools import chain, islice, repeat
from typing import Any, Protocol, cast

import numpy as np

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

__all__ = ["Kickmsg"]

_PATIENCE_S = 60.0
_SPARE = 8  # slots that are being written or read


class _Config(Protocol):
    max_subscribers: int
    sub_ring_capacity: int
    pool_size: int
    max_payload_size: int


class _Region(Protocol):
    def unlink(self) -> None: ...


class _Slot(Protocol):
    def publish(self, size: int) -> int: ...


class _View(Protocol):
    def release(self) -> None: ...


class _Publisher(Protocol):
    def send(self, data: bytes) -> int: ...
    def allocate(self) -> _Slot | None: ...


class _Subscriber(Protocol):
    lost: int

    def try_receive(self) -> bytes | None: ...
    def receive(self, timeout: float) -> bytes | None: ...
    def try_receive_view(self) -> _View | None: ...


class _Regions(Protocol):
    def create(self, name: str, kind: object, config: _Config) -> _Region: ...


class _Kickmsg(Protocol):
    SharedRegion: _Regions
    ChannelType: Any

    def Config(self) -> _Config: ...  # noqa: N802
    def Publisher(self, region: _Region) -> _Publisher: ...  # noqa: N802
    def Subscriber(self, region: _Region) -> _Subscriber: ...  # noqa: N802


class Kickmsg(Peer):
    """Events by ``send`` and ``try_receive``; batches written into a slot and copied out of it."""

    title = "kickmsg"
    module = "kickmsg"
    pauses = POLLING
    lap = 4 * CYCLE

    def __init__(self, *, is_batched: bool, pauses: int = 0) -> None:
        super().__init__(is_batched=is_batched, pauses=pauses)
        self._library = cast(_Kickmsg, importlib.import_module("kickmsg"))
        capacity = DEPTH // BATCH if is_batched else DEPTH
        config = self._library.Config()
        config.max_subscribers = 1
        config.sub_ring_capacity = capacity
        # A slot is free again when its place in the ring is written over, not when it was taken.
        config.pool_size = capacity + _SPARE
        config.max_payload_size = RECORD_BYTES * (BATCH if is_batched else 1)
        self._region = self._library.SharedRegion.create(f"/{fresh_name()}", self._library.ChannelType.PubSub, config)
        self._subscriber = self._library.Subscriber(self._region)
        self._credit = Credit(capacity, self.rest)

    def open_sender(self) -> None:
        self._publisher = self._library.Publisher(self._region)
        self._batches = list(ready_records().view(np.uint8).reshape(-1, BATCH * RECORD_BYTES))

    def make_ready(self, first: int, count: int) -> None:
        self._ready = ready_bytes(first, count)

    def send_fields(self, first: int, count: int) -> None:
        send, pack, wait_for_room = self._publisher.send, PACK.pack, self._credit.wait_for_room
        tenant, system, valid, shard, rows, op, source, named, user, digest, old, collection = ALIKE
        events = fields(first, count)
        for _ in range(count // GROUP):
            wait_for_room(GROUP)
            for number, row_id, value in islice(events, GROUP):
                encoded = row_id.encode()
                record = pack(
                    number, number, len(encoded), len(value), tenant, system, valid, shard, rows, op, source,
                    named, user, digest, old, collection, encoded, value,
                )  # fmt: skip
                send(record)

    def send_ready(self) -> None:
        send, wait_for_room = self._publisher.send, self._credit.wait_for_room
        events = iter(self._ready)
        for _ in range(len(self._ready) // GROUP):
            wait_for_room(GROUP)
            for record in islice(events, GROUP):
                send(record)

    def send_batches(self, count: int) -> None:
        allocate, wait_for_room = self._publisher.allocate, self._credit.wait_for_room
        for batch in chain.from_iterable(repeat(self._batches, count // CYCLE)):
            wait_for_room(1)
            slot = allocate()
            if slot is None:
                raise RuntimeError("kickmsg has no free slot, though its receiver keeps up")
            np.copyto(np.asarray(slot), batch)
            slot.publish(batch.nbytes)

    def send_one(self, place: int) -> None:
        self._publisher.send(self._ready[place])

    def send_stamped(self, number: int, lsn: int) -> None:
        self._publisher.send(stamped_bytes(number, lsn))

    def open_receiver(self) -> None:
        """It subscribed before the fork: what is published before a subscription is lost."""

    def receive(self, count: int, ledger: Ledger) -> None:
        if self.is_batched:
            self._receive_batches(count, ledger)
        else:
            self._receive_events(count, ledger)
        check("messages lost", self._subscriber.lost, 0)

    def _receive_events(self, count: int, ledger: Ledger) -> None:
        receive, give, rest = self._subscriber.try_receive, self._credit.give, self.rest
        messages: list[bytes] = []
        while ledger.taken < count:
            message = receive()
            if message is not None:
                messages.append(message)
                if len(messages) < BATCH:
                    continue
            elif not messages:
                rest()
                continue
            ledger.take_records(np.frombuffer(b"".join(messages), RECORD))
            give(len(messages))
            messages.clear()

    def _receive_batches(self, count: int, ledger: Ledger) -> None:
        receive, give, rest = self._subscriber.try_receive_view, self._credit.give, self.rest
        while ledger.taken < count:
            view = receive()
            if view is None:
                rest()
                continue
            records = np.frombuffer(cast(bytes, view), RECORD).copy()
            view.release()
            give(1)
            ledger.take_records(records)

    def try_one(self) -> One | None:
        return self._subscriber.try_receive()

    def wait_one(self) -> One:
        message = self._subscriber.receive(_PATIENCE_S)
        if message is None:
            raise TimeoutError(f"kickmsg: no message within {_PATIENCE_S} s")
        return message

    def idle(self, seconds: float) -> None:
        self._subscriber.receive(seconds)

    def close(self) -> None:
        del self._subscriber
        with contextlib.suppress(FileNotFoundError):
            self._region.unlink()
