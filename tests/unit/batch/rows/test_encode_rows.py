"""encode_rows: byte for byte what msgpack.packb makes of each row, and read back equal."""

# The stubs of pyarrow and pandas lag behind them, and know no Arrow capsules.
# pyright: reportArgumentType=false, reportMissingTypeArgument=false, reportUnknownParameterType=false
# pyright: reportCallIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import duckdb
import msgpack
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodedb_ring import EncodedRows, EventBatch, RowSchema, encode_rows

UTC: Final = datetime.UTC
INTEGERS: Final = sorted(
    {
        sign * 2**power + more
        for power in (0, 4, 5, 7, 8, 15, 16, 31, 32, 62, 63)
        for more in (-1, 0, 1)
        for sign in (1, -1)
    }
)
"""Those on either side of each width that MessagePack has."""
SIZES: Final = (0, 1, 2, 3, 4, 7, 8, 9, 12, 13, 15, 16, 17, 31, 32, 33, 255, 256, 257, 65_535, 65_536)

int64s = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([each for each in INTEGERS if -(2**63) <= each < 2**63])
uint64s = st.integers(0, 2**64 - 1) | st.sampled_from([each for each in INTEGERS if each >= 0])
floats = st.floats(width=64)
texts = st.text(max_size=40)
stamps = st.datetimes(datetime.datetime(1, 1, 2), datetime.datetime(9999, 12, 30), timezones=st.just(UTC))
# Type of a column of rows, Arrow's type, and values.
KINDS: Final[dict[str, tuple[Any, st.SearchStrategy[Any]]]] = {
    "bool": (pa.bool_(), st.booleans()),
    "int64": (pa.int64(), int64s),
    "uint64": (pa.uint64(), uint64s),
    "float64": (pa.float64(), floats),
    "str": (pa.string_view(), texts),
    "bytes": (pa.binary_view(), st.binary(max_size=40)),
    "timestamp": (pa.timestamp("us", "UTC"), stamps),
}


def packed(value: Any, **options: Any) -> bytes:
    return msgpack.packb(value, datetime=True, **options)


def values_of(encoded: EncodedRows) -> list[bytes]:
    data, offsets = encoded
    assert [data.dtype.name, offsets.dtype.name] == ["uint8", "int64"]
    assert (offsets[0], offsets[-1]) == (0, len(data))
    whole = data.tobytes()
    return [whole[start:stop] for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]


def batch_of(encoded: EncodedRows) -> EventBatch:
    count = len(encoded.offsets) - 1
    return EventBatch.from_columns(
        sequence=np.arange(1, count + 1), collection="t", op=1, row_id="", lsn=0, new_value=encoded
    )


def assert_rows(source: object, rows: Sequence[Mapping[str, Any] | None], **options: Any) -> None:
    assert values_of(encode_rows(source)) == [b"" if row is None else packed(row, **options) for row in rows]


# ---- against msgpack --------------------------------------------------------------------------------------------


@st.composite
def frames(draw: st.DrawFn) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """A schema and rows of it."""
    names = draw(st.lists(st.text("abß漢", min_size=1, max_size=9), unique=True, min_size=1, max_size=6))
    kinds = {name: draw(st.sampled_from(sorted(KINDS))) for name in names}
    row = st.fixed_dictionaries({name: st.none() | KINDS[kind][1] for name, kind in kinds.items()})
    rows = draw(st.lists(row, max_size=12))
    # In the order of the columns, which the strategy does not keep.
    return kinds, [{name: each[name] for name in names} for each in rows]


def table_of(kinds: dict[str, str], rows: list[dict[str, Any]]) -> pa.Table:
    columns = {name: pa.array([row[name] for row in rows], KINDS[kind][0]) for name, kind in kinds.items()}
    return pa.table(columns)


@settings(deadline=None)
@given(frames())
def test_the_bytes_are_those_of_msgpack(frame: tuple[dict[str, str], list[dict[str, Any]]]) -> None:
    kinds, rows = frame
    assert_rows(table_of(kinds, rows), rows)
    assert_rows({name: [row[name] for row in rows] for name in kinds}, rows)


