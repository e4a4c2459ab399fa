"""WriteOp, EventSource, EVENT_DTYPE, and that the columns are the very bytes of the ring's rows."""

from __future__ import annotations

import itertools
import struct

import numpy as np
import pytest

from nodedb_ring import EVENT_DTYPE, EventSource, WriteEvent, WriteOp
from tests.unit.builders import FULL, event, ring

FIXED = {
    "sequence": "<u8", "lsn": "<u8", "tenant_id": "<u8", "system_time_ms": "<i8", "valid_time_ms": "<i8",
    "vshard_id": "<u4", "count": "<u4", "op": "|u1", "source": "|u1",
}  # fmt: skip
VARIABLE = ("collection", "row_id", "user_id", "statement_digest", "new_value", "old_value")
STRINGS = VARIABLE[:4]


def test_operations() -> None:
    assert [op.name for op in WriteOp] == [
        "INSERT",
        "UPDATE",
        "DELETE",
        "BULK_INSERT",
        "BULK_DELETE",
        "HEARTBEAT",
    ]


@pytest.mark.parametrize("op", WriteOp)
def test_is_data_event_is_false_for_a_heartbeat_alone(op: WriteOp) -> None:
    assert op.is_data_event is (op is not WriteOp.HEARTBEAT)


@pytest.mark.parametrize("op", WriteOp)
def test_str_of_an_operation_is_its_name(op: WriteOp) -> None:
    assert str(op) == f"{op}" == op.name


def test_sources() -> None:
    assert [str(source) for source in EventSource] == [
        "user",
        "trigger",
        "raft_follower",
        "crdt_sync",
        "deferred",
    ]
    assert [source.name for source in EventSource] == [
        "USER",
        "TRIGGER",
        "RAFT_FOLLOWER",
        "CRDT_SYNC",
        "DEFERRED",
    ]


def test_zero_is_not_an_operation() -> None:
    # A row that nobody filled in must not pass for an event.
    assert 0 not in [int(op) for op in WriteOp]


def test_columns_carry_the_names_of_the_fields() -> None:
    halves = {f"{name}_{half}" for name in VARIABLE for half in ("offset", "length")}
    assert set(EVENT_DTYPE.names or ()) == set(FIXED) | halves
    assert set(WriteEvent.__match_args__) == set(FIXED) | set(VARIABLE)


def test_types_of_the_columns() -> None:
    assert {name: EVENT_DTYPE[name].str for name in FIXED} == FIXED
    assert {EVENT_DTYPE[f"{name}_{half}"].str for name in VARIABLE for half in ("offset", "length")} == {"<u4"}


def test_rows_are_a_multiple_of_64_bytes() -> None:
    assert EVENT_DTYPE.itemsize % 64 == 0


def test_columns_do_not_overlap_and_are_aligned() -> None:
    fields = EVENT_DTYPE.fields
    assert fields is not None
    spans = sorted((int(field[1]), int(field[1]) + field[0].itemsize) for field in fields.values())
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert all(int(field[1]) % field[0].itemsize == 0 for field in fields.values())


def test_the_c_row_agrees_with_the_dtype_byte_for_byte() -> None:
    producer, consumer = ring()
    assert producer.emit(event(5, row_id="first"))
    assert producer.emit(WriteEvent(**FULL))
    with consumer.lease() as batch:
        row = batch.records[1].tobytes()
        payload = batch.payload.tobytes()
    fields = EVENT_DTYPE.fields
    assert fields is not None
    codes = {"<u8": "<Q", "<i8": "<q", "<u4": "<I", "|u1": "<B"}
    read = {name: struct.unpack_from(codes[field[0].str], row, int(field[1]))[0] for name, field in fields.items()}
    for name in FIXED:
        assert read[name] == FULL[name], name
    for name in VARIABLE:
        start, length = read[f"{name}_offset"], read[f"{name}_length"]
        value = FULL[name].encode() if name in STRINGS else FULL[name]
        assert payload[start : start + length] == value, name


def test_a_length_of_all_ones_is_none() -> None:
    producer, consumer = ring()
    assert producer.emit(event())
    [row] = consumer.drain().records
    for name in ("user_id", "statement_digest", "new_value", "old_value"):
        assert row[f"{name}_length"] == 0xFFFFFFFF
    assert row["collection_length"] == 1


def test_stamps_view_as_datetime64() -> None:
    producer, consumer = ring()
    assert producer.emit(event(1, system_time_ms=1_700_000_000_123, valid_time_ms=-1))
    assert producer.emit(event(2))
    batch = consumer.drain()
    assert batch.system_time_ms[1] == np.iinfo(np.int64).min
    timestamps = np.ascontiguousarray(batch.system_time_ms).view("datetime64[ms]")
    assert timestamps[0] == np.datetime64("2023-11-14T22:13:20.123")
    assert np.isnat(timestamps).tolist() == [False, True]
    valid = batch.valid_time_ms.view("datetime64[ms]")
    assert valid[0] == np.datetime64("1969-12-31T23:59:59.999")
    assert np.isnat(valid[1])


def test_an_event_payload_is_contiguous_fields_back_to_back_strings_first() -> None:
    producer, consumer = ring()
    assert producer.emit(event(1, new_value=b"12345"))
    strings = {"collection": "cc", "row_id": "rrr", "user_id": "u", "statement_digest": "ssss"}
    made = event(2, **strings, new_value=b"nn", old_value=b"o")
    assert producer.emit(made)
    with consumer.lease() as batch:
        row = batch.records[1].copy()
        ends = [(int(row[f"{name}_offset"]), int(row[f"{name}_length"])) for name in VARIABLE]
        start = ends[0][0]
        assert start == 1 + 1 + 5
        assert [length for _, length in ends] == [2, 3, 1, 4, 2, 1]
        assert [offset for offset, _ in ends] == [
            start,
            start + 2,
            start + 5,
            start + 6,
            start + 10,
            start + 12,
        ]
        assert batch.payload[start : start + 13].tobytes() == b"ccrrrussssnno"
