"""A shared block that is overwritten while the bus is in use: each check of both ends in its turn.

``tests/property/test_shared_corruption.py`` overwrites it at random.
"""

from __future__ import annotations

import asyncio
import mmap
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from nodedb_ring import CorruptRingError, EventBus, EventConsumer, EventProducer, EventSource, WriteOp
from tests.unit.builders import batch, event, events, fill, sized
from tests.unit.shared_buses import BusMaker

PAGE = 4096


@pytest.fixture
def bus(make_bus: BusMaker, tmp_path: Path) -> EventBus:
    return make_bus(2, name="bus", directory=tmp_path)


PUBLISHED, ARENA_HEAD, ARENA_LAP = 128, 256, 264
TAKEN, RELEASED, ARENA_RELEASED = 512, 520, 528
ROW_BYTES, OP, SOURCE, SPAN_OFFSET, SPAN_LENGTH, FIELDS = 128, 48, 49, 52, 56, 64
INDEX_AT, ROWS_AT, ARENA_AT = 32, 40, 48


class Bytes:
    """The bytes of a bus of one core, for a test that writes to the file without any rules."""

    def __init__(self, bus: EventBus) -> None:
        with bus.path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)

    def get(self, at: int, form: str = "<Q") -> int:
        [value] = struct.unpack_from(form, self._map, PAGE + at)
        return int(value)

    def put(self, at: int, value: int, form: str = "<Q") -> None:
        struct.pack_into(form, self._map, PAGE + at, value % 256 ** struct.calcsize(form))

    def index(self, slot: int) -> int:
        return self.get(INDEX_AT) + 4 * slot

    def row(self, number: int) -> int:
        return self.get(ROWS_AT) + ROW_BYTES * number


@pytest.fixture
def ends(make_bus: BusMaker) -> tuple[EventProducer, EventConsumer, Bytes]:
    """Two ends of a ring of 8 slots and 64 bytes of arena, and its bytes."""
    bus = make_bus(1, 8, arena_bytes=64)
    return bus.producer(0), bus.consumer(0), Bytes(bus)


Ends = tuple[EventProducer, EventConsumer, Bytes]

TAKERS: list[Callable[[EventConsumer], object]] = [
    lambda consumer: consumer.drain(),
    lambda consumer: consumer.drain(2, timeout=5.0),
    lambda consumer: consumer.try_recv(),
    lambda consumer: consumer.lease(),
    lambda consumer: next(iter(consumer)),
    lambda consumer: asyncio.run(take(consumer)),
    lambda consumer: consumer.recv(5.0),
]


TAKES_ONE_EVENT = (2, 6)


async def take(consumer: EventConsumer) -> object:
    return await consumer.drain_async()


def reserve(producer: EventProducer) -> None:
    with producer.reserve(3) as rows:
        rows["op"] = 1


EMITTERS: list[Callable[[EventProducer], object]] = [
    lambda producer: producer.emit(sized(90, 20)),
    lambda producer: producer.emit_batch(batch(90, 91)),
    reserve,
]


def assert_corrupt(call: Callable[[], object], match: str) -> None:
    """Once a block was found corrupt it stays so for that end; closing it is still no error."""
    for _ in range(3):
        with pytest.raises(CorruptRingError, match=match) as raised:
            call()
        assert "core 0" in str(raised.value)


def test_the_words_that_are_overwritten_below_are_those(ends: Ends) -> None:
    producer, consumer, data = ends
    for number in (1, 2, 3):
        assert producer.emit(sized(number, 10))
    assert consumer.try_recv() == sized(1, 10)
    assert [data.get(at) for at in (PUBLISHED, ARENA_HEAD, ARENA_LAP)] == [3, 30, 0]
    assert [data.get(at) for at in (TAKEN, RELEASED, ARENA_RELEASED)] == [1, 1, 10]
    assert [data.get(data.index(slot), "<I") for slot in range(8)] == list(range(8))
    assert [data.get(data.row(number)) for number in range(3)] == [1, 2, 3]
    row = data.row(1)
    assert [data.get(row + at, "<B") for at in (OP, SOURCE)] == [WriteOp.INSERT, EventSource.USER]
    assert [data.get(row + at, "<I") for at in (SPAN_OFFSET, SPAN_LENGTH)] == [10, 10]
    value = FIELDS + 8 * 4
    assert [data.get(row + at, "<I") for at in (value, value + 4)] == [10, 10]


@pytest.mark.parametrize("value", [-1, 9, 2**32, 2**63, 2**64 - 1])
@pytest.mark.parametrize("taker", TAKERS)
def test_a_published_position_that_cannot_be(taker: Callable[[EventConsumer], object], value: int, ends: Ends) -> None:
    _, consumer, data = ends
    data.put(PUBLISHED, value)
    assert_corrupt(lambda: taker(consumer), "published")
    consumer.close()


@pytest.mark.parametrize("value", [-1, 9, 2**32, 2**63])
@pytest.mark.parametrize("emitter", EMITTERS)
def test_a_released_position_that_cannot_be(emitter: Callable[[EventProducer], object], value: int, ends: Ends) -> None:
    producer, _, data = ends
    fill(producer, 1, 8)
    data.put(RELEASED, value)
    assert_corrupt(lambda: emitter(producer), "released")
    assert producer.utilization in range(101)
    producer.close()


