"""What encode_rows refuses: by the column's name, with what to do, and before anything is made."""

# The stubs of pyarrow and pandas lag behind them, and know no Arrow capsules.
# pyright: reportArgumentType=false, reportMissingTypeArgument=false, reportUnknownParameterType=false
# pyright: reportCallIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

import ctypes
import datetime
import decimal
import threading
from collections.abc import Callable
from typing import Any

import duckdb
import msgpack
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from nodedb_ring import BatchError, RingError, RowError, encode_rows
from tests.unit.batch.arrow.capsules import ArrowArray, ArrowSchema, array_in, capsule_of, schema_in

DAY = datetime.date(2024, 5, 6)


@pytest.mark.parametrize(
    ("source", "column", "message"),
    [
        (
            lambda: pl.DataFrame({"a": [1], "day": [DAY]}),
            "day",
            "column 'day' is date32: is no type of MessagePack; cast it to a time",
        ),
        (lambda: pl.DataFrame({"t": [datetime.time(1)]}), "t", r"time64\[ns\].*cast it to an integer or to text"),
        (
            lambda: pl.DataFrame({"t": [datetime.timedelta(1)]}),
            "t",
            "is no type of MessagePack; cast it to an integer or to text",
        ),
        (lambda: pl.DataFrame({"d": [decimal.Decimal("1.5")]}), "d", r"decimal\(.*cast it to int64 or float64"),
        (lambda: duckdb.sql("select 1.5::decimal(9, 1) as d"), "d", "decimal"),
        (lambda: pa.table({"l": pa.array([[DAY]])}), "l", "column 'l' is date32"),
        (lambda: pa.table({"s": pa.array([{"x": decimal.Decimal(1)}])}), "s", "column 's' is decimal"),
        (
            lambda: pa.table({"r": pa.RunEndEncodedArray.from_arrays([2], ["x"])}),
            "r",
            "run-end encoded.*decode its runs",
        ),
        (lambda: pa.table({"l": pa.array([[1]], pa.list_view(pa.int8()))}), "l", "list_view.*cast it to a list"),
        (
            lambda: pa.table({"u": pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])}),
            "u",
            "make a column of each",
        ),
        (
            lambda: pa.table({"p": pd.period_range("2024", periods=1, freq="D")}),
            "p",
            "'pandas.period', an extension type",
        ),
        (lambda: pa.table([pa.array([1]), pa.array([2])], ["a", "a"]), "a", "column 'a': is there twice"),
        (lambda: pa.table([pa.array([1])], [""]), "", "the name is empty"),
        (
            lambda: pa.table({"s": pa.StructArray.from_arrays([pa.array([1])] * 2, ["x", "x"])}),
            "s",
            "its field 'x' is there twice",
        ),
        (lambda: {"a": [1], "b": np.zeros(1, "m8[s]")}, "b", r"column 'b' is an array of timedelta64\[s\]"),
        (lambda: {"b": np.zeros(1, complex)}, "b", "complex128"),
        (lambda: {"b": np.zeros(1, "S3")}, "b", "pass a list of bytes"),
        (lambda: {"b": np.zeros(1, [("x", "i4")])}, "b", "pass a list of its values"),
        (lambda: {"b": np.zeros(1, np.longdouble)}, "b", "cast it to float64"),
        (lambda: {"b": np.zeros((2, 2))}, "b", r"shape \(2, 2\)"),
        (lambda: {"b": np.ones(1, np.int64).view("M8")}, "b", "without a unit"),
        (lambda: {"\0": [1]}, "\0", "has a NUL"),
        (lambda: {"\ud800": [1]}, "\ud800", "lone surrogate"),
        (lambda: {"a": [1, 2], "b": [1]}, None, "columns of unequal length: a 2, b 1"),
        (lambda: {"a": pa.array([1, 2]), "b": pl.Series([1])}, None, "columns of unequal length: a 2, b 1"),
        (lambda: {"a": 1, "b": "x"}, None, "at least one must say how many rows"),
        (dict, None, "at least one must say how many rows"),
        (lambda: pa.array([1]), None, "int64: must be columns"),
        (lambda: pl.Series([1]), None, "int64: must be columns"),
    ],
)
def test_a_column_is_refused_by_name(source: Callable[[], Any], column: str | None, message: str) -> None:
    with pytest.raises(RowError, match=message) as caught:
        encode_rows(source())
    assert (caught.value.column, caught.value.position) == (column, None)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2**64, "row 1: column 'v': 18446744073709551616: MessagePack has integers from"),
        (-(2**63) - 1, "row 1: column 'v': -9223372036854775809"),
        (object, "is of type, which is no type of MessagePack"),
        (DAY, r"datetime.date\(2024, 5, 6\) is of date"),
        (decimal.Decimal(1), "is of Decimal"),
        (1j, "is of complex"),
        ({1, 2}, "is of set"),
        (msgpack.ExtType(1, b"x"), "is of ExtType"),
        ("\ud800", "has a lone surrogate"),
        ([["\ud800"]], "has a lone surrogate"),
        ({"k": object()}, "is of object"),
        (np.timedelta64(1, "s"), "is of timedelta64"),
        (np.longdouble(1), "is of longdouble"),
        (np.datetime64(1, "ns"), "is no whole number of microseconds"),
        (pd.Timestamp(1), "is no whole number of microseconds"),
        (np.datetime64(2**60, "s"), "that 64 bits hold"),
    ],
)
def test_an_object_is_refused_by_row(value: object, message: str) -> None:
    with pytest.raises(RowError, match=message) as caught:
        encode_rows({"a": [1, 2], "v": [1, value]})
    assert (caught.value.column, caught.value.position) == ("v", 1)


