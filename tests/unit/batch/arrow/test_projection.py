"""EventBatch.select: some columns, in the order asked for; the others are not made, and their bytes not read."""

# The stubs of pyarrow and pandas lag behind them, and know no Arrow capsules.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportAttributeAccessIssue=false
# pyright: reportMissingTypeArgument=false, reportUnknownParameterType=false

from __future__ import annotations

import gc
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodedb_ring import BatchError, ClosedError, CorruptRingError, EventBatch, Projection, WriteEvent
from nodedb_ring.batch.arrow._schema import Selection
from nodedb_ring.batch.schema import STRING_FIELDS, VALUE_FIELDS
from tests.unit.builders import batch as batch_of
from tests.unit.builders import event, ring
from tests.unit.runners import in_thread
from tests.unit.shared_buses import BusMaker

from .capsules import array_in, moved, release
from .columns import FIELDS, as_fields, imported, rows_of, varied, views

FIXED = tuple(name for name in FIELDS if name not in STRING_FIELDS + VALUE_FIELDS)


def selected(events: list[WriteEvent], columns: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{name: fields[name] for name in columns} for fields in as_fields(events)]


def test_the_columns_in_the_order_asked_for() -> None:
    batch = batch_of(1, 3)
    projection = batch.select("lsn", "op", "row_id")
    assert isinstance(projection, Projection)
    assert projection.columns == ("lsn", "op", "row_id")
    assert len(projection) == 3
    whole = pa.schema(batch)
    assert pa.schema(projection) == pa.schema([whole.field(name) for name in ("lsn", "op", "row_id")])
    assert pa.record_batch(projection).schema == pa.table(projection).schema == pa.schema(projection)
    assert repr(projection) == "Projection(lsn, op, row_id of 3 events)"


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("count", [0, 1, 127, 128, 129, 700])
@pytest.mark.parametrize("name", FIELDS)
def test_every_column_alone(name: str, count: int, portable: bool) -> None:
    events = varied(count)
    record_batch = imported(EventBatch.from_events(events), selection=Selection((name,)), portable=portable)
    assert rows_of(record_batch) == selected(events, (name,))


@settings(max_examples=150, deadline=None)
@given(
    columns=st.permutations(FIELDS).flatmap(lambda mixed: st.integers(1, 15).map(lambda n: tuple(mixed[:n]))),
    count=st.sampled_from([1, 64, 130, 400]),
    portable=st.booleans(),
)
def test_any_columns(columns: tuple[str, ...], count: int, portable: bool) -> None:
    events = varied(count)
    record_batch = imported(EventBatch.from_events(events), selection=Selection(columns), portable=portable)
    assert tuple(record_batch.schema.names) == columns
    assert rows_of(record_batch) == selected(events, columns)


def test_it_is_a_stream_too() -> None:
    events = varied(300)
    projection = EventBatch.from_events(events).select("user_id", "count")
    table = pa.RecordBatchReader.from_stream(projection).read_all()
    table.validate(full=True)
    assert rows_of(table) == selected(events, ("user_id", "count"))
    # An importer may ask again.
    assert pa.table(projection) == table


def test_polars_and_duckdb_take_it() -> None:
    projection = batch_of(1, 100).select("op", "sequence")
    frame = pl.DataFrame(projection)
    assert frame.columns == ["op", "sequence"]
    assert frame["sequence"].to_list() == list(range(1, 101))
    assert duckdb.sql("SELECT count(*), max(sequence) FROM projection").fetchall() == [(100, 100)]


def test_the_required_columns_come_back_as_events() -> None:
    events = varied(50)
    required = ("sequence", "collection", "op", "row_id", "lsn")
    again = EventBatch.from_arrow(EventBatch.from_events(events).select(*required))
    assert rows_of(imported(again.select(*required))) == selected(events, required)
    with pytest.raises(BatchError, match="lsn"):
        EventBatch.from_arrow(again.select(*required[:4]))


@pytest.mark.parametrize("columns", [("rows",), ("op", "Sequence"), ("",)])
def test_an_unknown_column_is_refused(columns: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=f"{columns[-1]!r}: no such column; those are sequence, collection, op"):
        batch_of(1, 1).select(*columns)


def test_a_column_that_is_there_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="'op': asked for 2 times"):
        batch_of(1, 1).select("op", "lsn", "op")


def test_an_empty_selection_is_refused() -> None:
    with pytest.raises(ValueError, match="no columns: name some of sequence"):
        batch_of(1, 1).select()


@pytest.mark.parametrize("column", [["op", "lsn"], b"op", 3, None])
def test_a_name_is_a_str(column: Any) -> None:
    with pytest.raises(TypeError, match=r"select\('collection', 'op'\)"):
        batch_of(1, 1).select(column)


# what it holds


@pytest.mark.parametrize("name", FIELDS)
def test_only_columns_of_strings_and_values_hold_the_batch(name: str) -> None:
    # By the kind of the column alone: these strings would all fit their views.
    batch = batch_of(1, 10)
    record_batch = imported(batch.select(name))
    assert views(batch) == (name not in FIXED)
    del record_batch
    assert views(batch) == 0


def test_fixed_columns_outlive_their_lease() -> None:
    producer, consumer = ring(8)
    for number in range(1, 9):
        assert producer.emit(event(number, lsn=number * 10))
    with consumer.lease() as leased:
        record_batch = imported(leased.select(*FIXED))
    assert consumer.stats().held == 0
    for number in range(9, 17):
        assert producer.emit(event(number))
    assert record_batch.column("lsn").to_pylist() == list(range(10, 90, 10))


def test_strings_do_not() -> None:
    producer, consumer = ring(8)
    producer.emit(event(1))
    lease = consumer.lease()
    record_batch = imported(lease.batch.select("row_id"))
    with pytest.raises(BufferError, match="still refer to"):
        lease.release()
    assert consumer.stats().held == 1
    del record_batch
    gc.collect()
    assert consumer.stats().held == 0


def test_a_release_without_the_gil() -> None:
    batch = batch_of(1, 10_000)
    for _ in range(50):
        _, capsule = batch.select("sequence", "op").__arrow_c_array__()
        struct = moved(array_in(capsule))
        del capsule
        column = moved(struct.children[1].contents)
        in_thread(lambda struct=struct: release(struct, with_gil=False))  # type: ignore[misc]
        assert column.dictionary.contents.length == 6
        in_thread(lambda column=column: release(column, with_gil=False))  # type: ignore[misc]
    assert views(batch) == 0


def test_a_lease_that_has_ended_gives_no_columns() -> None:
    producer, consumer = ring(8)
    producer.emit(event(1))
    with consumer.lease() as leased:
        projection = leased.select("sequence")
    with pytest.raises(ClosedError):
        pa.record_batch(projection)


def test_text_that_is_not_asked_for_is_not_read(make_bus: BusMaker) -> None:
    bus = make_bus()
    producer, consumer = bus.producer(0), bus.consumer(0)
    producer.emit(event(1, collection="flights", user_id="somebody with a long name"))
    with consumer.lease() as leased:
        place = bytes(leased.payload).index(b"somebody")
        ring_file = bus.path.read_bytes()
        with bus.path.open("r+b") as file:
            file.seek(ring_file.index(b"somebody"))
            file.write(b"\xff")
        assert leased.payload[place] == 0xFF
        assert pl.DataFrame(leased.select("collection", "lsn")).row(0) == ("flights", event(1).lsn)
        with pytest.raises(CorruptRingError):
            leased.select("user_id").__arrow_c_array__()
    consumer.close()
