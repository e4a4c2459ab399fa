"""Every byte of a row is one that this package or its caller wrote: none is what happened to stand in some memory."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from nodedb_ring import EVENT_DTYPE, EventBatch, EventBus, EventProducer, WriteEvent, native
from nodedb_ring.batch._crc32c import crc32c
from nodedb_ring.log.encoding import decode_batch, encode_batch
from tests.unit.builders import FULL, event, events
from tests.unit.runners import in_new_interpreter
from tests.unit.shared_buses import BusMaker

ROW: Final = EVENT_DTYPE.itemsize
RESERVED: Final = (50, 51, 60, 61, 62, 63)
STRAY: Final = 0xA5


def unnamed() -> list[int]:
    """The bytes of a row that no column has: the reserved ones, and the ring's own."""
    named: set[int] = set()
    for kind, at, *_ in (EVENT_DTYPE.fields or {}).values():
        named |= set(range(at, at + kind.itemsize))
    return sorted(set(range(ROW)) - named)


def stray_rows(count: int) -> npt.NDArray[np.void]:
    """Rows whose columns were written, as all that ``np.empty`` gives is, and nothing else of them."""
    rows = np.full(count * ROW, STRAY, np.uint8).view(EVENT_DTYPE)
    rows["sequence"] = np.arange(1, count + 1)
    rows["lsn"] = rows["sequence"]
    rows["tenant_id"] = rows["vshard_id"] = rows["source"] = 0
    rows["count"] = rows["op"] = 1
    rows["system_time_ms"] = rows["valid_time_ms"] = -(2**63)
    for name in ("collection", "row_id"):
        rows[f"{name}_offset"] = 0
        rows[f"{name}_length"] = 1
    # Of what is None only that it is.
    for name in ("user_id", "statement_digest", "new_value", "old_value"):
        rows[f"{name}_length"] = 2**32 - 1
    return rows


def bytes_of(batch: EventBatch) -> npt.NDArray[np.uint8]:
    return batch.records.view(np.uint8).reshape(-1, ROW)


def old_log() -> EventBatch:
    """A batch as a log may have it that an older version wrote."""
    rows, payload = stray_rows(3).tobytes(), b"t"
    head = np.array([1, 0, 1, 3, 3, len(rows)], np.uint64).tobytes()
    checksum = crc32c(payload, crc32c(rows, crc32c(head)))
    return decode_batch(rows, payload, checksum, core_id=0, first=1, last=3, count=3)


STRAY_BATCH: Final = EventBatch(stray_rows(3), b"t")
MADE: Final[dict[str, Callable[[], EventBatch]]] = {
    "records": lambda: STRAY_BATCH,
    "records with gaps": lambda: EventBatch(stray_rows(6)[::2], b"t"),
    "old log": old_log,
    "pickle": lambda: pickle.loads(pickle.dumps(STRAY_BATCH)),
    "slice": lambda: STRAY_BATCH[1:],
    "mask": lambda: STRAY_BATCH[[True, False, True]],
    "concat": lambda: EventBatch.concat([STRAY_BATCH, STRAY_BATCH]),
    "events": lambda: EventBatch.from_events([*events(1, 3), WriteEvent(**FULL)]),
    "events of a ring": lambda: EventBatch.from_events(drained_events()),
    "columns": lambda: EventBatch.from_columns(sequence=[1, 2], lsn=0, op=1, collection="t", row_id="", user_id=None),
    "arrow": lambda: EventBatch.from_arrow(pa.table(EventBatch.from_events(events(1, 3)))),
}


def drained_events() -> list[WriteEvent]:
    """What is read of rows that something else has written to, as an older version may have."""
    from nodedb_ring import create_event_bus

    [producer], [consumer] = create_event_bus(1, 8)
    for each in events(1, 3):
        assert producer.emit(each)
    return list(consumer.drain())


@pytest.mark.parametrize("name", MADE)
def test_bytes_outside_the_columns_are_zero(name: str) -> None:
    batch = MADE[name]()
    assert len(batch)
    assert not bytes_of(batch)[:, unnamed()].any()


def test_where_a_none_would_lie_is_not_what_stood_there() -> None:
    for name in ("user_id", "statement_digest", "new_value", "old_value"):
        assert STRAY_BATCH.records[f"{name}_offset"].tolist() == [1, 1, 1]
    assert list(STRAY_BATCH) == [event(n, row_id="t") for n in (1, 2, 3)]


@pytest.mark.parametrize("name", MADE)
def test_a_log_stores_no_other_bytes(name: str) -> None:
    batch = MADE[name]()
    if name == "concat":
        batch = batch[:3]
    rows = np.frombuffer(encode_batch(batch, core_id=0).rows, np.uint8).reshape(-1, ROW)
    assert not rows[:, unnamed()].any()


