"""A file that is not a whole bus of this version, layout, size and user is refused with an error that says which."""

from __future__ import annotations

import asyncio
import gc
import mmap
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from nodedb_ring import (
    CorruptRingError,
    EventBus,
    EventConsumer,
    EventProducer,
    EventSource,
    LayoutError,
    RingError,
    WriteOp,
)
from tests.unit.builders import batch, event, events, fill, sized
from tests.unit.shared_buses import BusMaker, another_users

PAGE = 4096


@pytest.fixture
def bus(make_bus: BusMaker, tmp_path: Path) -> EventBus:
    return make_bus(2, name="bus", directory=tmp_path)


def opened(path: Path) -> EventBus:
    return EventBus.open(path.name.removeprefix("nodedb_ring."), directory=path.parent)


def refused(path: Path, match: str) -> str:
    """What opening a file says, which is that it is not a bus, and why."""
    with pytest.raises(LayoutError, match=match) as raised:
        opened(path)
    assert path.name in str(raised.value)
    return str(raised.value)


def copied(bus: EventBus, name: str) -> Path:
    path = bus.directory / f"nodedb_ring.{name}"
    path.write_bytes(bus.path.read_bytes())
    path.chmod(0o600)
    return path


def test_a_copy_of_a_bus_is_a_bus(bus: EventBus) -> None:
    # What the refusals below differ from.
    fill(bus.producer(0), 1, 3)
    copy = opened(copied(bus, "copy"))
    assert [one.producer.emitted for one in copy.stats()] == [3, 0]
    assert list(copy.consumer(0).drain()) == events(1, 3)
    assert [one.producer.slots_in_use for one in bus.stats()] == [3, 0]


def test_a_layout_error_is_a_ring_error_and_a_value_error() -> None:
    assert issubclass(LayoutError, RingError)
    assert issubclass(LayoutError, ValueError)


def test_another_user_s_file_is_a_permission_error(bus: EventBus) -> None:
    with another_users(bus.path):
        with pytest.raises(PermissionError, match="bus") as raised:
            opened(bus.path)
        assert any(str(uid) in str(raised.value) for uid in (65534, bus.path.stat().st_uid))
    assert opened(bus.path).num_cores == 2


def test_a_symbolic_link_is_not_followed(bus: EventBus) -> None:
    link = bus.directory / "nodedb_ring.link"
    link.symlink_to(bus.path)
    refused(link, "link")


def test_a_dangling_link_does_not_create_a_file_elsewhere(bus: EventBus, tmp_path: Path) -> None:
    (tmp_path / "nodedb_ring.link").symlink_to(tmp_path / "target")
    with pytest.raises(FileExistsError):
        EventBus.create("link", 1, 16, directory=tmp_path)
    assert not (tmp_path / "target").exists()


def test_a_directory(tmp_path: Path) -> None:
    path = tmp_path / "nodedb_ring.d"
    path.mkdir()
    refused(path, "director|regular")
    assert path.is_dir()


def test_a_fifo_is_refused_without_waiting_for_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "nodedb_ring.f"
    os.mkfifo(path, 0o600)
    refused(path, "regular")


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "nodedb_ring.e"
    path.touch(0o600)
    refused(path, r"\b0 bytes")


@pytest.mark.parametrize("length", [1, 7, 8, 64, 128, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE])
def test_a_truncated_file(length: int, bus: EventBus) -> None:
    path = copied(bus, "short")
    os.truncate(path, length)
    refused(path, rf"\b{length} bytes")


@pytest.mark.parametrize("off", [-PAGE, -1, 1, PAGE])
def test_a_file_that_is_not_as_long_as_it_says(off: int, bus: EventBus) -> None:
    path = copied(bus, "off")
    length = path.stat().st_size
    os.truncate(path, length + off)
    text = refused(path, rf"\b{length + off} bytes")
    assert str(length) in text


