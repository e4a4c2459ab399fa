"""Each mistake is a named exception that prints the value, before anything is written; the ring works on."""

from __future__ import annotations

import asyncio
import mmap
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nodedb_ring
from nodedb_ring import (
    BatchError,
    BusyError,
    CapacityError,
    ClosedError,
    EventBatch,
    EventConsumer,
    EventProducer,
    EventTooLargeError,
    FieldError,
    ForkError,
    OwnershipError,
    RingError,
    WriteEvent,
    create_event_bus,
)
from tests.unit.builders import batch, event, fill, raw_rows, ring, sequences, sized
from tests.unit.runners import in_child, in_new_interpreter, in_thread


def columns(**given: Any) -> EventBatch:
    return EventBatch.from_columns(**({"sequence": [8, 9], "collection": "t", "op": 1, "row_id": "", "lsn": 0} | given))


def bad_rows(**given: Any) -> EventBatch:
    rows = raw_rows(2)
    for name, value in given.items():
        rows[name][1] = value
    return EventBatch(rows, b"abc\xff")


def dtype_of_one_column() -> EventBatch:
    return EventBatch(np.zeros(2, [("sequence", "<u8")]))


def reserve_bad_op(producer: EventProducer) -> None:
    with producer.reserve(2) as rows:
        rows["op"] = [1, 88]


MISTAKES: list[tuple[str, type[RingError], str, Callable[[EventProducer], object]]] = [
    ("capacity", CapacityError, "0", lambda p: create_event_bus(1, 0)),
    ("capacity below", CapacityError, "-4", lambda p: create_event_bus(1, -4)),
    ("cores", CapacityError, "0", lambda p: create_event_bus(0)),
    ("arena", CapacityError, "-1", lambda p: create_event_bus(1, 8, arena_bytes=-1)),
    ("event too large", EventTooLargeError, "513", lambda p: p.emit(sized(9, 513))),
    (
        "one of a batch",
        EventTooLargeError,
        "513",
        lambda p: p.emit_batch(EventBatch.from_events([event(8), sized(9, 513)])),
    ),
    ("reserved payload", EventTooLargeError, "513", lambda p: p.reserve(1, 513)),
    ("unequal columns", BatchError, "3", lambda p: p.emit_batch(columns(lsn=[1, 2, 3]))),
    ("dtype", BatchError, "float64", lambda p: p.emit_batch(columns(lsn=[1.5, 2.5]))),
    ("records", BatchError, "sequence", lambda p: p.emit_batch(dtype_of_one_column())),
    ("op of an event", FieldError, "77", lambda p: p.emit(event(9, op=77))),
    ("op of a column", BatchError, "77", lambda p: p.emit_batch(columns(op=[1, 77]))),
    ("op of a row", BatchError, "77", lambda p: p.emit_batch(bad_rows(op=77))),
    ("op of a reservation", BatchError, "88", reserve_bad_op),
    ("source of an event", FieldError, "77", lambda p: p.emit(event(9, source=77))),
    ("source of a column", BatchError, "77", lambda p: p.emit_batch(columns(source=[1, 77]))),
    ("source of a row", BatchError, "77", lambda p: p.emit_batch(bad_rows(source=77))),
    ("offsets of a column", BatchError, "44", lambda p: p.emit_batch(columns(row_id=(b"abc", [0, 1, 44])))),
    (
        "offset of a row",
        BatchError,
        "44",
        lambda p: p.emit_batch(bad_rows(row_id_offset=44, row_id_length=1)),
    ),
    ("UTF-8 of an event", FieldError, r"\ud800", lambda p: p.emit(event(9, row_id="\ud800"))),
    ("UTF-8 of a column", BatchError, r"\xff", lambda p: p.emit_batch(columns(row_id=(b"a\xff", [0, 1, 2])))),
    (
        "UTF-8 of a row",
        BatchError,
        r"\xff",
        lambda p: p.emit_batch(bad_rows(user_id_offset=3, user_id_length=1)),
    ),
    ("range of an event", FieldError, "-1", lambda p: p.emit(event(9, tenant_id=-1))),
    ("range of an event, u32", FieldError, str(2**32), lambda p: p.emit(event(9, vshard_id=2**32))),
    ("range of a timestamp", FieldError, str(-(2**63)), lambda p: p.emit(event(9, system_time_ms=-(2**63)))),
    ("range of a column", BatchError, "-1", lambda p: p.emit_batch(columns(tenant_id=[0, -1]))),
    ("range of a column, u32", BatchError, str(2**32), lambda p: p.emit_batch(columns(count=[0, 2**32]))),
    ("thread", OwnershipError, "core 0", lambda p: in_thread(lambda: p.emit(event(9)))),
    ("thread, batch", OwnershipError, "core 0", lambda p: in_thread(lambda: p.emit_batch(batch(8, 9)))),
]


@pytest.mark.parametrize(
    ("kind", "shown", "mistake"), [each[1:] for each in MISTAKES], ids=[each[0] for each in MISTAKES]
)
def test_nothing_is_written_and_the_ring_works_on(
    kind: type[RingError], shown: str, mistake: Callable[[EventProducer], object]
) -> None:
    producer, consumer = ring(8, arena_bytes=512)
    fill(producer, 1, 3)
    before = producer.stats()
    for _ in range(3):
        with pytest.raises(kind) as refused:
            mistake(producer)
        assert type(refused.value) is kind
        assert shown in str(refused.value)
        assert producer.stats() == before
    fill(producer, 4, 5)
    assert list(consumer.drain()) == [event(n) for n in range(1, 6)]


