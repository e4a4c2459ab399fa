"""Ours: one ring of an ``EventBus`` between two processes."""

# ruff: noqa: D102 - what a method does, peer.py says

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import chain, repeat

from nodedb_ring import EventBatch, EventBus, WriteEvent, WriteOp

from ..measure import check
from ..records import (
    BATCH,
    COLLECTION,
    CYCLE,
    DEPTH,
    PAYLOAD_BYTES,
    Ledger,
    One,
    fields,
    ready_batches,
    ready_events,
    stamped_event,
)
from .peer import POLLING, Peer, fresh_name

__all__ = ["SharedBus", "SharedBusAsync", "SharedBusFours"]

_PATIENCE_S = 60.0
_FOUR = 4


class SharedBus(Peer):
    """``emit`` of events, ``emit_batch`` of batches, and ``drain`` of up to 1024 into a batch that is the caller's.

    One event for which a receiver waits, as in a round trip, is a `WriteEvent` by ``try_recv`` or ``recv``.
    """

    title = "nodedb_ring"
    pauses = POLLING
    lap = 4 * CYCLE

    def __init__(self, *, is_batched: bool, pauses: int = 0) -> None:
        super().__init__(is_batched=is_batched, pauses=pauses)
        self._bus = EventBus.create(fresh_name(), 1, DEPTH, arena_bytes=DEPTH * PAYLOAD_BYTES)

    def open_sender(self) -> None:
        self._producer = self._bus.producer(0)
        self._batches = ready_batches()

    def make_ready(self, first: int, count: int) -> None:
        self._ready = ready_events(first, count)

    def send_fields(self, first: int, count: int) -> None:
        emit, rest, insert = self._producer.emit, self.rest, WriteOp.INSERT
        for number, row_id, value in fields(first, count):
            event = WriteEvent(
                sequence=number, collection=COLLECTION, op=insert, row_id=row_id, lsn=number, new_value=value
            )
            while not emit(event):
                rest()

    def send_ready(self) -> None:
        emit, rest = self._producer.emit, self.rest
        for event in self._ready:
            while not emit(event):
                rest()

    def send_batches(self, count: int) -> None:
        emit_batch, rest = self._producer.emit_batch, self.rest
        for batch in chain.from_iterable(repeat(self._batches, count // CYCLE)):
            emitted = emit_batch(batch)
            while emitted < BATCH:
                rest()
                emitted += emit_batch(batch[emitted:])

    def send_one(self, place: int) -> None:
        self._producer.emit(self._ready[place])

    def send_stamped(self, number: int, lsn: int) -> None:
        self._producer.emit(stamped_event(number, lsn))

    def open_receiver(self) -> None:
        self._consumer = self._bus.consumer(0)

    def receive(self, count: int, ledger: Ledger) -> None:
        drain, rest = self._consumer.drain, self.rest
        while ledger.taken < count:
            batch = drain(BATCH)
            if not batch:
                rest()
                continue
            ledger.take_batch(batch)

    def try_one(self) -> One | None:
        return self._consumer.try_recv()

    def wait_one(self) -> One:
        event = self._consumer.recv(_PATIENCE_S)
        if event is None:
            raise TimeoutError(f"nodedb_ring: no event within {_PATIENCE_S} s")
        return event

    def taker(self, mode: str) -> Callable[[], One]:
        if mode == "spinning":
            return super().taker(mode)
        if mode == "parked":
            self._consumer.spin = 0.0
        # Otherwise it polls first by itself, for as long as it does by default.
        return self.wait_one

    def idle(self, seconds: float) -> None:
        check("events that nobody sent", len(self._consumer.drain(timeout=seconds)), 0)

    def close(self) -> None:
        self._bus.unlink()
        self._bus.close()


class SharedBusAsync(SharedBus):
    """The same, awaited."""

    title = "nodedb_ring, asyncio"

    def idle(self, seconds: float) -> None:
        check("events that nobody sent", len(asyncio.run(self._consumer.drain_async(timeout=seconds))), 0)


class SharedBusFours(SharedBus):
    """The same single events, but ready in batches of four, each of which is one ``emit_batch``."""

    title = "nodedb_ring, emit_batch of four"

    def make_ready(self, first: int, count: int) -> None:
        events = ready_events(first, count)
        self._fours = [EventBatch.from_events(events[start : start + _FOUR]) for start in range(0, count, _FOUR)]

    def send_ready(self) -> None:
        emit_batch, rest = self._producer.emit_batch, self.rest
        for batch in self._fours:
            emitted = emit_batch(batch)
            while emitted < _FOUR:
                rest()
                emitted += emit_batch(batch[emitted:])
