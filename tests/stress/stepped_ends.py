"""Both ends of a small ring in a process that is stepped, with journals of what they did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from nodedb_ring import EVENT_DTYPE, EventBatch, EventBus, Lease, WriteEvent

from .journal import Attempt, Journal, Mark
from .numbered import numbered_events
from .stepping import NativeRun, Stepping

T = TypeVar("T")


EVENTS: Final = numbered_events(20)


def _plain(call: Callable[..., T], *arguments: object) -> T:
    return call(*arguments)


class Ends:
    """Both ends of one ring in this process, each with its journal. ``call`` makes the calls to step through."""

    def __init__(self, bus: EventBus, directory: Path, which: str, native: Stepping) -> None:
        self.emitted_in = Journal(directory / f"{which}.producer")
        self.taken_in = Journal(directory / f"{which}.consumer")
        self.native = native
        self.call: Callable[..., object] = _plain
        self.events = EVENTS
        self.producer = bus.producer(0)
        self.sequence = self.producer.next_sequence
        self.emitted_in.claimed(self.sequence, 0, 0)
        self.consumer = bus.consumer(0)
        stats = self.consumer.stats()
        self.taken_in.claimed(0, stats.received - stats.held, stats.redelivered)
        self.leases: dict[int, Lease | NativeRun] = {}
        self.last_lease = 0

    # ---- the producer's calls

    def _tried(self, how: Attempt, count: int, call: Callable[[], object]) -> int:
        self.emitted_in.try_events(how, self.sequence, count)
        enqueued = call()
        assert isinstance(enqueued, int)
        self.emitted_in.tried(int(enqueued))
        self.sequence += count
        return int(enqueued)

    def emit(self) -> bool:
        event = self.events.event(self.sequence)
        return bool(self._tried(Attempt.EMIT, 1, lambda: self.call(self.producer.emit, event)))

    def emit_batch(self, count: int) -> int:
        batch = self.events.batch(self.sequence, count)
        return self._tried(Attempt.BATCH, count, lambda: self.call(self.producer.emit_batch, batch))

    def emit_scattered(self, count: int) -> int:
        batch = self.events.scattered(self.sequence, count)
        return self._tried(Attempt.BATCH, count, lambda: self.call(self.producer.emit_batch, batch))

    def reserve(self, count: int) -> int:
        records, payload = self.events.columns(self.sequence, count)
        rows = self.producer.reserve(count, len(payload))
        rows.__enter__()
        assert len(rows) == count
        rows.records[:] = records
        rows.payload[:] = payload

        def leave() -> int:
            self.call(rows.__exit__, None, None, None)
            return int(rows.published)

        return self._tried(Attempt.RESERVE, count, leave)

    def push(self) -> int:
        records, payload = self.events.columns(self.sequence, 1)
        row, room = records.view(np.uint8), np.append(payload, np.uint8(0))
        return self._tried(
            Attempt.EMIT, 1, lambda: int(self.native.push(self.producer.ring, row, room[: max(1, len(payload))]))
        )

    def push_rows(self, count: int) -> int:
        records, payload = self.events.columns(self.sequence, count)
        rows = records.view(np.uint8)
        return self._tried(Attempt.BATCH, count, lambda: self.native.push_rows(self.producer.ring, rows, payload))

    # ---- the consumer's calls

    def _took(self, lease: int, batch: EventBatch) -> int:
        if len(batch):
            self.taken_in.got(lease, batch.sequence)
            self.events.check(batch)
            self.taken_in[Journal.CHECKED] += len(batch)
        return len(batch)

    def drain(self, most: int) -> int:
        self.taken_in.mark(Mark.TAKE, most)
        batch = self.call(self.consumer.drain, most)
        assert isinstance(batch, EventBatch)
        return self._took(0, batch)

    def try_recv(self) -> int:
        self.taken_in.mark(Mark.TAKE, 1)
        event = self.call(self.consumer.try_recv)
        return self._took(0, EventBatch.from_events([event] if isinstance(event, WriteEvent) else []))

    def pop(self) -> int:
        row, payload = np.zeros(EVENT_DTYPE.itemsize, np.uint8), np.zeros(self.consumer.ring.arena_bytes, np.uint8)
        self.taken_in.mark(Mark.TAKE, 1)
        count = self.native.pop(self.consumer.ring, row, payload)
        return self._took(0, EventBatch(row.view(EVENT_DTYPE)[:count], payload))

    def lease(self, most: int) -> int:
        self.taken_in.mark(Mark.LEASE, most)
        lease = self.call(self.consumer.lease, most)
        assert isinstance(lease, Lease)
        if not len(lease.batch):
            lease.release()
            return 0
        self.last_lease += 1
        self.leases[self.last_lease] = lease
        return self._took(self.last_lease, lease.batch)

    def release(self, number: int) -> None:
        lease = self.leases.pop(number)
        assert isinstance(lease, Lease)
        self.events.check(lease.batch)
        self.taken_in.mark(Mark.RELEASING, number)
        self.call(lease.release)
        self.taken_in.mark(Mark.RELEASED, number)

    def take(self, most: int, stops: bool = False) -> None:
        """A lease as native code takes it."""
        run = self.native.Run(self.consumer.ring)
        self.taken_in.mark(Mark.LEASE, most)
        count = run.take(most, stops)
        rows = np.zeros(count * EVENT_DTYPE.itemsize, np.uint8)
        run.read(rows)
        self.last_lease += 1
        self.leases[self.last_lease] = run
        self.taken_in.got(self.last_lease, rows.view(EVENT_DTYPE)["sequence"].copy())

    def give_back(self, number: int) -> None:
        """Ends it."""
        run = self.leases.pop(number)
        assert not isinstance(run, Lease)
        self.taken_in.mark(Mark.RELEASING, number)
        run.release()
        self.taken_in.mark(Mark.RELEASED, number)

    def close(self) -> None:
        self.producer.close()
        self.consumer.close()
