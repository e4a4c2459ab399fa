"""The lives of a producer and of a consumer that may be killed at any instant.

Each claims its end of a shared bus, keeps a journal of what it does, and runs until it is killed, asked to stop, or
has made the steps it was given.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import dataclasses
import logging
import os
import pickle
import random
import resource
import select
import signal
import time
import traceback
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Final

import numpy as np

from nodedb_ring import EventBatch, EventBus, EventConsumer, EventProducer, Lease

from .journal import Attempt, Journal, Mark
from .numbered import WrongEventError, numbered_events

STYLES: Final = {
    "mixed": 4,
    "lease": 3,
    "hoard": 2,
    "drain": 1,
    "wait": 1,
    "iterate": 1,
    "async": 2,
    "async_iterate": 2,
    "poll": 2,
    "try_recv": 1,
}
"""How a consumer takes, and how many of so many do."""

BATCH: Final = 300
"""Most events of one call: more than ``emit_batch`` publishes at once."""

_LEASES: Final = 6
_PR_SET_PDEATHSIG: Final = 1


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one process does."""

    journal: Path
    most: int
    """Payload bytes of the largest event."""
    seed: int
    steps: int
    """After which it closes its end and leaves; 0 for never."""
    style: str = "mixed"
    handle: str = "given"
    """How it comes by its bus: as it was given, by name, or pickled."""
    has_no_descriptors: bool = False
    """Once it has what its end needs, no further descriptor can be opened."""


def produce(bus: EventBus, plan: Plan) -> None:
    """The life of a producer."""
    with _recorded(plan) as journal, _opened(bus, plan).producer(0) as producer:
        journal.claimed(producer.next_sequence, 0, 0)
        if plan.has_no_descriptors:
            _refuse_descriptors()
        _Producing(producer, journal, plan).run()
    _leave(journal)


def consume(bus: EventBus, plan: Plan) -> None:
    """The life of a consumer."""
    with _recorded(plan) as journal, _opened(bus, plan).consumer(0) as consumer:
        stats = consumer.stats()
        journal.claimed(0, stats.received - stats.held, stats.redelivered)
        life = _Consuming(consumer, journal, plan)
        if plan.style in {"async", "async_iterate"}:
            asyncio.run(life.run_async())
        else:
            life.run()
        life.release_all()
    _leave(journal)


