"""Values that are no rows: each is an error that names event, column and remedy, or with ``on_error="null"`` no row."""

from __future__ import annotations

import pickle
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nodedb_ring import ArgumentError, RowError, RowSchema, UnknownColumnError

from .messages import Row, batch_of, maps, rows, texts

GOOD = msgpack.packb({"a": 1, "text": "of more than twelve bytes", "f": 1.5})
SCHEMA = RowSchema({"a": "int64", "text": "str", "f": "float64"})
A = texts(b"a")[0]


def unpacked(message: bytes) -> list[tuple[object, object]] | None:
    """The pairs of the map that ``msgpack`` takes it for, if they have keys of text; else None."""
    try:
        pairs: Any = unpack(message)
    except ValueError as error:
        # What an extension holds is looked at by msgpack, and here only in a column of timestamps.
        assume("timestamp" not in str(error) and "nanosecond" not in str(error))
        return None
    return pairs if isinstance(pairs, Pairs) and all(isinstance(key, str) for key, _ in pairs) else None


def unpack(message: bytes) -> Any:
    # An extension of any type, and maps with any keys.
    return msgpack.unpackb(
        message, object_pairs_hook=Pairs, strict_map_key=False, ext_hook=lambda code, data: (code, data)
    )


class Pairs(list[tuple[object, object]]):
    """A map, whose keys need not be hashable here."""


@pytest.mark.parametrize("around", [0, 3])
def test_truncation_at_every_byte(around: int) -> None:
    """Alone, and between rows that are like it, which are read by the quick path."""
    row = {
        "a": 70000,
        "text": "x" * 13,
        "f": 0.5,
        "n": -200,
        "map": {"b": [1, 2, b"bin"]},
        "t": msgpack.Timestamp(1, 2000),
    }
    message = msgpack.packb(row)
    schema = RowSchema.infer(batch_of(message))
    for size in range(len(message)):
        batch = batch_of(*[message] * around, message[:size], *[message] * around)
        for wanted in (schema, RowSchema({"f": "float64"}), RowSchema({})):
            with pytest.raises(
                RowError, match=rf"^event {around} \(sequence {100 + around}\): new_value.* is cut short"
            ):
                batch.rows("new_value", wanted)
            got = batch.rows("new_value", wanted, on_error="null")
            assert got.malformed.tolist() == [around]
            assert got.present.tolist() == [i != around for i in range(2 * around + 1)]
            assert all(got.valid(name).tolist() == got.present.tolist() for name in wanted)
        with pytest.raises(RowError):
            batch.rows()
        assert batch.rows(on_error="null").schema == (schema if around else RowSchema({}))


@settings(max_examples=600, deadline=None)
@given(row=rows(), data=st.data())
def test_bytes_changed_anywhere(row: Row, data: st.DataObject) -> None:
    """It is a row exactly if ``msgpack`` says so; and nothing of it stays where it is none."""
    message = bytearray(row.message)
    for _ in range(data.draw(st.integers(1, 3))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    changed = bytes(message)
    batch = batch_of(row.message, changed, row.message)
    pairs = unpacked(changed)
    got = batch.rows("new_value", RowSchema({"a": "raw"}), on_error="null")
    assert got.present.tolist() == [True, pairs is not None, True]
    assert got.valid("a")[0] == got.valid("a")[2]
    if pairs is None:
        assert not got.given("a")[1]
        assert got["a"][1] is None
        with pytest.raises(RowError, match=r"^event 1 \(sequence 101\)"):
            batch.rows("new_value", RowSchema({"a": "raw"}))
    elif "a" in dict(pairs):
        value = unpack(got["a"][1] or b"\xc0")
        assert repr(value) == repr(dict(pairs)["a"])
    else:
        assert not got.given("a")[1]


@settings(max_examples=400, deadline=None)
@given(message=st.binary(max_size=60))
def test_any_bytes(message: bytes) -> None:
    is_row = unpacked(message) is not None
    got = batch_of(GOOD, message, GOOD).rows("new_value", RowSchema({}), on_error="null")
    assert got.present.tolist() == [True, is_row, True]


# What is found, and what the message says of it.
MALFORMED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "new_value is cut short"),
    "an array": (b"\x92\x01\x02", "new_value is an array of 2: must be a map of column names to values"),
    "nil": (b"\xc0", "new_value is nil: must be a map"),
    "an integer": (b"\x05", "new_value is the integer 5: must be a map"),
    "trailing": (GOOD + b"\x01", "new_value has bytes behind its map"),
    "unused": (maps([(A, b"\xc1")])[0], "new_value, column 'a': has the byte 0xC1"),
    "unused key": (maps([(b"\xc1", b"\x01")])[0], "new_value has the byte 0xC1"),
    "a key of bytes": (maps([(b"\xc4\x01a", b"\x01")])[0], "new_value has binary of 1 bytes as a key: must be text"),
    "a key that is a number": (maps([(b"\x07", b"\x01")])[0], "new_value has the integer 7 as a key"),
    "a key that is not UTF-8": (maps([(b"\xa1\xff", b"\x01")])[0], "new_value has text that is not UTF-8"),
    "text that is not UTF-8": (
        maps([(texts(b"text")[0], b"\xa2\xc3\x28")])[0],
        "new_value, column 'text': has text that is not UTF-8",
    ),
    "long text that is not UTF-8": (
        maps([(texts(b"text")[0], texts(b"x" * 20 + b"\xed\xa0\x80")[0])])[0],
        "new_value, column 'text': has text that is not UTF-8",
    ),
    "text passed over that is not UTF-8": (
        maps([(texts(b"other")[0], texts(b"\xf8" * 5)[0])])[0],
        "new_value has text that is not UTF-8",
    ),
    "text in an integer": (
        maps([(A, b"\xa1x")])[0],
        "new_value, column 'a': text of 1 bytes in a column of int64; give",
    ),
    "a float in an integer": (maps([(A, b"\xcb" + bytes(8))])[0], "column 'a': the float 0.0 in a column of int64"),
    "a bool in an integer": (maps([(A, b"\xc3")])[0], "column 'a': true in a column of int64"),
    "a map in an integer": (maps([(A, b"\x81\x01\x02")])[0], "column 'a': a map of 1 in a column of int64"),
    "an extension": (
        maps([(A, b"\xd4\x05\x00")])[0],
        "column 'a': an extension of type 5 and 1 bytes in a column of int64",
    ),
    "too large": (
        maps([(A, b"\xcf" + b"\xff" * 8)])[0],
        "column 'a': the integer 18446744073709551615 does not fit int64; 'uint64' or 'raw' takes it",
    ),
    "inexact": (
        maps([(texts(b"f")[0], b"\xcf" + (2**53 + 1).to_bytes(8, "big"))])[0],
        "column 'f': the integer 9007199254740993 would be rounded in float64",
    ),
    "inside of what is nested": (maps([(A, b"\x91\xc1")])[0], "column 'a': has the byte 0xC1"),
}