def test_reserved_bytes_of_an_older_log_are_not_read() -> None:
    batch = old_log()
    assert list(batch) == [event(n, row_id="t") for n in (1, 2, 3)]
    assert encode_batch(batch, core_id=0).checksum == encode_batch(STRAY_BATCH, core_id=0).checksum


# in a ring


def reserve(producer: EventProducer) -> None:
    with producer.reserve(3, 1) as rows:
        # Whatever a caller writes to a reservation's bytes by itself.
        rows.records.view(np.uint8)[:] = STRAY
        for name in EVENT_DTYPE.names or ():
            rows[name] = stray_rows(3)[name]
        rows.payload[:] = ord("t")


def emit_natively(producer: EventProducer) -> None:
    producer.bind()
    rows, payload = stray_rows(3), np.frombuffer(b"t", np.uint8)
    handle = native.handle(producer)
    assert native.emit_rows(handle.ctypes, rows.ctypes, 3, payload.ctypes, 1) == 3


EMITTED: Final[dict[str, Callable[[EventProducer], object]]] = {
    "emit": lambda producer: [producer.emit(each) for each in events(1, 3)],
    "emit_batch, packed": lambda producer: producer.emit_batch(EventBatch.from_events(events(1, 3))),
    "emit_batch, scattered": lambda producer: producer.emit_batch(STRAY_BATCH),
    "reserve": reserve,
    "emit_rows": emit_natively,
}


def rows_in(bus: EventBus, count: int) -> npt.NDArray[np.uint8]:
    """The rows of the first block, as they lie in the file."""
    data = bus.path.read_bytes()[4096:]
    at = int(np.frombuffer(data, np.uint64, 1, 40)[0])
    return np.frombuffer(data, np.uint8, count * ROW, at).reshape(count, ROW)


@pytest.mark.parametrize("name", EMITTED)
def test_reserved_bytes_of_a_shared_ring_are_zero(name: str, make_bus: BusMaker) -> None:
    bus = make_bus()
    before = bus.path.read_bytes()
    # With any old contents of the rows that are overwritten.
    with open(bus.path, "r+b") as file:
        at = 4096 + int(np.frombuffer(before, np.uint64, 1, 4096 + 40)[0])
        file.seek(at)
        file.write(bytes([STRAY]) * 16 * ROW)
    producer, consumer = bus.producer(0), bus.consumer(0)
    EMITTED[name](producer)
    rows = rows_in(bus, 16)
    assert not rows[:3][:, RESERVED].any()
    assert (rows[3:] == STRAY).all()
    assert rows[:3].view(EVENT_DTYPE).ravel()["sequence"].tolist() == [1, 2, 3]
    batch = consumer.drain()
    assert len(batch) == 3
    assert not bytes_of(batch)[:, RESERVED].any()


PROGRAM: Final = """
import ctypes

import numpy as np
from nodedb_ring import EventBus, EVENT_DTYPE
from nodedb_ring.log.encoding import encode_batch

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
memory = ctypes.string_at(libc.malloc(100_000), 100_000)
assert set(memory[64:]) == {0x5A}, "malloc does not fill what it gives"
bus = EventBus.create(NAME, 1, 64, arena_bytes=100_000)
try:
    producer, consumer = bus.producer(0), bus.consumer(0)
    with producer.reserve(20, 50_000) as rows:
        assert not rows.payload.any()
        assert b"\\x5a" * 2 not in rows.records.tobytes()
        rows["op"] = 1
        rows["new_value_offset"] = 49_990
        rows["new_value_length"] = 10
    with producer.reserve(1, 0) as rows:
        rows["op"] = 1
    assert b"\\x5a" * 2 not in bus.path.read_bytes()
    batch = consumer.drain()
    assert set(batch.values("new_value")) == {bytes(10), None}
    encoded = encode_batch(batch, core_id=0)
    assert b"\\x5a" * 2 not in bytes(encoded.rows) + bytes(encoded.payload)
    print(len(batch))
finally:
    bus.unlink()
"""


def test_a_reservation_publishes_nothing_of_the_heap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # In an interpreter whose malloc fills what it gives with 0x5A.
    monkeypatch.setenv("MALLOC_PERTURB_", str(0xA5))
    assert in_new_interpreter(PROGRAM.replace("NAME", repr(f"test-{os.getpid()}-{tmp_path.name}"))) == "21\n"


def test_a_row_has_no_bytes_but_those_of_its_columns_and_these() -> None:
    assert set(RESERVED) <= set(unnamed())
    assert unnamed() == [*RESERVED[:2], *range(52, 60), *RESERVED[2:], *range(112, 128)]


def test_an_event_carries_nothing_of_where_it_was() -> None:
    rows: Any = bytes_of(EventBatch.from_events(drained_events()))
    assert rows.tobytes() == bytes_of(EventBatch.from_events(events(1, 3))).tobytes()