@pytest.mark.parametrize("fill_with", [b"\0", b"\xff", b"#!/bin/sh\n"])
def test_a_file_of_something_else(fill_with: bytes, bus: EventBus) -> None:
    path = copied(bus, "else")
    length = path.stat().st_size
    path.write_bytes((fill_with * (length // len(fill_with) + 1))[:length])
    refused(path, "magic|no bus|not a bus")


def test_a_refusal_leaves_nothing_open(bus: EventBus) -> None:
    path = copied(bus, "leak")
    os.truncate(path, PAGE)
    gc.collect()  # what earlier tests left must not go meanwhile
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        refused(path, "bytes")
    assert len(os.listdir("/proc/self/fd")) == before


# Where the head of a file, and that of each core's block, says what it is: offset and struct format.
HEAD = {
    "magic": (0, "<Q"),
    "version": (8, "<I"),
    "num_cores": (12, "<I"),
    "capacity": (16, "<Q"),
    "arena_bytes": (24, "<Q"),
    "block_bytes": (32, "<Q"),
    "blocks_at": (40, "<Q"),
    "file_bytes": (48, "<Q"),
    "throttle_enter": (56, "<I"),
    "throttle_exit": (60, "<I"),
    "suspend_enter": (64, "<I"),
    "suspend_exit": (68, "<I"),
    "row_bytes": (72, "<I"),
}
BLOCK = {
    "magic": (0, "<Q"),
    "version": (8, "<I"),
    "core_id": (12, "<I"),
    "capacity": (16, "<Q"),
    "arena_bytes": (24, "<Q"),
    "index_at": (32, "<Q"),
    "rows_at": (40, "<Q"),
    "arena_at": (48, "<Q"),
    "block_bytes": (56, "<Q"),
    "throttle_enter": (64, "<I"),
    "throttle_exit": (68, "<I"),
    "suspend_enter": (72, "<I"),
    "suspend_exit": (76, "<I"),
}
CHANGES: list[Callable[[int], int]] = [
    lambda value: 0,
    lambda value: 1,
    lambda value: value + 1,
    lambda value: value - 1,
    lambda value: value * 2,
    lambda value: value + PAGE,
    lambda value: value ^ 2**31,
    lambda value: value + 2**32,
    lambda value: 2**64 - 1,
]
# What else may be named: a capacity that is one, but not the one that the block's size is of.
ALSO = {
    "num_cores": "file_bytes",
    "capacity": "block_bytes",
    "arena_bytes": "block_bytes",
    "row_bytes": "rows of",
    "throttle_enter": "thresholds",
    "throttle_exit": "thresholds",
    "suspend_enter": "thresholds",
    "suspend_exit": "thresholds",
}


def change(path: Path, at: int, form: str, by: Callable[[int], int]) -> int | None:
    """Overwrites one field; returns what it holds then, or None if that is what it held before."""
    with path.open("r+b") as file:
        file.seek(at)
        [before] = struct.unpack(form, file.read(struct.calcsize(form)))
        after = by(before) % 256 ** struct.calcsize(form)
        file.seek(at)
        file.write(struct.pack(form, after))
    return None if after == before else int(after)


def block_at(bus: EventBus, core_id: int) -> int:
    return PAGE + core_id * ((bus.path.stat().st_size - PAGE) // bus.num_cores)


@pytest.mark.parametrize("field", HEAD)
def test_a_head_that_says_something_else(field: str, bus: EventBus) -> None:
    at, form = HEAD[field]
    changed = 0
    for number, by in enumerate(CHANGES):
        path = copied(bus, f"head{number}")
        value = change(path, at, form, by)
        if value is not None:
            changed += 1
            refused(path, rf"\b({field}|{ALSO.get(field, field)})")
    assert changed > 4
    assert opened(bus.path).num_cores == 2


@pytest.mark.parametrize("core_id", [0, 1])
@pytest.mark.parametrize("field", BLOCK)
def test_a_block_that_says_something_else(field: str, core_id: int, bus: EventBus) -> None:
    at, form = BLOCK[field]
    changed = 0
    for number, by in enumerate(CHANGES):
        path = copied(bus, f"block{number}")
        value = change(path, block_at(bus, core_id) + at, form, by)
        if value is not None:
            changed += 1
            text = refused(path, rf"core {core_id}.*\b{field}")
            assert str(value) in text or hex(value) in text
    assert changed > 4
    assert opened(bus.path).num_cores == 2


def test_the_tables_above_are_of_this_layout(bus: EventBus) -> None:
    data = bus.path.read_bytes()
    sizes = {"num_cores": 2, "capacity": 16, "arena_bytes": bus.arena_bytes, "file_bytes": len(data), "core_id": 1}
    for table, start in ((HEAD, 0), (BLOCK, block_at(bus, 1))):
        for field, (at, form) in table.items():
            if field in sizes:
                assert struct.unpack_from(form, data, start + at) == (sizes[field],), field


def test_a_version_of_another_build_says_so(bus: EventBus) -> None:
    path = copied(bus, "newer")
    change(path, *HEAD["version"], lambda version: version + 1)
    text = refused(path, "version 3")
    assert "version 2" in text
    assert "newer" not in EventBus.list(directory=bus.directory)


def test_a_refused_file_is_left_unchanged(bus: EventBus) -> None:
    path = copied(bus, "wrong")
    change(path, *HEAD["capacity"], lambda capacity: 3)
    before = path.read_bytes()
    refused(path, "capacity 3")
    assert path.read_bytes() == before
    with pytest.raises(FileExistsError):
        EventBus.create("wrong", 1, 16, directory=bus.directory)
    assert path.read_bytes() == before


def test_a_file_that_shrinks_later_is_seen_at_the_next_open(bus: EventBus) -> None:
    path = copied(bus, "shrinks")
    assert opened(path).num_cores == 2
    os.truncate(path, path.stat().st_size - 1)
    refused(path, "truncated|bytes")


# What is overwritten while the bus is in use. tests/property/test_shared_corruption.py does so at random; here each
# check has its turn.

PUBLISHED, ARENA_HEAD, ARENA_LAP = 128, 136, 144
TAKEN, RELEASED, ARENA_RELEASED = 384, 392, 400
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
]


TRY_RECV = 2


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
@pytest.mark.parametrize("taker", [each for each in TAKERS if each is not TAKERS[TRY_RECV]])
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