@pytest.mark.parametrize("where", [0, 2])
@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_wrong_is_said(name: str, where: int) -> None:
    message, said = MALFORMED[name]
    batch = batch_of(*[GOOD] * where, message, GOOD)
    with pytest.raises(RowError) as caught:
        batch.rows("new_value", SCHEMA)
    assert str(caught.value).startswith(f"event {where} (sequence {100 + where}): ")
    assert said in str(caught.value)
    assert "on_error='null'" in str(caught.value)
    assert caught.value.position == where
    assert caught.value.sequence == 100 + where
    assert (caught.value.column or "") in said
    assert caught.value.column is not None if "column" in said.partition(":")[0] else True
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.position, again.column) == (str(caught.value), where, caught.value.column)
    got = batch.rows("new_value", SCHEMA, on_error="null")
    assert got.malformed.tolist() == [where]
    assert got["a"].tolist() == [1] * where + [0, 1]
    assert np.isnan(got["f"][where])
    assert got["text"][where] is None
    assert not any(got.given(column)[where] for column in SCHEMA)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b"\xd6\xff" + b"\0" * 4, None),
        (b"\xd7\xff" + (1_000_000_000 << 34).to_bytes(8, "big"), "is no timestamp; 'raw' takes it"),
        (b"\xd5\xff" + bytes(2), "an extension of type -1 and 2 bytes is no timestamp"),
        (b"\xd7\xff" + (1 << 34).to_bytes(8, "big"), "a timestamp with a part of a microsecond"),
        (b"\xc7\x0c\xff" + bytes(4) + (2**62).to_bytes(8, "big"), "that 64 bits of microseconds do not hold"),
        # The least of all is NaT.
        (
            b"\xc7\x0c\xff" + (224192000).to_bytes(4, "big") + (-9223372036855).to_bytes(8, "big", signed=True),
            "do not hold",
        ),
        (b"\xd6\x01" + b"\0" * 4, "an extension of type 1 and 4 bytes in a column of timestamp"),
        (b"\x05", "the integer 5 in a column of timestamp"),
    ],
)
def test_timestamps(message: bytes, said: str | None) -> None:
    batch = batch_of(maps([(A, message)])[0])
    schema = RowSchema({"a": "timestamp"})
    if said is None:
        assert batch.rows("new_value", schema)["a"].tolist() == [np.datetime64(0, "us").item()]
        return
    with pytest.raises(RowError, match=f"column 'a': .*{said}"):
        batch.rows("new_value", schema)
    assert np.isnat(batch.rows("new_value", schema, on_error="null")["a"][0])
    assert batch.rows("new_value", RowSchema({"a": "raw"}))["a"][0] == message


def test_the_integer_that_no_int64_and_the_one_that_no_uint64_holds() -> None:
    with pytest.raises(RowError, match="the integer -1 does not fit uint64; 'int64' or 'raw' takes it"):
        batch_of(msgpack.packb({"a": -1})).rows("new_value", RowSchema({"a": "uint64"}))


def test_other_arguments() -> None:
    batch: Any = batch_of(GOOD)
    with pytest.raises(ArgumentError, match="'row_id': no column of values; those are new_value, old_value"):
        batch.rows("row_id")
    with pytest.raises(ArgumentError, match="on_error 'ignore': must be 'raise' or 'null'"):
        batch.rows(on_error="ignore")
    with pytest.raises(TypeError, match="must be a RowSchema, not dict"):
        batch.rows("new_value", {"a": "int64"})
    got = batch.rows()
    for call in (got.valid, got.given, got.select, got.__getitem__):
        with pytest.raises(UnknownColumnError, match=r"^'b': no such column; columns are a, text, f$") as caught:
            call("b")
        assert isinstance(caught.value, KeyError)
        assert caught.value.column == "b"