@settings(deadline=None)
@given(frames())
def test_what_was_encoded_reads_back_equal(frame: tuple[dict[str, str], list[dict[str, Any]]]) -> None:
    kinds, rows = frame
    encoded = encode_rows(table_of(kinds, rows))
    read = batch_of(encoded).rows(schema=RowSchema(kinds))
    assert read.present.all()
    for name in kinds:
        assert read.given(name).all()
        assert read.valid(name).tolist() == [row[name] is not None for row in rows]
    # And once more, from what was read.
    assert values_of(encode_rows(read)) == values_of(encoded)


@settings(deadline=None)
@given(frames(), st.integers(0, 12), st.integers(0, 12))
def test_a_slice_is_encoded_alike(frame: tuple[dict[str, str], list[dict[str, Any]]], start: int, count: int) -> None:
    kinds, rows = frame
    part = rows[start : start + count]
    table = table_of(kinds, rows)
    assert_rows(table.slice(start, count), part)
    batches = table.combine_chunks().to_batches()
    if batches:
        assert_rows(batches[0].slice(start, count), part)
        # The struct has an offset, and its columns have none.
        assert_rows(batches[0].to_struct_array().slice(start, count), part)
    read = batch_of(encode_rows(table)).rows(schema=RowSchema(kinds))
    assert_rows(read[start : start + count], part)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i4", ">u8"])
def test_integers_of_every_width(dtype: str) -> None:
    bounds = np.iinfo(dtype)
    column = np.array([each for each in INTEGERS if bounds.min <= each <= bounds.max], dtype)
    rows = [{"n": each} for each in column.tolist()]
    assert_rows({"n": column}, rows)
    assert_rows({"n": column[::2]}, rows[::2])
    assert_rows({"n": pa.array(column.astype(column.dtype.newbyteorder("=")))}, rows)
    # The last of a row has no room behind it to write in.
    assert_rows({"n": column, "m": column}, [{"n": each, "m": each} for each in column.tolist()])


@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_narrow_floats_are_float_32(dtype: str) -> None:
    column = np.array([0.0, -0.0, 1.5, -2.25, math.inf, -math.inf, 6e-8, 6.1e-5, 65504.0, 0.1, math.nan], dtype)
    assert_rows({"f": column}, [{"f": each} for each in column.tolist()], use_single_float=True)
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    data = values_of(encode_rows({"f": halves}))
    got = np.array([msgpack.unpackb(each)["f"] for each in data])
    np.testing.assert_array_equal(got, halves.astype(float))


@pytest.mark.parametrize("size", SIZES)
def test_text_and_binary_of_every_width(size: int) -> None:
    text = "".join(chr(97 + i % 26) for i in range(size))
    rows: list[dict[str, Any] | None] = [{"t": text, "b": text.encode()}, {"t": None, "b": None}] * 2
    for string, binary in [
        (pa.string(), pa.binary()),
        (pa.large_string(), pa.large_binary()),
        (pa.string_view(), pa.binary_view()),
        (pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.uint32(), pa.large_binary())),
    ]:
        schema = pa.schema([("t", string), ("b", binary)])
        table = pa.table(
            {"t": [text, None] * 2, "b": [text.encode(), None] * 2}, pa.schema([("t", pa.string()), ("b", pa.binary())])
        )
        assert_rows(
            pa.table([column.cast(field.type) for column, field in zip(table.columns, schema, strict=True)], schema),
            rows,
        )
    if size:
        fixed = pa.array([text.encode(), None], pa.binary(size))
        assert_rows({"b": fixed}, [{"b": text.encode()}, {"b": None}])


@pytest.mark.parametrize("columns", [1, 15, 16, 17, 255, 256, 65_536])
def test_maps_of_every_width(columns: int) -> None:
    names = [f"c{number}" for number in range(columns)]
    row = dict.fromkeys(names, 1)
    assert_rows({name: np.ones(1, np.int8) if number == 0 else 1 for number, name in enumerate(names)}, [row])


@pytest.mark.parametrize("length", [1, 2, 7, 14, 15, 16, 17, 31, 32, 255, 256, 300])
def test_names_of_every_length(length: int) -> None:
    name = "n" * length
    rows = [{name: 1, "b": 2, f"{name}c": "text"}] * 3
    assert_rows({key: [row[key] for row in rows] for key in rows[0]}, rows)
    assert_rows(pa.Table.from_pylist(rows), rows)


@pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 257, 65_536])
def test_batches_of_every_size(count: int) -> None:
    numbers = np.arange(count)
    encoded = encode_rows({"n": numbers, "s": [str(each) for each in range(count)]})
    assert values_of(encoded) == [packed({"n": each, "s": str(each)}) for each in range(count)]
    assert batch_of(encoded).rows(schema=RowSchema({"n": "int64", "s": "str"}))["n"].tolist() == numbers.tolist()


# ---- nulls ------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.lists(
        st.none() | st.fixed_dictionaries({"a": st.none() | st.integers(0, 300), "b": st.none() | texts}), max_size=40
    )
)
def test_a_null_struct_is_no_value(rows: list[dict[str, Any] | None]) -> None:
    rows = [None if row is None else {"a": row["a"], "b": row["b"]} for row in rows]
    array = pa.array(rows, pa.struct([("a", pa.int16()), ("b", pa.string())]))
    assert_rows(array, rows)
    batch = batch_of(encode_rows(array))
    assert [value is None for value in batch.values("new_value")] == [row is None for row in rows]
    read = batch.rows(schema=RowSchema({"a": "int64", "b": "str"}))
    assert read.present.tolist() == [row is not None for row in rows]
    assert_rows(read, rows)


def test_long_runs_of_null_structs() -> None:
    rows: list[dict[str, Any] | None] = [None] * 600 + [{"a": 1}] * 600 + [None, {"a": 2}] * 300 + [None] * 300
    assert_rows(pa.array(rows, pa.struct([("a", pa.int64())])), rows)


def test_keys_that_are_not_given_are_left_out() -> None:
    rows: list[dict[str, Any] | None] = [{"a": 1, "b": None}, {"b": "x"}, None, {}, {"a": None}]
    values = [None if row is None else packed(row) for row in rows]
    batch = EventBatch.from_columns(sequence=np.arange(5), collection="t", op=1, row_id="", lsn=0, new_value=values)
    read = batch.rows(schema=RowSchema({"a": "int64", "b": "str"}))
    assert_rows(read, rows)
    assert_rows(read[1:], rows[1:])


def test_sixteen_keys_and_one_that_is_not_given() -> None:
    whole = {f"c{number}": number for number in range(16)}
    rows: list[dict[str, Any] | None] = [whole, {name: whole[name] for name in list(whole)[1:]}]
    batch = EventBatch.from_columns(
        sequence=[1, 2], collection="t", op=1, row_id="", lsn=0, new_value=[packed(row) for row in rows]
    )
    assert_rows(batch.rows(), rows)


def test_raw_columns_are_written_as_they_are() -> None:
    # Not in its shortest form, which another writer chose.
    row = b"\x82\xa1r\x81\xa1k\xcd\x00\x01\xa1n\x01"
    batch = EventBatch.from_columns(sequence=[1], collection="t", op=1, row_id="", lsn=0, new_value=[row])
    read = batch.rows(schema=RowSchema({"r": "raw", "n": "int64"}))
    assert values_of(encode_rows(read)) == [row]


def test_masked_values_are_nil() -> None:
    column = np.ma.masked_array([1, 2, 3], [False, True, False])
    assert_rows(
        {"n": column, "m": np.ma.masked_array(["a", "b", "c"], [True, False, True])},
        [{"n": 1, "m": None}, {"n": None, "m": "b"}, {"n": 3, "m": None}],
    )


def test_unpacked_pairs_have_empty_values() -> None:
    data, offsets = encode_rows(pa.array([{"a": 1}, None]))
    columns: dict[str, Any] = {"sequence": [1, 2], "collection": "t", "op": 1, "row_id": "", "lsn": 0}
    assert EventBatch.from_columns(**columns, new_value=(data, offsets)).values("new_value").tolist() == [
        b"\x81\xa1a\x01",
        b"",
    ]