def test_objects_nest_so_deep_and_no_deeper() -> None:
    value: list[Any] = []
    for _ in range(63):
        value = [value]
    assert encode_rows({"v": [value]}).data.tobytes() == b"\x81\xa1v" + b"\x91" * 63 + b"\x90"
    with pytest.raises(RowError, match="nest more than 64 deep"):
        encode_rows({"v": [[value]]})
    value.append(value)
    with pytest.raises(RowError, match="or hold themselves"):
        encode_rows({"v": [value]})


def test_types_nest_so_deep_and_no_deeper() -> None:
    array = pa.array([1])
    for _ in range(63):
        array = pa.ListArray.from_arrays([0, len(array)], array)
    assert encode_rows({"v": array}).data.tobytes() == b"\x81\xa1v" + b"\x91" * 63 + b"\x01"
    with pytest.raises(RowError, match="column 'v': its type nests more than 64 deep"):
        encode_rows({"v": pa.ListArray.from_arrays([0, 1], array)})


@pytest.mark.parametrize(
    ("column", "row", "message"),
    [
        (np.array([0, 1], "M8[ns]"), 1, "is no whole number of microseconds"),
        (np.array([0, 1], "M8[ps]"), 1, "is no whole number of microseconds"),
        (np.array([0, 2**62], "M8[s]"), 1, "does not fit 64 bits of microseconds"),
        (np.array([0, -(2**62)], "M8[ms]"), 1, "does not fit 64 bits of microseconds"),
        (np.array([0, 2**62], "M8[D]"), 1, "that 64 bits hold"),
        (pa.array([b"ok", b"\xff"]).cast(pa.binary()).view(pa.string()), 1, "is not UTF-8"),
        (pa.array([b"ok", b"more than twelve\xff"]).view(pa.string()).cast(pa.string_view()), 1, "is not UTF-8"),
        (pa.DictionaryArray.from_arrays([0, 1], pa.array([b"ok", b"\xff"]).view(pa.string())), 1, "is not UTF-8"),
    ],
)
def test_a_value_is_refused_by_row(column: Any, row: int, message: str) -> None:
    with pytest.raises(RowError, match=f"row {row}: column 'v'.*{message}") as caught:
        encode_rows({"n": np.arange(2), "v": column})
    assert (caught.value.column, caught.value.position) == ("v", row)


