"""``EventBatch.rows`` against ``msgpack.unpackb``: every type and encoding, keys in any order, missing and twice."""

from __future__ import annotations

import itertools
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodedb_ring import EventBatch, RowError, RowSchema
from nodedb_ring.batch.rows.schema import ROW_TYPES

from . import messages
from .messages import INTEGER_EDGES, NAMES, Row, batch_of, encodings, maps, rows, texts
from .oracle import Refused, column, filler, same, taken

DTYPES: dict[str, Any] = {
    "bool": np.bool_,
    "int64": np.int64,
    "uint64": np.uint64,
    "float64": np.float64,
    "timestamp": "datetime64[us]",
}


def check_column(batch: EventBatch, wanted: list[tuple[bool, Any]], name: str, kind: str, schema: RowSchema) -> None:
    got = batch.rows("new_value", schema)
    assert got.given(name).tolist() == [is_given for is_given, _ in wanted]
    assert got.valid(name).tolist() == [value is not None for _, value in wanted]
    array = got[name]
    assert array.dtype == np.dtype(DTYPES.get(kind, object))
    assert not array.flags.writeable
    plain = array.view(np.int64).tolist() if kind == "timestamp" else array.tolist()
    absent = np.datetime64("NaT", "us").astype(np.int64) if kind == "timestamp" else filler(kind)
    for value, (_, expected) in zip(plain, wanted, strict=True):
        assert same(value, absent if expected is None else expected)
        assert type(value) is type(expected) or expected is None


def takes_column(batch: EventBatch, drawn: list[Row | None], name: str, kind: str) -> bool:
    """Whether a column takes all of its values. Then they are what ``msgpack`` says; else it is refused."""
    schema = RowSchema({name: kind})
    try:
        wanted = column(drawn, name, kind)
    except Refused:
        with pytest.raises(RowError):
            batch.rows("new_value", schema)
        return False
    check_column(batch, wanted, name, kind, schema)
    return True


def as_unpacked(row: Row) -> dict[str, Any]:
    """What ``msgpack`` says of the same bytes: the rows that are drawn are what they are said to be."""
    return dict(msgpack.unpackb(row.message, strict_map_key=False))


@settings(max_examples=400, deadline=None)
@given(drawn=st.lists(st.none() | rows(), max_size=6), name=st.sampled_from(NAMES), kind=st.sampled_from(ROW_TYPES))
def test_a_column_is_what_msgpack_says(drawn: list[Row | None], name: str, kind: str) -> None:
    for row in drawn:
        if row is not None:
            assert as_unpacked(row) == {key: value for key, value, _ in row.pairs}
    batch = batch_of(*[row and row.message for row in drawn])
    if takes_column(batch, drawn, name, kind):
        decoded = batch.rows("new_value", RowSchema({name: kind}))
        assert decoded.present.tolist() == [row is not None for row in drawn]


@settings(max_examples=200, deadline=None)
@given(
    row=rows(), others=st.lists(rows(), max_size=3), kinds=st.lists(st.sampled_from(ROW_TYPES), min_size=8, max_size=8)
)
def test_many_columns_at_once(row: Row, others: list[Row], kinds: list[str]) -> None:
    """Every column by itself, and all of them in one pass: of the same rows, so that keys are predicted."""
    drawn: list[Row | None] = [row, row, None, *others, row, row]
    schema: dict[str, str] = dict(zip(NAMES, kinds, strict=True))
    for name in NAMES:
        try:
            column(drawn, name, schema[name])
        except Refused:
            del schema[name]
    batch = batch_of(*[each and each.message for each in drawn])
    for name, kind in schema.items():
        check_column(batch, column(drawn, name, kind), name, kind, RowSchema(schema))


@pytest.mark.parametrize("kind", ["int64", "uint64", "float64", "raw"])
@pytest.mark.parametrize("value", INTEGER_EDGES)
def test_every_width_of_every_integer(value: int, kind: str) -> None:
    for message in encodings(value):
        # Alone, and in the middle of rows that are read by the quick path.
        one = maps([(texts(b"n")[0], message)])[0]
        for values in ([one], [one] * 40):
            batch = batch_of(*values)
            try:
                wanted = taken(kind, value, message)
            except Refused:
                with pytest.raises(RowError, match=rf"column 'n': the integer {value} "):
                    batch.rows("new_value", RowSchema({"n": kind}))
            else:
                assert batch.rows("new_value", RowSchema({"n": kind}))["n"].tolist() == [wanted] * len(values)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 7, 8, 9, 11, 12, 13, 15, 16, 17, 30, 31, 32, 33, 255, 256, 65535, 65536])
@pytest.mark.parametrize("letter", ["x", "é", "漢", "\U0001f600"])
def test_text_of_every_size(size: int, letter: str) -> None:
    text = (letter * size)[:size]
    while len(text.encode()) > size:
        text = text[:-1]
    text += "y" * (size - len(text.encode()))
    for message in encodings(text):
        one = maps([(texts(b"k")[0], message), (texts(b"l")[0], b"\x07")])[0]
        got = batch_of(*[one] * 3).rows()
        assert got["k"].tolist() == [text] * 3
        assert got["l"].tolist() == [7] * 3
        passed = batch_of(*[one] * 3).rows("new_value", RowSchema({"l": "int64"}))
        assert passed["l"].tolist() == [7] * 3