# ---- times ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_stamps_of_every_form(unit: str) -> None:
    ticks = [0, 1, -1, 2**32 - 1, 2**32, 2**34 - 1, 2**34, 10**9, -(10**9), 1_700_000_000]
    per_second = {"s": 1, "ms": 1000, "us": 10**6, "ns": 10**9}[unit]
    step = 1000 if unit == "ns" else 1
    seconds = [each * per_second for each in ticks if abs(each * per_second) < 2**62]
    column = np.array([*(each * step for each in ticks), *seconds, *(each + step for each in seconds)], f"M8[{unit}]")
    stamps = [msgpack.Timestamp(*divmod(int(each) * (10**9 // per_second), 10**9)) for each in column.astype(np.int64)]
    rows = [{"t": each} for each in stamps]
    assert values_of(encode_rows({"t": column})) == [msgpack.packb(row) for row in rows]
    assert values_of(encode_rows({"t": pa.array(column)})) == [msgpack.packb(row) for row in rows]
    read = batch_of(encode_rows({"t": column})).rows(schema=RowSchema({"t": "timestamp"}))
    assert read["t"].tolist() == column.astype("M8[us]").tolist()


def test_a_stamp_that_is_none_is_nil() -> None:
    column = np.array(["2024-01-01", "NaT"], "M8[us]")
    assert_rows({"t": column}, [{"t": datetime.datetime(2024, 1, 1, tzinfo=UTC)}, {"t": None}])


@pytest.mark.parametrize("unit", ["Y", "M", "W", "D", "h", "m", "7D", "ps"])
def test_other_units_of_numpy_are_exact(unit: str) -> None:
    column = np.array(["1970-01-01", "NaT", "2024-02-29" if unit in "Dhm" else "1970-01-01"], "M8[s]").astype(
        f"M8[{unit}]"
    )
    expected = [None if np.isnat(each) else each.astype("M8[us]").item().replace(tzinfo=UTC) for each in column]
    assert_rows({"t": column}, [{"t": each} for each in expected])


# ---- what a column may come as ----------------------------------------------------------------------------------

ROWS: Final[list[dict[str, Any]]] = [
    {"carrier": "UA", "delay": 2, "ratio": 0.5, "late": True},
    {"carrier": None, "delay": -11, "ratio": 1.25, "late": False},
    {"carrier": "a carrier with a long name", "delay": 70_000, "ratio": -1e300, "late": True},
]


def test_polars_frames() -> None:
    frame = pl.DataFrame(ROWS)
    assert_rows(frame, ROWS)
    assert_rows(frame.to_struct("all"), ROWS)
    assert_rows(pl.concat([frame, frame], rechunk=False), ROWS * 2)
    assert_rows(frame.with_columns(pl.col("carrier").cast(pl.Categorical)), ROWS)
    assert_rows(frame.with_columns(pl.col("carrier").cast(pl.Enum(["UA", ROWS[2]["carrier"]]))), ROWS)


def test_pyarrow_tables() -> None:
    table = pa.Table.from_pylist(ROWS)
    assert_rows(table, ROWS)
    assert_rows(table.to_batches()[0], ROWS)
    assert_rows(table.to_batches()[0].to_struct_array(), ROWS)
    assert_rows(pa.concat_tables([table, table]), ROWS * 2)
    assert_rows(pa.RecordBatchReader.from_batches(table.schema, table.to_batches()), ROWS)


def test_duckdb_relations() -> None:
    assert_rows(duckdb.from_arrow(pa.Table.from_pylist(ROWS)), ROWS)


def test_pandas_frames_and_batches() -> None:
    assert_rows(pd.DataFrame(ROWS).astype({"carrier": object}), ROWS)
    assert_rows(pd.DataFrame(ROWS)[lambda each: each["delay"] > 0], [ROWS[0], ROWS[2]])
    assert_rows(EventBatch.from_events([]).select("lsn", "op"), [])


CARRIERS: Final[list[str | None]] = [row["carrier"] for row in ROWS]
DELAYS: Final[list[int]] = [row["delay"] for row in ROWS]


@pytest.mark.parametrize(
    "column",
    [
        lambda: CARRIERS,
        lambda: tuple(CARRIERS),
        lambda: pl.Series(CARRIERS),
        lambda: pa.array(CARRIERS),
        lambda: np.array(CARRIERS, object),
        lambda: pa.chunked_array([CARRIERS[:1], [], CARRIERS[1:]]),
        lambda: pd.Series(CARRIERS, dtype=object),
        lambda: iter(CARRIERS),
    ],
)
def test_text_of_each_library(column: Callable[[], Any]) -> None:
    rows = [{"c": text, "d": delay} for text, delay in zip(CARRIERS, DELAYS, strict=True)]
    assert_rows({"c": column(), "d": np.array(DELAYS)}, rows)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (lambda: pl.Series(DELAYS), DELAYS),
        (lambda: pa.chunked_array([DELAYS[:2], DELAYS[2:]]), DELAYS),
        (lambda: pd.Series(DELAYS), DELAYS),
        (lambda: range(3), [0, 1, 2]),
        (lambda: memoryview(np.arange(3).data), [0, 1, 2]),
    ],
)
def test_numbers_of_each_library(column: Callable[[], Any], expected: list[int]) -> None:
    mixed = pa.chunked_array([CARRIERS[:1], CARRIERS[1:]])
    assert_rows(
        {"d": column(), "c": mixed}, [{"d": each, "c": text} for each, text in zip(expected, CARRIERS, strict=True)]
    )


def test_columns_that_lack_values_and_values_for_all_rows() -> None:
    assert_rows(
        {"n": pd.Series([1, None, 3], dtype="Int64"), "f": pd.Series([1.5, math.nan, 2.5])},
        [{"n": 1, "f": 1.5}, {"n": None, "f": None}, {"n": 3, "f": 2.5}],
    )
    assert_rows(
        {"s": np.array(["a", "long text"]), "one": "x", "none": None},
        [{"s": "a", "one": "x", "none": None}, {"s": "long text", "one": "x", "none": None}],
    )


NESTED: Final[list[dict[str, Any]]] = [
    {"l": [1, 2, None], "s": {"x": 1, "y": "text"}, "ll": [[1], [], None], "f": [1, 2]},
    {"l": [], "s": None, "ll": None, "f": None},
    {"l": None, "s": {"x": None, "y": None}, "ll": [], "f": [3, None]},
]


def test_polars_frames_that_nest() -> None:
    assert_rows(pl.DataFrame(NESTED[:2]), NESTED[:2])


def test_values_that_nest() -> None:
    rows = NESTED
    kinds = pa.struct(
        [
            ("l", pa.list_(pa.int64())),
            ("s", pa.struct([("x", pa.int64()), ("y", pa.string())])),
            ("ll", pa.large_list(pa.list_(pa.int8()))),
            ("f", pa.list_(pa.int16(), 2)),
        ]
    )
    array = pa.array(rows, kinds)
    assert_rows(array, rows)
    assert_rows(array[1:], rows[1:])
    assert_rows({name: [row[name] for row in rows] for name in rows[0]}, rows)
    maps = pa.array([[("a", 1), ("b", None)], None, []], pa.map_(pa.string(), pa.int64()))
    assert_rows({"m": maps}, [{"m": {"a": 1, "b": None}}, {"m": None}, {"m": {}}])
    assert_rows({"m": maps[1:]}, [{"m": None}, {"m": {}}])
    read = batch_of(encode_rows(array)).rows(schema=RowSchema({"s": "raw", "l": "raw"}))
    assert read["s"].tolist() == [packed(rows[0]["s"]), None, packed(rows[2]["s"])]


nested = st.recursive(
    st.none() | st.booleans() | int64s | uint64s | floats | texts | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(nested, max_size=6))
def test_objects_are_what_msgpack_makes_of_them(values: list[Any]) -> None:
    assert_rows({"v": values}, [{"v": each} for each in values])


def test_objects_of_numpy_and_pandas() -> None:
    stamp = pd.Timestamp("2024-05-06 07:08:09.123456", tz="UTC")
    values = [
        np.int64(-7),
        np.float32(0.5),
        np.bool_(True),
        np.str_("s"),
        pd.NA,
        pd.NaT,
        np.ma.masked,
        bytearray(b"x"),
        np.datetime64("2024-05-06", "D"),
        stamp,
        stamp.to_pydatetime(),
        datetime.datetime(2024, 5, 6),
    ]
    day = datetime.datetime(2024, 5, 6, tzinfo=UTC)
    expected = [-7, 0.5, True, "s", None, None, None, b"x", day, stamp.to_pydatetime(), stamp.to_pydatetime(), day]
    assert_rows({"v": values}, [{"v": each} for each in expected])


def test_the_index_of_pandas_is_no_column() -> None:
    frame = pd.DataFrame({"a": [1, 2, 3]}, index=[5, 6, 7])
    assert_rows(frame, [{"a": 1}, {"a": 2}, {"a": 3}])
    assert_rows(frame.rename_axis("named"), [{"a": 1}, {"a": 2}, {"a": 3}])
    assert_rows(frame.rename_axis("named").reset_index(), [{"named": each + 4, "a": each} for each in (1, 2, 3)])