def test_the_row_is_counted_from_the_first_chunk() -> None:
    chunks = pa.chunked_array([pa.array([0] * 300, pa.timestamp("ns")), pa.array([0] * 300 + [1], pa.timestamp("ns"))])
    for source in ({"t": chunks}, pa.table({"t": chunks})):
        with pytest.raises(RowError, match="row 600: column 't'") as caught:
            encode_rows(source)
        assert caught.value.position == 600


@pytest.mark.parametrize("source", [None, 1, "text", [1], [{"a": 1}], object()])
def test_other_objects_are_refused(source: object) -> None:
    with pytest.raises(TypeError, match="must be a mapping of columns, Rows, or an object with __arrow_c_array__"):
        encode_rows(source)


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="column 1: a name must be a str"):
        encode_rows({1: [2]})


@pytest.mark.parametrize("column", [{1, 2}, {"k": 1}])
def test_a_column_has_an_order(column: object) -> None:
    with pytest.raises(RingError, match="column 'a'"):
        encode_rows({"a": column})


# ---- arrays that are not what their schemas say -----------------------------------------------------------------


class Broken:
    """Arrays whose structs were written over."""

    def __init__(self, **columns: Any) -> None:
        self.capsules = pa.record_batch(columns).__arrow_c_array__()
        self.schema: ArrowSchema = schema_in(self.capsules[0])
        self.array: ArrowArray = array_in(self.capsules[1])
        self.kept: list[Any] = []
        self.names = (b"arrow_schema", b"arrow_array")

    @property
    def column(self) -> ArrowArray:
        child: ArrowArray = self.array.children[0].contents
        return child

    def write(self, array: ArrowArray, buffer: int, dtype: str, *numbers: int) -> None:
        data = np.array(numbers, dtype).tobytes()
        held = ctypes.create_string_buffer(data, len(data))
        self.kept.append(held)
        array.buffers[buffer] = ctypes.addressof(held)

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        return capsule_of(self.schema, self.names[0]), capsule_of(self.array, self.names[1])


TEXT = pa.array(["a text of more than twelve", "b", "another of them"])
LISTS = pa.array([[1, 2], [3], []])
MAPS = pa.array([[("a", 1)], [("b", 2)], []], pa.map_(pa.string(), pa.int64()))


def broken_length(it: Broken) -> None:
    it.column.length = 2


def broken_struct_length(it: Broken) -> None:
    it.array.length = -1


def broken_struct_offset(it: Broken) -> None:
    it.array.offset = 1


def broken_struct_huge(it: Broken) -> None:
    it.array.length = 2**62


def broken_offset(it: Broken) -> None:
    it.column.offset = -1


def broken_huge_offset(it: Broken) -> None:
    it.column.offset = 2**63 - 2


def broken_buffers(it: Broken) -> None:
    it.column.n_buffers = 1


def broken_no_data(it: Broken) -> None:
    it.column.buffers[1] = None


def broken_children(it: Broken) -> None:
    it.array.n_children = 0


@pytest.mark.parametrize(
    "column", [pa.array([1, 2, 3]), TEXT, TEXT.cast(pa.string_view()), TEXT.dictionary_encode(), LISTS, MAPS]
)
@pytest.mark.parametrize(
    "breaks",
    [
        broken_length,
        broken_struct_length,
        broken_struct_offset,
        broken_struct_huge,
        broken_offset,
        broken_huge_offset,
        broken_buffers,
        broken_no_data,
        broken_children,
    ],
)
def test_a_broken_array_is_refused(column: Any, breaks: Any) -> None:
    it = Broken(c=column)
    assert len(encode_rows(Broken(c=column)).offsets) == 4
    breaks(it)
    with pytest.raises(BatchError):
        encode_rows(it)