@contextlib.contextmanager
def _recorded(plan: Plan) -> Generator[Journal]:
    """Leaves a traceback in the journal; dies with the parent."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    # Drops and disconnects are what this is about.
    logging.disable(logging.CRITICAL)
    journal = Journal(plan.journal)
    try:
        yield journal
    except BaseException:
        journal.say(traceback.format_exc())
        raise


def _refuse_descriptors() -> None:
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def _leave(journal: Journal) -> None:
    journal[Journal.GONE] = 1


def _opened(bus: EventBus, plan: Plan) -> EventBus:
    if plan.handle == "by name":
        return EventBus.open(bus.name, directory=bus.directory)
    if plan.handle == "pickled":
        copy = pickle.loads(pickle.dumps(bus))
        assert isinstance(copy, EventBus)
        return copy
    return bus


class _Producing:
    def __init__(self, producer: EventProducer, journal: Journal, plan: Plan) -> None:
        self.producer, self.journal, self.plan = producer, journal, plan
        self.events = numbered_events(plan.most)
        self.random = random.Random(plan.seed)
        self.sequence = producer.next_sequence
        self.is_polite = self.random.random() < 0.9

    def run(self) -> None:
        steps = 0
        while not self.journal[Journal.STOP] and (self.plan.steps == 0 or steps < self.plan.steps):
            steps += 1
            self.journal.tick()
            if self.journal.is_full:
                time.sleep(0.001)
            elif self.is_polite and self.is_refused() and self.random.random() < 0.98:
                time.sleep(0.0002)
            else:
                self.step()
            following = self.producer.next_sequence
            if following != self.sequence:
                raise WrongEventError(f"next_sequence {following}: must be {self.sequence}")

    def is_refused(self) -> bool:
        """Whether an event would most likely be dropped."""
        return self.producer.utilization >= 90 or self.producer.is_consumer_disconnected

    def step(self) -> None:
        kind = self.random.randrange(4)
        count = self.random.choice([1, 2, 3, 7, 20, BATCH])
        if self.is_polite:
            count = min(count, self.producer.capacity)
        if kind == 0:
            self.emit(min(count, 20))
        elif kind == 1:
            self.reserve(count)
        else:
            make = self.events.batch if kind == 2 else self.events.scattered
            batch = make(self.sequence, count)
            self.journal.try_events(Attempt.BATCH, self.sequence, count)
            self.journal.tried(self.producer.emit_batch(batch))
            self.sequence += count

    def emit(self, count: int) -> None:
        journal, emit = self.journal, self.producer.emit
        for event in [self.events.event(self.sequence + i) for i in range(count)]:
            journal.try_events(Attempt.EMIT, self.sequence, 1)
            journal.tried(int(emit(event)))
            self.sequence += 1

    def reserve(self, count: int) -> None:
        records, payload = self.events.columns(self.sequence, count)
        while len(payload) > self.producer.ring.arena_bytes:
            count = (count + 1) // 2
            records, payload = self.events.columns(self.sequence, count)
        with self.producer.reserve(count, len(payload)) as rows:
            got = len(rows)
            if got:
                rows.records[:] = records[:got]
                rows.payload[:] = payload
                self.journal.try_events(Attempt.RESERVE, self.sequence, got)
        if got:
            self.journal.tried(int(rows.published))
            self.sequence += got


class _Consuming:
    def __init__(self, consumer: EventConsumer, journal: Journal, plan: Plan) -> None:
        self.consumer, self.journal, self.plan = consumer, journal, plan
        self.events = numbered_events(plan.most)
        self.random = random.Random(plan.seed)
        self.leases: dict[int, Lease] = {}
        self.last_lease = 0
        self.steps = 0
        self.is_disconnected = False

    def run(self) -> None:
        poll = select.poll()
        if self.plan.style == "poll":
            poll.register(self.consumer.fileno(), select.POLLIN)
        if self.plan.has_no_descriptors:
            _refuse_descriptors()
        while self.goes_on():
            if self.plan.style == "poll":
                poll.poll()
                while self.took(self.drain()):
                    self.journal.tick()
                came = 0
            else:
                came = self.step()
            if not came and self.ends():
                return

    async def run_async(self) -> None:
        iterator: AsyncIterator[EventBatch] = aiter(self.consumer)
        while self.goes_on():
            if self.plan.style == "async":
                most = self.random.choice([1, 5, 1024])
                self.journal.mark(Mark.TAKE, most)
                batch = await self.consumer.drain_async(most, timeout=self.random.choice([0.02, None]))
            else:
                self.journal.mark(Mark.TAKE, 1024)
                try:
                    batch = await anext(iterator)
                except StopAsyncIteration:
                    batch = EventBatch.from_events([])
            if not self.took(batch) and self.ends():
                return

    def goes_on(self) -> bool:
        self.journal.tick()
        self.steps += 1
        while self.journal.is_full:
            time.sleep(0.001)
            if self.journal[Journal.STOP]:
                raise WrongEventError("the journal is too short for what it has to hold")
        return self.plan.steps == 0 or self.steps <= self.plan.steps

    def ends(self) -> bool:
        """Nothing came: whether the life is over. Rests if the producer has gone."""
        has_stopped = bool(self.journal[Journal.STOP])
        is_disconnected = self.consumer.is_producer_disconnected
        if is_disconnected and not self.is_disconnected:
            self.journal[Journal.CLOSED] += 1
        self.is_disconnected = is_disconnected
        if is_disconnected:
            if has_stopped:
                return True
            time.sleep(0.0005)
        elif self.leases:
            self.release(self.random.choice(list(self.leases)))
        elif self.plan.style not in {"wait", "iterate", "async", "async_iterate", "poll"}:
            time.sleep(0.0001)
        return False

    def step(self) -> int:
        style = self.plan.style
        draw = self.random.random()
        if style == "mixed":
            style = self.random.choice(["lease", "lease", "release", "drain", "wait", "try_recv"])
        if style in {"lease", "hoard"}:
            if len(self.leases) < _LEASES and (style == "hoard" or draw < 0.6):
                return self.lease()
            style = "release"
        if style == "release" and self.leases:
            self.release(self.random.choice(list(self.leases)))
            return 1
        if style == "iterate":
            self.journal.mark(Mark.TAKE, 1024)
            return self.took(next(iter(self.consumer), EventBatch.from_events([])))
        if style == "wait":
            # What is leased may be all that the producer waits for.
            timeout = 0.005 if self.leases else self.random.choice([0.005, None])
            return self.took(self.drain(timeout))
        if style == "try_recv":
            return self.receive()
        return self.took(self.drain())

    def drain(self, timeout: float | None = 0.0) -> EventBatch:
        most = self.random.choice([1, 3, 20, 1024])
        self.journal.mark(Mark.TAKE, most)
        return self.consumer.drain(most, timeout)

    def took(self, batch: EventBatch) -> int:
        if len(batch):
            self.journal.got(0, batch.sequence)
            self.events.check(batch)
            self.journal[Journal.CHECKED] += len(batch)
        return len(batch)

    def receive(self) -> int:
        self.journal.mark(Mark.TAKE, 1)
        event = self.consumer.try_recv()
        if event is None:
            return 0
        self.journal.got(0, np.array([event.sequence], np.uint64))
        if event != self.events.event(event.sequence):
            raise WrongEventError(f"{event}: must be {self.events.event(event.sequence)}")
        self.journal[Journal.CHECKED] += 1
        return 1

    def lease(self) -> int:
        most = self.random.choice([1, 2, 5, 20, 100])
        self.journal.mark(Mark.LEASE, most)
        lease = self.consumer.lease(most)
        count = len(lease.batch)
        if count == 0:
            lease.release()
            return 0
        self.last_lease += 1
        self.journal.got(self.last_lease, lease.batch.sequence)
        self.events.check(lease.batch)
        self.journal[Journal.CHECKED] += count
        self.leases[self.last_lease] = lease
        return count

    def release(self, number: int) -> None:
        lease = self.leases.pop(number)
        self.events.check(lease.batch)
        self.journal.mark(Mark.RELEASING, number)
        lease.release()
        self.journal.mark(Mark.RELEASED, number)

    def release_all(self) -> None:
        for number in list(self.leases):
            self.release(number)