CLOSED: list[Callable[[EventProducer, EventConsumer], object]] = [
    lambda p, c: p.emit(event()),
    lambda p, c: p.emit_batch(batch(1, 1)),
    lambda p, c: p.reserve(1).__enter__(),
    lambda p, c: c.try_recv(),
    lambda p, c: c.drain(),
    lambda p, c: c.drain(timeout=None),
    lambda p, c: c.lease(),
    lambda p, c: next(iter(c)),
    lambda p, c: asyncio.run(drain_async(c)),
    lambda p, c: c.recv(0),
    lambda p, c: asyncio.run(recv_async(c)),
]


async def drain_async(consumer: EventConsumer) -> object:
    return await consumer.drain_async()


async def recv_async(consumer: EventConsumer) -> object:
    return await consumer.recv_async()


@pytest.mark.parametrize("which", range(len(CLOSED)))
def test_use_after_close(which: int) -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 2)
    producer.close()
    consumer.close()
    with pytest.raises(ClosedError, match="core 0: is closed"):
        CLOSED[which](producer, consumer)
    assert producer.stats().emitted == 2
    assert consumer.stats().received == 0


def test_a_closed_producer_spoils_nothing_for_its_consumer() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 2)
    producer.close()
    with pytest.raises(ClosedError):
        producer.emit(event(3))
    assert sequences(consumer.drain()) == [1, 2]
    assert consumer.is_producer_disconnected


def test_use_after_fork() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 1)

    def child() -> list[tuple[str, str]]:
        reported: list[tuple[str, str]] = []
        for use in (lambda: producer.emit(event(2)), consumer.try_recv):
            try:
                use()
            except ForkError as error:
                reported.append((type(error).__name__, str(error)))
        return reported

    reported = in_child(child)
    assert [name for name, _ in reported] == ["ForkError", "ForkError"]
    assert "producer of core 0" in reported[0][1]
    assert "consumer of core 0" in reported[1][1]
    fill(producer, 2, 2)
    assert sequences(consumer.drain()) == [1, 2]


def test_an_event_that_was_never_made_is_not_emitted() -> None:
    producer, consumer = ring(8)
    hollow: WriteEvent = WriteEvent.__new__(WriteEvent)
    initialise: Any = getattr(hollow, "__init__")  # noqa: B009
    with pytest.raises(TypeError):
        producer.emit(hollow)
    with pytest.raises(TypeError):
        EventBatch.from_events([event(), hollow])
    with pytest.raises(TypeError):
        initialise(sequence=1)
    with pytest.raises(TypeError):
        producer.emit(hollow)
    assert consumer.try_recv() is None
    assert producer.stats().emitted == 0


def test_the_family_of_errors() -> None:
    values: list[type[Exception]] = [CapacityError, FieldError, BatchError, EventTooLargeError, ClosedError]
    assert all(issubclass(error, RingError) and issubclass(error, ValueError) for error in values)
    assert all(issubclass(error, RingError) for error in (OwnershipError, BusyError, ForkError))
    assert issubclass(BusyError, OwnershipError)
    assert issubclass(ForkError, OwnershipError)


@pytest.mark.parametrize("name", [name for name in nodedb_ring.__all__ if name.endswith("Error")])
def test_errors_pickle(name: str) -> None:
    more = (0, 5, 7) if name == "GapError" else ()
    error = getattr(nodedb_ring, name)("capacity 0: must be at least 1", *more)
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)


@pytest.mark.parametrize(
    "given", ["capacity=0, arena_bytes=64", "capacity=8, arena_bytes=0", "capacity=6, arena_bytes=64"]
)
def test_a_ring_over_a_block_refuses_sizes_that_cannot_be(given: str) -> None:
    # In an interpreter of its own: a division by zero in C ends the process.
    printed = in_new_interpreter(
        "import mmap\n"
        "from nodedb_ring import EventRing\n"
        "try:\n"
        f"    EventRing(mmap.mmap(-1, 1 << 20), core_id=0, {given}, thresholds=(85, 75, 95, 85))\n"
        "except ValueError as error:\n"
        "    print('refused', error)\n"
    )
    assert printed.startswith("refused")


@pytest.mark.parametrize("given", ["", "1, 2, 3", "bytearray(8), core_id='a'"])
def test_refused_arguments_close_no_descriptor(given: str) -> None:
    # Cython takes an object away whose __cinit__ it never called: all of it is 0, and 0 is standard input.
    printed = in_new_interpreter(
        "import os\n"
        "from nodedb_ring import EventRing\n"
        "try:\n"
        f"    EventRing({given})\n"
        "except TypeError:\n"
        "    os.fstat(0)\n"
        "    print('refused')\n"
    )
    assert printed == "refused\n"


def test_a_ring_over_a_block_that_is_too_small_or_read_only() -> None:
    from nodedb_ring import EventRing

    given: dict[str, Any] = {"core_id": 0, "capacity": 8, "arena_bytes": 64, "thresholds": (85, 75, 95, 85)}
    with pytest.raises(ValueError, match="4096"):
        EventRing(mmap.mmap(-1, 4096), **given)
    with pytest.raises((BufferError, TypeError)):
        EventRing(mmap.mmap(-1, 1 << 20, access=mmap.ACCESS_READ), **given)


def test_two_producers_of_one_ring_do_not_tear_it() -> None:
    # One writer: a second one is refused, or cannot write to the rows that the first has reserved.
    producer, consumer = ring(4)
    with producer.reserve(4) as rows:
        rows["op"] = 1
        rows["tenant_id"] = 7
        try:
            second = EventProducer(producer.ring)
            for n in range(4):
                second.emit(event(100 + n))
        except RingError:
            pass
    got = consumer.drain()
    assert len(got) <= 4
    assert set(got.tenant_id.tolist()) in ({7}, {0})