@pytest.mark.parametrize("beyond", [1, 1000, 2**32])
def test_an_arena_tail_that_cannot_be(beyond: int, ends: Ends) -> None:
    producer, _, data = ends
    for number in (1, 2, 3):
        assert producer.emit(sized(number, 20))
    # Room for a fourth in an arena of 64, if that were true: it would be written over the first.
    data.put(ARENA_RELEASED, data.get(ARENA_HEAD) + beyond)
    assert_corrupt(lambda: producer.emit(sized(4, 20)), "tail")
    producer.close()


@pytest.mark.parametrize("value", [8, 9, 2**31, 2**32 - 1])
@pytest.mark.parametrize("taker", [each for i, each in enumerate(TAKERS) if i not in TAKES_ONE_EVENT])
def test_an_index_of_no_row(taker: Callable[[EventConsumer], object], value: int, ends: Ends) -> None:
    producer, consumer, data = ends
    fill(producer, 1, 2)
    data.put(data.index(0), value, "<I")
    assert_corrupt(lambda: taker(consumer), "row")
    consumer.close()


@pytest.mark.parametrize("value", [8, 9, 2**31, 2**32 - 1])
@pytest.mark.parametrize("emitter", EMITTERS[1:])
def test_a_free_index_of_no_row(emitter: Callable[[EventProducer], object], value: int, ends: Ends) -> None:
    producer, _, data = ends
    data.put(data.index(0), value, "<I")
    assert_corrupt(lambda: emitter(producer), "row number")
    producer.close()


WRONG_ROWS = [
    (OP, "<B", 0),
    (OP, "<B", 99),
    (SOURCE, "<B", 99),
    *((FIELDS + 8 * field, "<I", value) for field in range(6) for value in (65, 2**32 - 1)),
    *((FIELDS + 8 * field + 4, "<I", value) for field in range(6) for value in (65, 2**31)),
    (FIELDS + 4, "<I", 2**32 - 1),
    (FIELDS + 12, "<I", 2**32 - 1),
]


@pytest.mark.parametrize(("at", "form", "value"), WRONG_ROWS)
@pytest.mark.parametrize("taker", TAKERS[:4])
def test_a_row_that_is_not_an_event(
    taker: Callable[[EventConsumer], object], at: int, form: str, value: int, ends: Ends
) -> None:
    producer, consumer, data = ends
    for number in (1, 2):
        assert producer.emit(event(number, user_id="u", statement_digest="s", new_value=b"n", old_value=b"o"))
    data.put(data.row(0) + at, value, form)
    assert_corrupt(lambda: taker(consumer), "row")
    consumer.close()


@pytest.mark.parametrize("value", [65, 2**31, 2**32 - 1])
@pytest.mark.parametrize("at", [SPAN_OFFSET, SPAN_LENGTH])
@pytest.mark.parametrize(
    "taker", [lambda consumer: list(consumer.drain()), lambda consumer: list(consumer.lease().batch)]
)
def test_a_span_outside_its_row(
    taker: Callable[[EventConsumer], list[object]], at: int, value: int, ends: Ends
) -> None:
    # The fields' own offsets say it again: a reader of those gets the right events, a reader of the span gets an error.
    producer, consumer, data = ends
    fill(producer, 1, 2)
    data.put(data.row(0) + at, value, "<I")
    try:
        taken = taker(consumer)
    except CorruptRingError:
        with pytest.raises(CorruptRingError, match="row"):
            taker(consumer)
    else:
        assert taken == events(1, 2)


def test_text_that_is_not_utf_8(ends: Ends) -> None:
    producer, consumer, data = ends
    fill(producer, 1, 2)
    lease = consumer.lease(1)
    data.put(data.get(ARENA_AT), 0xFF, "<B")
    with pytest.raises(CorruptRingError, match="UTF-8"):
        lease.batch.strings("collection")
    with pytest.raises(CorruptRingError, match="UTF-8"):
        list(lease.batch)
    data.put(data.get(ARENA_AT) + 2, 0xFF, "<B")
    with pytest.raises(CorruptRingError, match="UTF-8"):
        consumer.try_recv()


@pytest.mark.parametrize(
    ("role", "at", "value"),
    [
        ("producer", RELEASED, 2**63),
        ("producer", RELEASED, 4),
        ("producer", ARENA_HEAD, 2**63),
        ("producer", ARENA_RELEASED, 2**62),
        ("consumer", PUBLISHED, 2**63),
        ("consumer", RELEASED, 2**63),
    ],
)
def test_an_inconsistent_block_has_no_successor(role: str, at: int, value: int, make_bus: BusMaker) -> None:
    bus = make_bus(1, 8, arena_bytes=64)
    producer, consumer = bus.producer(0), bus.consumer(0)
    fill(producer, 1, 3)
    producer.close()
    consumer.close()
    data = Bytes(bus)
    before = data.get(at)
    data.put(at, value)
    for _ in range(2):
        with pytest.raises(CorruptRingError, match="core 0"):
            bus.producer(0) if role == "producer" else bus.consumer(0)
    data.put(at, before)
    # A refused claim holds nothing.
    [stats] = bus.stats()
    assert (stats.producer_pid, stats.consumer_pid) == (None, None)
    assert bus.producer(0).next_sequence == 4
    assert list(bus.consumer(0).drain()) == events(1, 3)
