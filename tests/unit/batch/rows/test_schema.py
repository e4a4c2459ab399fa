"""``RowSchema``: what it takes and refuses, unions, and what is inferred."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodedb_ring import RowError, RowSchema, UnknownColumnError
from nodedb_ring.batch.rows.schema import ROW_TYPES

from .messages import NAMES, Row, batch_of, leaves, maps, rows, texts
from .oracle import kind_of

FLIGHTS = RowSchema({"carrier": "str", "dep_delay": "int64"})


def test_a_mapping_in_order() -> None:
    assert list(FLIGHTS) == ["carrier", "dep_delay"]
    assert dict(FLIGHTS) == {"carrier": "str", "dep_delay": "int64"}
    assert len(FLIGHTS) == 2
    assert FLIGHTS["carrier"] == "str"
    assert "carrier" in FLIGHTS
    assert "x" not in FLIGHTS
    assert FLIGHTS.get("x") is None
    assert repr(FLIGHTS) == "RowSchema({'carrier': 'str', 'dep_delay': 'int64'})"
    assert eval(repr(FLIGHTS)) == FLIGHTS
    with pytest.raises(UnknownColumnError, match=r"^'x': no such column; columns are carrier, dep_delay$"):
        FLIGHTS["x"]
    with pytest.raises(UnknownColumnError, match=r"^'x': no such column; the schema has no columns$"):
        RowSchema({})["x"]


def test_equality_is_of_names_types_and_order() -> None:
    assert RowSchema([("carrier", "str"), ("dep_delay", "int64")]) == FLIGHTS
    assert hash(RowSchema(dict(FLIGHTS))) == hash(FLIGHTS)
    assert RowSchema({"dep_delay": "int64", "carrier": "str"}) != FLIGHTS
    assert RowSchema({"carrier": "str", "dep_delay": "uint64"}) != FLIGHTS
    assert dict(FLIGHTS) != FLIGHTS
    assert pickle.loads(pickle.dumps(FLIGHTS)) == copy.deepcopy(FLIGHTS) == FLIGHTS


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"a": "int"}, "column 'a': type 'int' is unknown; types are bool, int64, "),
        ({"": "str"}, "column '': the name is empty"),
        ([("a", "str"), ("a", "int64")], "column 'a': stands twice in the schema"),
        ({"a\0b": "str"}, "has a NUL"),
        ({"\ud800": "str"}, "a lone surrogate"),
    ],
)
def test_what_it_refuses(columns: Any, said: str) -> None:
    with pytest.raises(RowError, match=said) as caught:
        RowSchema(columns)
    assert caught.value.column is not None


@pytest.mark.parametrize("columns", [5, "ab", [5], ["ab"], [("a", "str", "x")], {5: "str"}, {"a": 5}, None])
def test_what_is_of_another_type(columns: Any) -> None:
    with pytest.raises(TypeError):
        RowSchema(columns)


def test_the_union() -> None:
    one = RowSchema({"a": "int64", "b": "str", "n": "null"})
    other = RowSchema({"c": "bool", "a": "float64", "n": "bytes"})
    assert one | other == RowSchema({"a": "float64", "b": "str", "n": "bytes", "c": "bool"})
    assert RowSchema({"a": "int64"}) | RowSchema({"a": "uint64"}) == RowSchema({"a": "uint64"})
    assert RowSchema({"a": "bool"}) | RowSchema({"a": "null"}) == RowSchema({"a": "bool"})
    with pytest.raises(RowError, match="column 'b': is str in one schema and bytes in the other"):
        _ = one | RowSchema({"b": "bytes"})
    stray: Any = {"a": "str"}
    with pytest.raises(TypeError):
        _ = one | stray


@given(st.sampled_from(ROW_TYPES), st.sampled_from(ROW_TYPES))
def test_a_union_takes_the_values_of_both(one: str, other: str) -> None:
    try:
        both = RowSchema({"a": one}) | RowSchema({"a": other})
    except RowError:
        with pytest.raises(RowError):
            _ = RowSchema({"a": other}) | RowSchema({"a": one})
        return
    assert RowSchema({"a": other}) | RowSchema({"a": one}) == both
    assert both["a"] in (one, other)


# ---- inference


@settings(max_examples=400, deadline=None)
@given(
    drawn=st.lists(st.none() | rows(st.one_of(st.none(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False)))
                   | rows(st.none() | st.text(max_size=20)) | rows(leaves), max_size=6)
)  # fmt: skip
def test_what_is_inferred(drawn: list[Row | None]) -> None:
    seen: dict[str, list[Any]] = {}
    for row in drawn:
        for name, value in {key: value for key, value, _ in (row.pairs if row else [])}.items():
            seen.setdefault(name, []).append(value)
    kinds = {name: kind_of(values) for name, values in seen.items()}
    batch = batch_of(*[row and row.message for row in drawn])
    if None in kinds.values():
        with pytest.raises(RowError, match="no type but 'raw' takes both") as caught:
            RowSchema.infer(batch)
        assert kinds[str(caught.value.column)] is None
        return
    assert RowSchema.infer(batch) == RowSchema({name: str(kind) for name, kind in kinds.items()})
    assert set(RowSchema.infer(batch)) == set(NAMES) & set(seen)


def test_columns_come_in_order_of_first_appearance() -> None:
    batch = batch_of(msgpack.packb({"b": 1}), None, msgpack.packb({"a": 1, "b": 2}), msgpack.packb({"c": 1, "a": 2}))
    assert list(RowSchema.infer(batch)) == ["b", "a", "c"]
    assert RowSchema.infer(batch, "old_value") == RowSchema({}) == RowSchema.infer(batch[:0])


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (1, "x", "an integer in event 1 (sequence 101), and text in event 4 (sequence 104)"),
        ("x", 1, "text in event 1 (sequence 101), and an integer in event 4 (sequence 104)"),
        (2**63, -1, "an integer above int64 in event 1 (sequence 101), and a negative integer in event 4"),
        (-1, 2**63, "a negative integer in event 1 (sequence 101), and an integer above int64 in event 4"),
        (True, 1.5, "a bool in event 1 (sequence 101), and a float in event 4"),
        (b"x", [1], "binary in event 1 (sequence 101), and an array, a map or an extension in event 4"),
        (msgpack.Timestamp(1), None, ""),
    ],
)
def test_kinds_that_disagree(first: Any, second: Any, said: str) -> None:
    values = [{}, {"a": first}, {"a": None}, {"a": first}, {"a": second}, {"a": first}]
    batch = batch_of(*map(msgpack.packb, values))
    if not said:
        assert RowSchema.infer(batch) == RowSchema({"a": "timestamp"})
        return
    with pytest.raises(RowError) as caught:
        batch.rows()
    assert f"column 'a': {said}" in str(caught.value)
    assert "pass a schema" in str(caught.value)
    assert (caught.value.position, caught.value.sequence, caught.value.column) == (4, 104, "a")


def test_what_malformed_rows_hold_is_not_inferred() -> None:
    good = msgpack.packb({"a": 1})
    cut = maps([(texts(b"a")[0], b"\xa1x"), (texts(b"b")[0], b"\x05"), (texts(b"c")[0], b"\xc1")])[0]
    for messages in ([good, cut, good], [cut, good], [good, good, cut, cut, good]):
        batch = batch_of(*messages)
        assert RowSchema.infer(batch, on_error="null") == RowSchema({"a": "int64"})
        got = batch.rows(on_error="null")
        assert got.malformed.tolist() == [i for i, message in enumerate(messages) if message is cut]
        with pytest.raises(RowError, match="has the byte 0xC1"):
            RowSchema.infer(batch)


def test_of_a_key_that_stands_twice_the_last_is_inferred() -> None:
    key = texts(b"a")[0]
    twice = maps([(key, b"\xa1x"), (key, b"\x05")])[0]
    assert RowSchema.infer(batch_of(twice, twice)) == RowSchema({"a": "int64"})


def test_names_that_no_schema_has() -> None:
    for name in ("", "a\0b"):
        batch = batch_of(msgpack.packb({name: 1}))
        with pytest.raises(RowError, match="name"):
            batch.rows()
        assert batch.rows("new_value", RowSchema({})).present.all()


def test_columns_beyond_the_most() -> None:
    row = {f"c{i}": i for i in range(4097)}
    assert len(RowSchema.infer(batch_of(msgpack.packb(dict(list(row.items())[:4096]))))) == 4096
    with pytest.raises(RowError, match=r"event 1 \(sequence 101\): .* the 4096 that are inferred; pass a schema"):
        batch_of(None, msgpack.packb(row)).rows()
    assert batch_of(msgpack.packb(row)).rows("new_value", RowSchema({"c4096": "int64"}))["c4096"].tolist() == [4096]
