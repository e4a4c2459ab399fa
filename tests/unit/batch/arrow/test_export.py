"""EventBatch as an Arrow record batch: every column, checked by pyarrow down to the last buffer."""

# The stubs of pyarrow and pandas lag behind them, and know no Arrow capsules.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportAttributeAccessIssue=false
# pyright: reportMissingTypeArgument=false, reportUnknownParameterType=false

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodedb_ring import (
    EVENT_DTYPE,
    ClosedError,
    CorruptRingError,
    EventBatch,
    EventSource,
    WriteEvent,
    WriteOp,
)
from tests.unit.builders import batch as batch_of
from tests.unit.builders import event, ring, sized
from tests.unit.shared_buses import BusMaker

from .columns import DEFAULT, FIELDS, TEXTS, TIMES, VALUES, as_fields, imported, rows_of, varied


def test_the_schema() -> None:
    assert tuple(DEFAULT.names) == FIELDS
    assert pa.schema(batch_of(1, 1)) == DEFAULT
    assert pa.record_batch(batch_of(1, 1)).schema == DEFAULT
    assert pa.table(batch_of(1, 1)).schema == DEFAULT


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 127, 128, 129, 255, 256, 700])
def test_every_field_of_every_event(count: int, portable: bool) -> None:
    events = varied(count)
    assert rows_of(imported(EventBatch.from_events(events), portable=portable)) == as_fields(events)


def test_all_operations_and_sources_by_name() -> None:
    events = [
        event(i + 1, op=op, source=source) for i, (op, source) in enumerate(zip(WriteOp, EventSource, strict=False))
    ]
    events.append(event(9, op=WriteOp.HEARTBEAT))
    record_batch = imported(EventBatch.from_events(events))
    assert record_batch.column("op").to_pylist() == [*list(map(str, WriteOp))[:5], "HEARTBEAT"]
    assert record_batch.column("source").to_pylist() == [*map(str, EventSource), "user"]


def test_batches_of_every_origin() -> None:
    events = varied(600)
    whole = EventBatch.from_events(events)
    producer, consumer = ring(1024, arena_bytes=2**20)
    producer.emit_batch(whole)
    records = whole.records.copy()
    scattered = EventBatch(records[::-1].copy(), whole.payload)
    mask = np.arange(600) % 3 == 1
    for batch, expected in (
        (whole[100:350], events[100:350]),
        (whole[100:350][5:50], events[105:150]),
        (whole[599:], events[599:]),
        (whole[600:], []),
        (whole[::2], events[::2]),
        (whole[mask], events[1::3]),
        (consumer.drain(600), events),
        (scattered, events[::-1]),
        (scattered[10:200], events[::-1][10:200]),
        (EventBatch.concat([whole[:7], whole[300:]]), events[:7] + events[300:]),
        (EventBatch.from_columns(sequence=[1, 2], collection="t", op=1, row_id="", lsn=0), None),
    ):
        assert rows_of(imported(batch)) == as_fields(batch if expected is None else expected)


def test_a_none_may_point_anywhere() -> None:
    records = np.zeros(3, EVENT_DTYPE)
    records["op"] = 1
    records["row_id_length"] = [0, 1, 2]
    for name in ("user_id", "statement_digest", "new_value", "old_value"):
        records[f"{name}_length"] = 2**32 - 1
        records[f"{name}_offset"] = 2**32 - 7
    records["new_value_length"][1] = 2
    records["new_value_offset"][1] = 1
    record_batch = imported(EventBatch(records, b"abc"))
    assert record_batch.column("row_id").to_pylist() == ["", "a", "ab"]
    assert record_batch.column("new_value").to_pylist() == [None, b"bc", None]


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("length", [3, 40])
def test_a_none_may_point_anywhere_where_values_are_expected(length: int, portable: bool) -> None:
    # After a block without a None the next is expected to have none, either.
    records = np.zeros(300, EVENT_DTYPE)
    records["op"] = 1
    for name in ("user_id", "statement_digest", "new_value", "old_value"):
        records[f"{name}_length"] = length
    for name in ("user_id", "new_value"):
        records[f"{name}_length"][200] = 2**32 - 1
        records[f"{name}_offset"][200] = 2**32 - 7
    record_batch = imported(EventBatch(records, b"x" * length), portable=portable)
    for name, value in (("user_id", "x" * length), ("new_value", b"x" * length)):
        assert record_batch.column(name).to_pylist() == [value] * 200 + [None] + [value] * 99


def test_bitmaps_only_where_something_is_null() -> None:
    batch = EventBatch.from_events([event(i, new_value=b"x", user_id="u" if i % 2 else None) for i in range(1, 200)])
    record_batch = imported(batch)
    for name, nulls in (("new_value", 0), ("user_id", 99), ("old_value", 199), ("valid_time_ms", 199)):
        column = record_batch.column(name)
        assert column.null_count == nulls
        assert (column.buffers()[0] is None) == (nulls == 0)


def test_long_values_are_not_copied() -> None:
    batch = EventBatch.from_events([sized(i, 100) for i in range(1, 5)])
    record_batch = imported(batch)
    _, _, payload = record_batch.column("new_value").buffers()
    assert payload.address == batch.payload.ctypes.data
    assert payload.size == len(batch.payload)
    # Columns of short text have no use for it, and whoever writes them to a file would write it again and again.
    assert len(record_batch.column("row_id").buffers()) == 2


