"""Rows through Arrow's capsules: as pyarrow, Polars and DuckDB see them."""

# The stubs of pyarrow lag behind it, and know no Arrow capsules.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportAttributeAccessIssue=false

# How much one array takes only the export itself can be told.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import gc
from typing import Any

import duckdb
import msgpack
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodedb_ring import BatchError, EventBatch, RowError, Rows, RowSchema
from nodedb_ring.batch.rows._export import RowExport

from .messages import NAMES, Row, batch_of, rows
from .oracle import Refused, column

TYPES: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int64": pa.int64(),
    "uint64": pa.uint64(),
    "float64": pa.float64(),
    "str": pa.string_view(),
    "bytes": pa.binary_view(),
    "timestamp": pa.timestamp("us", "UTC"),
    "raw": pa.binary_view(),
    "null": pa.null(),
}
PLAIN = TYPES | {"str": pa.string(), "bytes": pa.binary(), "raw": pa.binary()}
LARGE = TYPES | {"str": pa.large_string(), "bytes": pa.large_binary(), "raw": pa.large_binary()}
LONG = "text of more than twelve bytes"


def lists(imported: pa.RecordBatch) -> dict[str, list[Any]]:
    imported.validate(full=True)
    return {
        field.name: (array.cast(pa.int64()) if pa.types.is_timestamp(field.type) else array).to_pylist()
        for field, array in zip(imported.schema, imported.columns, strict=True)
    }


def schema_of(types: dict[str, pa.DataType], of: RowSchema) -> pa.Schema:
    return pa.schema([pa.field(name, types[kind]) for name, kind in of.items()])


@settings(max_examples=300, deadline=None)
@given(
    drawn=st.lists(st.none() | rows(), max_size=12),
    kinds=st.lists(st.sampled_from(list(TYPES)), min_size=8, max_size=8),
    start=st.integers(0, 3),
)
def test_columns_as_pyarrow_sees_them(drawn: list[Row | None], kinds: list[str], start: int) -> None:
    wanted = {}
    for name, kind in zip(NAMES, kinds, strict=True):
        try:
            wanted[name] = [value for _, value in column(drawn, name, kind)][start:]
        except Refused:
            continue
    schema = RowSchema({name: kind for name, kind in zip(NAMES, kinds, strict=True) if name in wanted})
    got = batch_of(*[row and row.message for row in drawn]).rows("new_value", schema)[start:]
    for source, types in ((got, TYPES), (got.plain(), PLAIN)):
        imported = pa.record_batch(source)
        assert imported.schema == schema_of(types, schema) == pa.schema(source)
        assert len(imported) == max(0, len(drawn) - start)
        assert lists(imported) == wanted
        assert pa.table(source).schema == imported.schema
    asked = pa.record_batch(got, schema=schema_of(LARGE, schema))
    assert asked.schema == schema_of(LARGE, schema)
    assert lists(asked) == wanted


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 63, 64, 65, 129, 65536])
def test_bitmaps_of_every_size(count: int) -> None:
    pattern = [None, True, False, True, True, False, None, False, False, True, None]
    values = [pattern[i % 11] for i in range(count)]
    got = batch_of(*[msgpack.packb({"x": value}) for value in values]).rows("new_value", RowSchema({"x": "bool"}))
    for start in (0, 1, 5, 8):
        imported = pa.record_batch(got[start:])
        imported.validate(full=True)
        assert imported["x"].to_pylist() == values[start:]
        assert imported["x"].null_count == values[start:].count(None)


def test_a_column_without_a_null_has_no_bitmap() -> None:
    got = pa.record_batch(batch_of(msgpack.packb({"a": 1}), msgpack.packb({"a": 2})).rows())
    assert got["a"].buffers()[0] is None


def test_text_stays_where_it_is() -> None:
    batch = batch_of(*[msgpack.packb({"t": f"{LONG} {i}", "s": "short"}) for i in range(100)])
    imported = pa.record_batch(batch.rows())
    payload = batch.payload
    assert imported["t"].buffers()[2].address == payload.ctypes.data
    assert imported["t"].buffers()[2].size == payload.size
    # A column that needs none has none of it.
    assert len(imported["s"].buffers()) == 2
    part = pa.record_batch(batch[10:20].rows())["t"].buffers()[2]
    assert payload.ctypes.data < part.address
    assert part.address + part.size < payload.ctypes.data + payload.size
    del batch, payload
    gc.collect()
    assert imported["t"].to_pylist() == [f"{LONG} {i}" for i in range(100)]


def test_numbers_are_views_of_one_memory() -> None:
    got = batch_of(*[msgpack.packb({"a": i}) for i in range(10)]).rows()
    assert pa.record_batch(got)["a"].buffers()[1].address == got["a"].ctypes.data
    assert np.shares_memory(got["a"], got[3:]["a"])


def test_columns_of_events() -> None:
    batch = batch_of(*[msgpack.packb({"a": i, "t": LONG}) if i % 3 else None for i in range(20)])
    for source, plain in ((batch.rows(), False), (batch.rows()[5:], False), (batch.rows()[5:], True)):
        both = source.with_events("op", "row_id", "lsn")
        events = source._batch.select("op", "row_id", "lsn")
        if plain:
            both, events, source = both.plain(), events.plain(), source.plain()  # type: ignore[assignment]  # noqa: PLW2901
        got, front, rest = pa.record_batch(both), pa.record_batch(events), pa.record_batch(source)
        assert got.schema == pa.schema([*front.schema, *rest.schema])
        assert got.to_pylist() == [a | b for a, b in zip(front.to_pylist(), rest.to_pylist(), strict=True)]
        assert pa.table(both).combine_chunks().to_batches() == [got]