@pytest.mark.parametrize("kind", [kind for kind in ROW_TYPES if kind != "null"])
def test_of_a_key_that_stands_twice_the_last_counts(kind: str) -> None:
    """Even if the first is of another type."""
    fitting = {"bool": True, "str": "s", "bytes": b"b", "timestamp": msgpack.Timestamp(1)}.get(kind, 5)
    other = 5 if kind in ("str", "bool", "bytes", "timestamp") else "s"
    key = texts(b"k")[0]
    fits, strays = encodings(fitting)[0], encodings(other)[0]
    schema = RowSchema({"k": kind, "l": "int64"})
    row = maps([(key, strays), (texts(b"l")[0], b"\x01"), (key, fits)])[0]
    got = batch_of(row, row).rows("new_value", schema)
    assert got.valid("k").all()
    assert got["l"].tolist() == [1, 1]
    if kind != "raw":
        with pytest.raises(RowError, match="column 'k'"):
            batch_of(row, maps([(key, fits), (key, strays)])[0]).rows("new_value", schema)
    nil = batch_of(maps([(key, fits), (key, b"\xc0")])[0]).rows("new_value", schema)
    assert nil.valid("k").tolist() == [False]
    assert nil.given("k").tolist() == [True]


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 65536])
def test_batches_of_every_size(count: int) -> None:
    values = [None if i % 7 == 3 else msgpack.packb({"i": i, "t": f"text {i:020}"[: i % 26]}) for i in range(count)]
    got = batch_of(*values).rows("new_value", RowSchema({"t": "str", "i": "int64"}))
    assert len(got) == count
    assert got.present.tolist() == [value is not None for value in values]
    assert got["i"].tolist() == [0 if i % 7 == 3 else i for i in range(count)]
    assert got["t"].tolist() == [None if i % 7 == 3 else f"text {i:020}"[: i % 26] for i in range(count)]


def test_keys_in_every_order() -> None:
    fields = {"a": 1, "bb": "two", "ccc": 3.5, "dddd": None}
    orders = list(itertools.permutations(fields))
    got = batch_of(*[msgpack.packb({name: fields[name] for name in order}) for order in orders]).rows()
    assert got["a"].tolist() == [1] * len(orders)
    assert got["bb"].tolist() == ["two"] * len(orders)
    assert got["ccc"].tolist() == [3.5] * len(orders)
    assert got.given("dddd").all()


@pytest.mark.parametrize("count", [15, 16, 127, 128, 129, 300])
def test_rows_of_many_keys(count: int) -> None:
    """More than a head of one byte counts, and more than are predicted."""
    row = {f"column_{i}": i for i in range(count)}
    got = batch_of(*[msgpack.packb(row)] * 3, msgpack.packb(dict(reversed(row.items())))).rows()
    assert list(got.schema) == list(row)
    assert all(got[name].tolist() == [i] * 4 for name, i in row.items())


def test_the_old_value() -> None:
    batch = batch_of(msgpack.packb({"a": 1}), None, field="old_value")
    assert batch.rows("old_value")["a"].tolist() == [1, 0]
    assert not batch.rows("new_value").present.any()


def test_nested_values_of_any_depth() -> None:
    """What nests deeper than any stack: passed over, and taken as it is."""
    for depth in (1, 1000, 1_000_000):
        for opening, closing in ((b"\x91", b"\xc0"), (b"\x81\xa1k", b"\xc0"), (b"\x92\x01", b"\x02")):
            nested = opening * depth + closing
            row = maps([(texts(b"deep")[0], nested), (texts(b"n")[0], b"\x05")])[0]
            batch = batch_of(row, row)
            assert batch.rows("new_value", RowSchema({"n": "int64"}))["n"].tolist() == [5, 5]
            got = batch.rows()
            assert got.schema == RowSchema({"deep": "raw", "n": "int64"})
            assert got["deep"].tolist() == [nested, nested]


def test_slices_of_a_batch() -> None:
    batch = batch_of(*[msgpack.packb({"i": i, "t": f"a text of more than twelve bytes, {i}"}) for i in range(50)])
    for part in (batch[10:20], batch[10:20][3:], batch[49:], batch[50:], EventBatch.concat([batch[5:9]])):
        first = int(part.sequence[0]) - 100 if len(part) else 0
        assert part.rows()["i"].tolist() if len(part) else list(range(first, first + len(part))) == []
        if len(part):
            texts_of = part.rows()["t"].tolist()
            assert texts_of == [f"a text of more than twelve bytes, {i}" for i in range(first, first + len(part))]


def test_equal_neighbours_share_one_object() -> None:
    got = batch_of(*[msgpack.packb({"t": "a text of more than twelve bytes"})] * 2).rows()["t"]
    assert got[0] is got[1]


def test_every_leaf_is_drawn_as_it_is() -> None:
    """The oracle's own encodings, against ``msgpack``."""
    for value in [
        *INTEGER_EDGES,
        1.5,
        "x" * 40,
        b"y" * 300,
        msgpack.Timestamp(5, 6000),
        [1, [2]],
        {"a": 1},
        None,
        True,
    ]:
        for message in messages.encodings(value):
            assert msgpack.unpackb(message) == value
