"""Leases that end, and batches, slices and arrays of them that are dropped, on other threads than the consumer's."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest

from nodedb_ring import (
    ClosedError,
    EventBatch,
    EventBus,
    EventConsumer,
    EventProducer,
    Lease,
    WriteEvent,
    WriteOp,
    create_event_bus,
)
from tests.unit.runners import Running

from . import watchdog
from .contention import Contest, rounds
from .journal import memory_directory

SLOTS: Final = 8
TOGETHER: Final = 10
SIZE: Final = 64
"""Bytes of payload an event: all of the arena in a full ring."""


def event(sequence: int) -> WriteEvent:
    """Every field of it follows from its number."""
    letter = chr(ord("a") + sequence % 26)
    return WriteEvent(
        sequence=sequence,
        collection=letter * 8,
        op=WriteOp.INSERT,
        row_id=f"{sequence:08d}",
        lsn=sequence * 7919,
        new_value=letter.encode() * (SIZE - 16),
    )


class Held:
    """A full ring, of which a lease has a part, and what others have of that lease.

    A lease is of one run of rows, and rows come back in any order: in the end some are of one row.
    """

    def __init__(self, producer: EventProducer, consumer: EventConsumer) -> None:
        self.producer, self.consumer = producer, consumer
        self.first = first = producer.next_sequence
        producer.bind()
        consumer.bind()
        for sequence in range(first, first + SLOTS):
            assert producer.emit(event(sequence))
        self.lease: Lease | None = consumer.lease(SLOTS // 2)
        batch = self.lease.batch
        self.count = len(batch)
        assert 1 <= self.count <= SLOTS // 2
        self.batch: EventBatch | None = batch
        self.slices: list[EventBatch] = [batch[:2], batch[1:], batch[:]]
        self.arrays: list[npt.NDArray[Any]] = [batch[:2].records, batch[:].payload, batch[:1].lsn]

    def end(self) -> None:
        lease, self.lease = self.lease, None
        assert lease is not None
        # An array is still there, or was.
        with contextlib.suppress(BufferError):
            lease.release()

    def end_by_exception(self) -> None:
        lease, self.lease = self.lease, None
        assert lease is not None
        lease.__exit__(KeyError, KeyError(), None)

    def drop(self) -> None:
        self.lease = None

    def drop_batch(self) -> None:
        self.batch = None

    def drop_slices(self) -> None:
        self.slices.clear()

    def drop_arrays(self) -> None:
        while self.arrays:
            self.arrays.pop()

    def go_on(self) -> None:
        """What the consumer does meanwhile: another lease, which ends, and a drain."""
        self.consumer.bind()
        with self.consumer.lease(1) as batch:
            assert [each.sequence for each in batch] == [self.first + self.count]
        assert [each.sequence for each in self.consumer.drain(1)] == [self.first + self.count + 1]

    def settle(self) -> None:
        """Without the GIL, what is dropped on another thread than its maker's dies when that one runs, or here.

        A collection frees one link of the chain from an array to the block; there are six.
        """
        for _ in range(10):
            if self.consumer.stats().held == 0:
                break
            gc.collect()

    def check(self) -> None:
        """All rows went back, and once."""
        self.settle()
        assert self.consumer.stats().held == 0, "the rows of a lease never went back"
        stats = self.producer.stats()
        assert stats.slots_in_use == SLOTS - self.count - 2
        self.consumer.bind()
        numbers = [each.sequence for each in self.consumer.drain()]
        assert numbers == list(range(self.first + self.count + 2, self.first + SLOTS))
        stats = self.producer.stats()
        assert (stats.slots_in_use, stats.bytes_in_use) == (0, 0), "rows of a lease went back twice, or in disorder"


ENDINGS: Final[dict[str, Callable[[Held], None]]] = {
    "end": Held.end,
    "end_by_exception": Held.end_by_exception,
    "drop": Held.drop,
}


Ends = list[tuple[EventProducer, EventConsumer]]


@pytest.fixture(params=["private", "shared"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    """As many rings as there are rounds at once."""
    if request.param == "private":
        producers, consumers = create_event_bus(TOGETHER, SLOTS, arena_bytes=SLOTS * SIZE)
        yield list(zip(producers, consumers, strict=True))
        return
    with (
        memory_directory() as directory,
        EventBus.create("leases", TOGETHER, SLOTS, arena_bytes=SLOTS * SIZE, directory=directory) as bus,
    ):
        yield [(bus.producer(core_id), bus.consumer(core_id)) for core_id in range(TOGETHER)]


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_rows_of_a_lease_go_back_once(ends: Ends, ending: str) -> None:
    """It ends, and its batch, slices and arrays are dropped, each on another thread, while the consumer goes on."""

    def check(held: Held, results: list[Any]) -> None:
        assert results == [None] * len(results)
        held.check()

    contest = Contest(
        [ENDINGS[ending], Held.drop_batch, Held.drop_slices, Held.drop_arrays, Held.go_on],
        prepare=lambda number: Held(*ends[number % TOGETHER]),
        check=check,
        spread=100,
        together=TOGETHER,
    )
    contest.run(rounds(1000))


def leased(batch: EventBatch, first: int) -> list[WriteEvent]:
    """What it holds, for as long as its lease has not ended."""
    return [event(first + i) for i in range(len(batch))]


def read_event(batch: EventBatch, first: int) -> None:
    assert batch[len(batch) - 1] == leased(batch, first)[-1]


def read_strings(batch: EventBatch, first: int) -> None:
    assert list(batch.strings("collection")) == [each.collection for each in leased(batch, first)]


def read_values(batch: EventBatch, first: int) -> None:
    assert list(batch.values("new_value")) == [each.new_value for each in leased(batch, first)]


def read_records(batch: EventBatch, first: int) -> None:
    """An array of a lease that ends keeps its rows from being written again: what it shows stays right."""
    records = batch[:].records
    for _ in range(3):
        assert records["sequence"].tolist() == [each.sequence for each in leased(batch, first)]
        assert records["lsn"].tolist() == [each.lsn for each in leased(batch, first)]


def read_columns(batch: EventBatch, first: int) -> None:
    assert batch.sequence.tolist() == [each.sequence for each in leased(batch, first)]
    assert batch.gaps().tolist() == []


def read_slice(batch: EventBatch, first: int) -> None:
    part = batch[len(batch) - 1 :]
    assert part[0] == leased(batch, first)[-1]


def read_copy(batch: EventBatch, first: int) -> None:
    assert list(batch[np.arange(len(batch))]) == leased(batch, first)


def read_all(batch: EventBatch, first: int) -> None:
    assert list(EventBatch.concat([batch])) == leased(batch, first)


def read_tables(batch: EventBatch, first: int) -> None:
    assert list(batch.split()) == [each.collection for each in leased(batch, first)]


def emit_to_another(batch: EventBatch, first: int) -> None:
    [producer], [consumer] = create_event_bus(1, SLOTS, arena_bytes=SLOTS * SIZE)
    assert producer.emit_batch(batch) == len(batch)
    assert list(consumer.drain()) == leased(batch, first)


READS: Final[dict[str, Callable[[EventBatch, int], None]]] = {
    "event": read_event,
    "strings": read_strings,
    "values": read_values,
    "records": read_records,
    "columns": read_columns,
    "slice": read_slice,
    "copy": read_copy,
    "concat": read_all,
    "split": read_tables,
    "emit_batch": emit_to_another,
}


class Read(Held):
    """A lease that is read by several threads, while one ends it and has its rows written again."""

    def __init__(self, producer: EventProducer, consumer: EventConsumer) -> None:
        super().__init__(producer, consumer)
        self.slices.clear()
        self.arrays.clear()

    def read(self, read: Callable[[EventBatch, int], None]) -> None:
        batch = self.batch
        assert batch is not None
        while True:
            try:
                read(batch, self.first)
            except ClosedError:
                return

    def end_and_write(self) -> None:
        self.end()
        self.producer.bind()
        # As many as go in: at once where no array keeps the rows.
        while self.producer.emit(event(self.producer.next_sequence)):
            pass

    def check(self) -> None:
        self.batch = None
        self.settle()
        self.consumer.bind()
        while len(self.consumer.drain()):
            pass
        stats = self.producer.stats()
        assert (self.consumer.stats().held, stats.slots_in_use, stats.bytes_in_use) == (0, 0, 0)


@pytest.mark.parametrize("read", READS)
def test_a_lease_that_ends_is_read_right_or_not_at_all(ends: Ends, read: str) -> None:
    """Its rows are written again as soon as they are back, so a read that went on would show others."""

    def check(held: Read, results: list[Any]) -> None:
        assert results == [None] * len(results), results
        held.check()

    contest: Contest[Read] = Contest(
        [Read.end_and_write, *[lambda held: held.read(READS[read])] * 2],
        prepare=lambda number: Read(*ends[number % TOGETHER]),
        check=check,
        spread=1000,
        together=TOGETHER,
    )
    contest.run(rounds(1000, with_gil=50))


@pytest.mark.parametrize("kept", ["lease", "array"])
def test_rows_that_are_dropped_elsewhere_go_back_while_the_consumer_sleeps(kept: str) -> None:
    """The consumer's thread made what another one drops, and waits for an event that needs those rows."""
    [producer], [consumer] = create_event_bus(1, SLOTS, arena_bytes=SLOTS * SIZE)
    for sequence in range(1, SLOTS + 1):
        assert producer.emit(event(sequence))
    handed: list[Any] = []

    def consume() -> list[int]:
        lease = consumer.lease(SLOTS)
        if kept == "lease":
            handed.append(lease)
        else:
            handed.append(lease.batch[:].records)
            with contextlib.suppress(BufferError):
                lease.release()
        del lease
        asleep.set()
        return [each.sequence for each in consumer.drain(timeout=None)]

    asleep = threading.Event()
    running = Running(consume)
    asleep.wait()
    running.until_asleep()
    assert not producer.emit(event(SLOTS + 1))
    handed.clear()
    deadline = time.monotonic() + watchdog.PATIENCE
    while not producer.emit(event(SLOTS + 2)):
        if time.monotonic() > deadline:
            producer.close()
            pytest.fail("the rows never went back")
    assert running.result() == [SLOTS + 2]