def test_what_an_importer_asks_for() -> None:
    both = batch_of(msgpack.packb({"t": LONG, "n": 1})).rows().with_events("row_id", "op")
    asked = pa.schema([("row_id", pa.string()), ("op", pa.string()), ("t", pa.large_string()), ("n", pa.int64())])
    capsules = both.__arrow_c_array__(asked.__arrow_c_schema__())
    got = pa.RecordBatch._import_from_c_capsule(*capsules)
    assert got.schema.types == asked.types
    assert got.to_pylist() == [{"row_id": "100", "op": "INSERT", "t": LONG, "n": 1}]
    # What cannot be had as it is asked for comes as it is without.
    other = pa.schema([("row_id", pa.int8()), ("op", pa.string()), ("t", pa.int8()), ("n", pa.int8())])
    got = pa.RecordBatch._import_from_c_capsule(*both.__arrow_c_array__(other.__arrow_c_schema__()))
    assert got.schema.types == [pa.string_view(), pa.string(), pa.string_view(), pa.int64()]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (pa.schema([("t", pa.string())]), "of 1 columns: must be of t, n; select"),
        (pa.schema([("n", pa.int64()), ("t", pa.string())]), "column 0 is 'n', and here it is 't'"),
        (pa.field("t", pa.int64()), "must be '\\+s', columns"),
    ],
)
def test_requests_of_other_columns(asked: Any, said: str) -> None:
    got = batch_of(msgpack.packb({"t": LONG, "n": 1})).rows()
    with pytest.raises(RowError, match=said):
        got.__arrow_c_array__(asked.__arrow_c_schema__())
    with pytest.raises(TypeError, match="must be the capsule of an ArrowSchema"):
        got.__arrow_c_stream__(5)


def export(got: Rows, longest: int, **options: Any) -> RowExport:
    return RowExport(
        got._columns,
        got._batch._block,
        tuple(range(len(got.schema))),
        0,
        len(got),
        longest=longest,
        plain=True,
        **options,
    )


def test_more_text_than_one_array_takes() -> None:
    """A stream has several, cut where any column is full; an array is refused."""
    got = batch_of(*[msgpack.packb({"a": "x" * (i % 7), "b": b"y" * 5, "n": i}) for i in range(50)]).rows()
    reader = pa.RecordBatchReader._import_from_c_capsule(export(got, 23).stream())
    batches = list(reader)
    assert len(batches) > 5
    assert pa.Table.from_batches(batches).to_pylist() == pa.record_batch(got.plain()).to_pylist()
    for each in batches:
        each.validate(full=True)
        assert sum(map(len, each["a"].to_pylist())) <= 23
        assert sum(map(len, each["b"].to_pylist())) <= 23
    with pytest.raises(RowError, match="of 50 rows fit one array"):
        export(got, 23).array()
    with pytest.raises(RowError, match="column 'b': a value of more than the 4 bytes"):
        export(got, 4).stream()


def test_other_libraries() -> None:
    values = [{"t": LONG, "n": 1, "f": 1.5, "x": True}, {"t": None, "n": 2}, {"t": "é", "f": -1}]
    got = batch_of(*map(msgpack.packb, values), None).rows()
    wanted = [(LONG, 1, 1.5, True), (None, 2, None, None), ("é", None, -1.0, None), (None, None, None, None)]
    assert pl.DataFrame(got).rows() == wanted
    assert pl.DataFrame(got.plain()).rows() == wanted
    plain = got.plain()
    assert len(plain) == 4
    assert duckdb.sql("select * from plain").fetchall() == wanted
    assert pa.table(got).to_pandas()["n"].tolist()[:2] == [1.0, 2.0]


def test_no_columns() -> None:
    got = batch_of(msgpack.packb({}), None).rows()
    assert got.schema == RowSchema({})
    assert pa.record_batch(got).num_columns == 0
    assert pa.record_batch(got).num_rows == 2
    assert pa.record_batch(got.with_events("lsn")).to_pylist() == [{"lsn": 100}, {"lsn": 101}]


def test_importers_that_take_columns_apart() -> None:
    """Each column is released by itself, after the struct and in any order."""
    batch = batch_of(*[msgpack.packb({"t": f"{LONG} {i}", "n": i}) for i in range(10)])
    columns = pa.record_batch(batch.rows().with_events("row_id")).columns
    del batch
    gc.collect()
    texts = columns[1]
    del columns
    gc.collect()
    assert texts.to_pylist() == [f"{LONG} {i}" for i in range(10)]


def test_a_stream_is_read_once_and_knows_its_schema() -> None:
    got = batch_of(msgpack.packb({"a": 1})).rows()
    reader = pa.RecordBatchReader.from_stream(got)
    assert reader.schema == pa.schema(got)
    assert reader.read_all().to_pylist() == [{"a": 1}]
    assert list(reader) == []
    # And one that nobody reads lets go of what it has.
    got.__arrow_c_stream__()
    gc.collect()


def test_a_batch_is_no_frame_of_rows() -> None:
    with pytest.raises(BatchError):
        EventBatch.from_arrow(batch_of(msgpack.packb({"a": 1})).rows())