def test_a_slice_exports_its_own_part_of_the_payload() -> None:
    batch = EventBatch.from_events([sized(i, 100) for i in range(1, 50)])
    record_batch = imported(batch[10:20])
    _, _, payload = record_batch.column("new_value").buffers()
    assert payload.address == batch.payload.ctypes.data + 1000
    assert payload.size == 1000


@pytest.mark.parametrize("shift", [4, 6, 9])
def test_a_large_payload_is_several_buffers(shift: int) -> None:
    # With 2 ** 28 in place of a few bytes this is a payload of more than 2 GiB.
    events = varied(300)
    batch = EventBatch.from_events(events)
    record_batch = imported(batch, window_shift=shift)
    assert rows_of(record_batch) == as_fields(events)
    buffers = record_batch.column("new_value").buffers()[2:]
    assert [buffer.address - batch.payload.ctypes.data for buffer in buffers] == list(
        range(0, len(batch.payload), 1 << shift)
    )
    assert {buffer.address + buffer.size for buffer in buffers} == {batch.payload.ctypes.data + len(batch.payload)}


def test_a_lease_is_exported_in_place_and_must_be_let_go_of() -> None:
    producer, consumer = ring(64, arena_bytes=2**16)
    events = varied(20)
    producer.emit_batch(EventBatch.from_events(events))
    with consumer.lease() as leased:
        record_batch = imported(leased)
        assert rows_of(record_batch) == as_fields(events)
        del record_batch
    assert consumer.stats().held == 0
    producer.emit_batch(EventBatch.from_events(events))
    lease = consumer.lease()
    record_batch = imported(lease.batch)
    with pytest.raises(BufferError, match="still refer to a lease"):
        lease.release()
    assert consumer.stats().held == 20
    producer.emit_batch(EventBatch.from_events(varied(20, first=21)))
    assert rows_of(record_batch) == as_fields(events)
    del record_batch
    assert consumer.stats().held == 0


def test_a_lease_that_has_ended_is_not_exported() -> None:
    producer, consumer = ring()
    producer.emit(event(1))
    with consumer.lease() as leased:
        pass
    with pytest.raises(ClosedError, match="lease"):
        leased.__arrow_c_array__()
    with pytest.raises(pa.ArrowInvalid, match="lease of this batch has ended"):
        pa.RecordBatchReader.from_stream(leased).read_all()


def test_batches_of_a_shared_bus(make_bus: BusMaker) -> None:
    bus = make_bus(capacity=1024)
    events = varied(500)
    with bus.producer(0) as producer, bus.consumer(0) as consumer:
        producer.emit_batch(EventBatch.from_events(events))
        with consumer.lease(200) as leased:
            record_batch = imported(leased)
            assert rows_of(record_batch) == as_fields(events[:200])
            del record_batch, leased
        assert rows_of(imported(consumer.drain(1000))) == as_fields(events[200:])


@pytest.mark.parametrize("text", ["flights", "a longer name of a table"])
def test_text_that_another_process_broke_is_an_error(make_bus: BusMaker, text: str) -> None:
    bus = make_bus()
    with bus.producer(0) as producer, bus.consumer(0) as consumer:
        producer.emit_batch(EventBatch.from_events([event(1, collection=text), event(2, collection=text)]))
        raw = bus.path.read_bytes()
        at = raw.index(text.encode(), raw.index(text.encode()) + 1)
        with open(bus.path, "r+b") as file:
            file.seek(at + len(text) - 1)
            file.write(b"\xff")
        batch = consumer.drain()
        with pytest.raises(CorruptRingError):
            batch.__arrow_c_array__()
        assert rows_of(imported(batch[:1]))[0]["collection"] == text


TEMPLATE = st.fixed_dictionaries(
    {
        "collection": st.sampled_from(TEXTS),
        "op": st.sampled_from(WriteOp),
        "row_id": st.sampled_from(TEXTS) | st.text(max_size=20),
        "lsn": st.integers(0, 2**64 - 1),
        "tenant_id": st.integers(0, 2**64 - 1),
        "vshard_id": st.integers(0, 2**32 - 1),
        "source": st.sampled_from(EventSource),
        "count": st.integers(0, 2**32 - 1),
        "new_value": st.sampled_from(VALUES) | st.binary(max_size=30),
        "old_value": st.sampled_from(VALUES),
        "system_time_ms": st.sampled_from(TIMES),
        "valid_time_ms": st.sampled_from(TIMES),
        "user_id": st.none() | st.sampled_from(TEXTS),
        "statement_digest": st.none() | st.sampled_from(TEXTS),
    }
)


@given(
    st.lists(st.tuples(st.integers(1, 150), st.lists(TEMPLATE, min_size=1, max_size=3)), max_size=5),
    st.booleans(),
    st.integers(0, 70),
)
@settings(deadline=None, max_examples=60)
def test_any_runs_of_events(runs: list[tuple[int, list[dict[str, object]]]], portable: bool, skipped: int) -> None:
    # The pass goes by blocks, and expects the next block to be as the one before: runs make it find others.
    templates = [run[i % len(run)] for length, run in runs for i in range(length)]
    events = [WriteEvent(sequence=i, **template) for i, template in enumerate(templates)]  # type: ignore[arg-type]
    batch = EventBatch.from_events(events)
    record_batch = imported(batch, portable=portable)
    assert rows_of(record_batch) == as_fields(events)
    part = imported(batch[skipped:], portable=portable)
    assert rows_of(part) == as_fields(events[skipped:])
    assert list(EventBatch.from_arrow(record_batch)) == events
    assert list(EventBatch.from_arrow(record_batch.slice(skipped))) == events[skipped:]
