"""One batch read by many threads at once, and batches that are dropped on other threads than the one that drains."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any, Final

import msgpack
import numpy as np
import pytest

from nodedb_ring import (
    EventBatch,
    EventConsumer,
    EventProducer,
    Rows,
    RowSchema,
    WriteEvent,
    WriteOp,
    create_event_bus,
    encode_rows,
)

from .contention import Contest, rounds

EVENTS: Final = 60


def event(sequence: int) -> WriteEvent:
    """With a row in it, and old values here and there."""
    row: dict[str, Any] = {"id": sequence, "price": sequence / 4, "name": f"n{sequence % 7}"}
    if sequence % 5 == 0:
        row["late"] = [sequence]
    return WriteEvent(
        sequence=sequence,
        collection=f"table{sequence // 10 % 2}",
        op=WriteOp(1 + sequence % 3),
        row_id=f"{sequence}",
        lsn=sequence * 3,
        new_value=msgpack.packb(row),
        old_value=None if sequence % 3 else b"\x81\xa2id\x01",
        user_id=None if sequence % 2 else "ü",
    )


def drained(first: int) -> EventBatch:
    """A batch as a consumer makes it, of which nobody has read anything yet."""
    [producer], [consumer] = create_event_bus(1, 64)
    for sequence in range(first, first + EVENTS):
        assert producer.emit(event(sequence))
    return consumer.drain()


def columns_of(rows: Rows) -> dict[str, list[Any]]:
    return {name: rows[name].tolist() for name in rows.schema}


class Subject:
    """What the threads of a round share: a batch, and a schema, which prepares itself for its first reading."""

    def __init__(self, number: int) -> None:
        self.first = 1 + number * EVENTS
        self.batch = drained(self.first)
        self.schema = RowSchema({"id": "int64", "price": "float64", "name": "str"})
        self.columns = {"id": np.arange(EVENTS), "price": np.arange(EVENTS) / 4, "name": ["x"] * EVENTS}


def slices(subject: Subject) -> list[int]:
    return [each.sequence for start in range(0, EVENTS, 7) for each in subject.batch[start : start + 7]]


def imported(source: object) -> list[WriteEvent]:
    return list(EventBatch.from_arrow(source))


READS: Final[dict[str, Callable[[Subject], Any]]] = {
    "records": lambda subject: subject.batch.records.tobytes(),
    "columns": lambda subject: [
        subject.batch.sequence.tolist(),
        subject.batch.op.tolist(),
        subject.batch.payload.tobytes(),
    ],
    "events": lambda subject: list(subject.batch),
    "strings": lambda subject: [list(subject.batch.strings(name)) for name in ("collection", "row_id", "user_id")],
    "values": lambda subject: [list(subject.batch.values(name)) for name in ("new_value", "old_value")],
    "rows": lambda subject: columns_of(subject.batch.rows(schema=subject.schema)),
    "inferred rows": lambda subject: columns_of(subject.batch.rows()),
    "encoded rows": lambda subject: encode_rows(subject.columns).data.tolist(),
    "slices": slices,
    "copies": lambda subject: list(subject.batch[np.arange(0, EVENTS, 3)]),
    "split": lambda subject: {name: list(part) for name, part in subject.batch.split().items()},
    "pickle": lambda subject: list(pickle.loads(pickle.dumps(subject.batch))),
    "copy": lambda subject: list(copy.copy(subject.batch)),
    "arrow": lambda subject: imported(subject.batch),
    "plain arrow": lambda subject: imported(subject.batch.plain()),
    "emit_batch": lambda subject: emitted(subject.batch),
    "gaps": lambda subject: subject.batch.gaps(subject.first + 1).tolist(),
}


def emitted(batch: EventBatch) -> list[WriteEvent]:
    [producer], [consumer] = create_event_bus(1, 64)
    assert producer.emit_batch(batch) == len(batch)
    return list(consumer.drain())


def check_against(reads: list[str]) -> Callable[[Subject, list[Any]], None]:
    def check(subject: Subject, results: list[Any]) -> None:
        alone = Subject((subject.first - 1) // EVENTS)
        for read, result in zip(reads, results, strict=True):
            if isinstance(result, Exception):
                raise result
            expected = READS[read](alone)
            if read == "records":
                # Where no column lies, a row has whatever its memory held.
                assert len(result) == len(expected)
                continue
            assert result == expected, read

    return check


@pytest.mark.parametrize("read", READS)
def test_threads_that_read_one_batch_alike_get_the_same(read: str) -> None:
    reads = [read] * 3
    Contest([READS[each] for each in reads], prepare=Subject, check=check_against(reads), together=10).run(rounds(1000))


def test_threads_that_read_one_batch_in_all_ways_get_what_is_in_it() -> None:
    reads = list(READS)
    contest = Contest([READS[each] for each in reads], prepare=Subject, check=check_against(reads), spread=1000)
    contest.run(rounds(200))


ROW_READS: Final[dict[str, Callable[[Rows], Any]]] = {
    "column": lambda rows: rows["name"].tolist(),
    "every column": columns_of,
    "valid": lambda rows: [rows.valid(name).tolist() for name in rows.schema],
    "given": lambda rows: [rows.given(name).tolist() for name in rows.schema],
    "present": lambda rows: rows.present.tolist(),
    "slice": lambda rows: columns_of(rows[10:20]),
    "select": lambda rows: columns_of(rows.select("price", "id")),
    "arrow": lambda rows: len(repr(rows.__arrow_c_array__())) > 0,
    "arrow with events": lambda rows: len(repr(rows.with_events("lsn").__arrow_c_array__())) > 0,
}


def test_threads_that_read_the_rows_of_a_batch_get_the_same() -> None:
    reads = list(ROW_READS)

    def check(rows: Rows, results: list[Any]) -> None:
        alone = drained(1).rows()
        assert results == [ROW_READS[read](alone) for read in reads]

    calls = [ROW_READS[read] for read in reads]
    Contest(calls, prepare=lambda _: drained(1).rows(), check=check, spread=300, together=10).run(rounds(1000))


SLOTS: Final = 8
TOGETHER: Final = 10


def letters(sequence: int) -> WriteEvent:
    """All of them are of one size, and so are batches of as many: a buffer of any fits the next."""
    letter = bytes([97 + sequence % 26])
    return WriteEvent(
        sequence=sequence, collection="t", op=WriteOp.INSERT, row_id=f"{sequence:08d}", lsn=1, new_value=letter * 100
    )


class Pooled:
    """Batches whose memory comes from one pool, some of them to be dropped in this round."""

    def __init__(self, producer: EventProducer, consumer: EventConsumer) -> None:
        self.producer, self.consumer = producer, consumer
        producer.bind()
        consumer.bind()
        self.live = [self.drain() for _ in range(2)]
        self.dropped = [[self.drain()] for _ in range(4)]

    def drain(self) -> EventBatch:
        first = self.producer.next_sequence
        for sequence in range(first, first + SLOTS):
            assert self.producer.emit(letters(sequence))
        return self.consumer.drain()

    def drop(self, number: int) -> None:
        self.dropped[number].clear()

    def drain_more(self) -> None:
        self.producer.bind()
        self.consumer.bind()
        self.live += [self.drain() for _ in range(2)]

    def check(self) -> None:
        # More than were dropped: whatever the pool has, it is handed out by now.
        self.producer.bind()
        self.consumer.bind()
        self.live += [self.drain() for _ in range(6)]
        last = self.producer.next_sequence
        everything = [each for batch in self.live for each in batch]
        assert everything == [letters(each.sequence) for each in everything], "two batches share memory"
        numbers = [each.sequence for each in everything]
        assert numbers == sorted(set(numbers)), "two batches share memory"
        assert numbers[-1] == last - 1


def test_batches_that_are_dropped_elsewhere_never_share_memory_with_a_live_one() -> None:
    producers, consumers = create_event_bus(TOGETHER, SLOTS, arena_bytes=4096)

    def check(pooled: Pooled, results: list[Any]) -> None:
        assert results == [None] * len(results), results
        pooled.check()

    drops: list[Callable[[Pooled], None]] = [
        lambda pooled, number=number: pooled.drop(number)  # type: ignore[misc]
        for number in range(4)
    ]
    Contest(
        [*drops, Pooled.drain_more],
        prepare=lambda number: Pooled(producers[number % TOGETHER], consumers[number % TOGETHER]),
        check=check,
        together=TOGETHER,
    ).run(rounds(10_000))