@pytest.mark.parametrize(
    ("column", "buffer", "dtype", "numbers"),
    [
        (TEXT, 1, "i4", (0, 6, 5, 12)),
        (TEXT, 1, "i4", (-6, 0, 6, 12)),
        (TEXT.cast(pa.large_string()), 1, "i8", (0, 6, 5, 12)),
        (TEXT.cast(pa.large_string()), 1, "i8", (-6, 0, 6, 12)),
        (TEXT.cast(pa.string_view()), 1, "i4", (20, 0, 9, 0) * 3),
        (TEXT.cast(pa.string_view()), 1, "i4", (20, 0, -1, 0) * 3),
        (TEXT.cast(pa.string_view()), 1, "i4", (20, 0, 0, -1) * 3),
        (TEXT.cast(pa.string_view()), 1, "i4", (20, 0, 0, 2**31 - 20) * 3),
        (TEXT.cast(pa.string_view()), 1, "i4", (-1, 0, 0, 0) * 3),
        (TEXT.dictionary_encode(), 1, "i4", (0, 3, 1)),
        (TEXT.dictionary_encode(), 1, "i4", (0, -1, 1)),
        # Behind the dictionary there lies another text.
        (pa.DictionaryArray.from_arrays([0, 1, 1], pa.array(["a", "b", "c"])[:2]), 1, "i8", (0, 2, 1)),
        (LISTS, 1, "i4", (0, 4, 4, 4)),
        (LISTS, 1, "i4", (-1, 2, 3, 3)),
        (LISTS, 1, "i4", (2, 1, 3, 3)),
        (LISTS.cast(pa.large_list(pa.int64())), 1, "i8", (0, 2**62, 3, 3)),
        (MAPS, 1, "i4", (0, 3, 3, 3)),
    ],
)
def test_a_value_outside_of_its_buffers_is_refused(
    column: Any, buffer: int, dtype: str, numbers: tuple[int, ...]
) -> None:
    it = Broken(c=column)
    it.write(it.column, buffer, dtype, *numbers)
    with pytest.raises(RowError, match=r"row \d: column 'c' does not lie in its buffers") as caught:
        encode_rows(it)
    assert caught.value.column == "c"


def test_a_fixed_list_that_its_items_do_not_fill_is_refused() -> None:
    it = Broken(c=pa.array([[1, 2], [3, 4]], pa.list_(pa.int8(), 2)))
    it.column.children[0].contents.length = 3
    with pytest.raises(RowError, match="row 1: column 'c' does not lie in its buffers"):
        encode_rows(it)


def test_a_map_with_a_null_key_is_refused() -> None:
    it = Broken(c=MAPS)
    keys = it.column.children[0].contents.children[0].contents
    it.write(keys, 0, "u1", 0b01)
    keys.null_count = 1
    with pytest.raises(RowError, match="row 1: column 'c' has a key that is null"):
        encode_rows(it)


def test_what_a_small_array_comes_to_is_bounded() -> None:
    # Lists of lists of one value of a megabyte: a million times a megabyte, if anybody wrote it.
    array = pa.array([b"x" * 2**20])
    for _ in range(2):
        again = pa.DictionaryArray.from_arrays(pa.array(np.zeros(1000, np.int8)), array)
        array = pa.ListArray.from_arrays([0, 1000], again)
    with pytest.raises(RowError, match="row 0: column 'c' has more bytes or items than MessagePack counts"):
        encode_rows({"c": array})


def test_a_column_that_changes_is_found_or_written_whole() -> None:
    """Another thread writes to a column all the while: each answer is an error, or rows that are MessagePack."""
    column = np.zeros(50_000, np.int64)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            column[:] = 2**40
            column[:] = 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(40):
            try:
                data, offsets = encode_rows({"n": column})
            except RowError as error:
                assert "has changed while it was encoded" in str(error)  # noqa: PT017
                continue
            for start, stop_at in zip(offsets[:-1:97].tolist(), offsets[1::97].tolist(), strict=False):
                assert msgpack.unpackb(data[start:stop_at].tobytes())["n"] in (0, 1, 2**40)
    finally:
        stop.set()
        writer.join()
