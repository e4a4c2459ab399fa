"""EventBatch(records, payload): which rows and bytes it takes, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nodedb_ring import EVENT_DTYPE, BatchError, EventBatch
from tests.unit.builders import raw_rows, ring, sequences

from .mixed import STRINGS, VALUES


def as_uint8(data: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, as_uint8])
def test_payload_is_bytes_like_or_uint8(kind: Callable[[bytes], Any]) -> None:
    rows = raw_rows(1)
    rows["collection_length"] = 3
    assert EventBatch(rows, kind(b"abc")).strings("collection").tolist() == ["abc"]


def test_arrays_of_any_stride() -> None:
    rows, payload = raw_rows(6), np.frombuffer(b"a_b_c_", np.uint8)
    rows["row_id_length"] = 3
    made = EventBatch(rows[::2], payload[::2])
    assert sequences(made) == [1, 3, 5]
    assert made.strings("row_id").tolist() == ["abc"] * 3
    assert sequences(EventBatch(rows[::-1], payload)) == [6, 5, 4, 3, 2, 1]


def test_rows_may_share_payload_and_lie_in_any_order() -> None:
    rows = raw_rows(3)
    rows["collection_offset"], rows["collection_length"] = [4, 0, 2], [2, 6, 3]
    rows["new_value_offset"], rows["new_value_length"] = 0, [0, 6, 1]
    made = EventBatch(rows, b"aabbcc")
    assert made.strings("collection").tolist() == ["cc", "aabbcc", "bbc"]
    producer, consumer = ring()
    assert producer.emit_batch(made) == 3
    out = consumer.drain()
    assert list(out) == list(made)
    for part in (made[1:], made[::-1], made[[True, False, True]]):
        assert list(EventBatch.concat([part, part])) == list(part) * 2


@pytest.mark.parametrize("records", [[1], None, np.zeros(2), np.zeros(2, [("sequence", "<u8")]), "rows"])
def test_refuses_records_of_another_dtype(records: Any) -> None:
    with pytest.raises(BatchError) as refused:
        EventBatch(records, b"")
    shown = str(getattr(records, "dtype", type(records).__name__))
    assert shown in str(refused.value)


def test_refuses_rows_of_the_other_byte_order() -> None:
    with pytest.raises(BatchError, match="EVENT_DTYPE"):
        EventBatch(raw_rows(1).astype(EVENT_DTYPE.newbyteorder(">")))


@pytest.mark.parametrize("shape", [(), (2, 2)])
def test_refuses_records_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(BatchError) as refused:
        EventBatch(np.zeros(shape, EVENT_DTYPE))
    assert str(shape) in str(refused.value)


@pytest.mark.parametrize("payload", [np.zeros(2, np.int64), np.zeros((2, 2), np.uint8), "text", 7, None])
def test_refuses_a_payload_of_another_type(payload: Any) -> None:
    with pytest.raises(BatchError) as refused:
        EventBatch(raw_rows(1), payload)
    shown = str(getattr(payload, "dtype", type(payload).__name__))
    assert shown in str(refused.value)


@pytest.mark.parametrize(("name", "value"), [("op", 0), ("op", 7), ("op", 255), ("source", 5), ("source", 200)])
def test_refuses_an_unknown_op_or_source(name: str, value: int) -> None:
    rows = raw_rows(3)
    rows[name][2] = value
    with pytest.raises(BatchError, match=f"row 2: {name} {value}"):
        EventBatch(rows, b"")


@pytest.mark.parametrize("name", STRINGS + VALUES)
@pytest.mark.parametrize(
    ("offset", "length"), [(0, 11), (10, 1), (11, 0), (2**32 - 1, 2), (2**32 - 1, 2**32 - 2), (5, 6)]
)
def test_refuses_offsets_outside_the_payload(name: str, offset: int, length: int) -> None:
    rows = raw_rows(2)
    rows[f"{name}_offset"][1], rows[f"{name}_length"][1] = offset, length
    with pytest.raises(BatchError, match=rf"row 1: {name} at {offset} of {length} bytes.*\b10\b"):
        EventBatch(rows, b"0123456789")


@pytest.mark.parametrize("name", STRINGS + VALUES)
def test_a_field_may_end_with_the_payload(name: str) -> None:
    rows = raw_rows(2)
    rows[f"{name}_offset"], rows[f"{name}_length"] = [10, 0], [0, 10]
    made = EventBatch(rows, b"0123456789")
    wanted = b"0123456789" if name in VALUES else "0123456789"
    assert [getattr(each, name) for each in made] == [wanted[:0], wanted]


@pytest.mark.parametrize("name", ["collection", "row_id"])
def test_refuses_none_where_a_string_is_required(name: str) -> None:
    rows = raw_rows(2)
    rows[f"{name}_length"][1] = 2**32 - 1
    with pytest.raises(BatchError, match=f"row 1: {name} is None"):
        EventBatch(rows, b"")


BAD_UTF8 = [
    b"\x80", b"\xbf", b"\xc0\xaf", b"\xc1\xbf", b"\xc2", b"\xc2\x20", b"\xe0\x80\x80", b"\xe0\x9f\xbf", b"\xe1\x80",
    b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf0\x80\x80\x80", b"\xf0\x8f\xbf\xbf", b"\xf0\x9f\x98", b"\xf4\x90\x80\x80",
    b"\xf5\x80\x80\x80", b"\xfe", b"\xff", b"12345678\xff", b"1234567\xc3", b"\xe1\x80\x20", b"\xf1\x80\x80\x20",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_UTF8)
@pytest.mark.parametrize("name", STRINGS)
def test_refuses_what_is_not_utf8(name: str, text: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        text.decode()
    rows = raw_rows(2)
    # Whatever bytes stand after the field, they are not of it.
    rows[f"{name}_offset"][1], rows[f"{name}_length"][1] = 2, len(text)
    with pytest.raises(BatchError) as refused:
        EventBatch(rows, b"ab" + text + b"\x80\x80\x80")
    assert f"row 1: {name} {text!r}" in str(refused.value)


def test_utf8_is_what_python_says_it_is() -> None:
    rows = raw_rows(1)
    tried = [
        bytes([lead, *rest])
        for lead in range(0x7F, 256)
        for rest in ([], [0x7F], [0x80], [0x8F], [0x90], [0x9F], [0xA0], [0xBF], [0xC0])
    ]
    tried += [
        two + more
        for two in tried
        if len(two) == 2
        for more in (b"\x80", b"\xbf", b"\x80\x80", b"\xbf\xbf", b"\x80\x7f", b"x")
    ]
    for text in tried:
        rows["user_id_length"] = len(text)
        try:
            wanted: str | None = text.decode()
        except UnicodeDecodeError:
            wanted = None
        try:
            got: str | None = EventBatch(rows, text).strings("user_id")[0]
        except BatchError:
            got = None
        assert got == wanted, text


@pytest.mark.parametrize("size", [*range(1, 26), 63, 64, 65])
def test_a_byte_that_is_not_utf8_is_found_wherever_it_stands(size: int) -> None:
    rows = raw_rows(1)
    rows["row_id_length"] = size
    assert EventBatch(rows, b"a" * size).strings("row_id").tolist() == ["a" * size]
    for place in range(size):
        text = b"a" * place + b"\xff" + b"a" * (size - place - 1)
        with pytest.raises(BatchError, match="row 0: row_id"):
            EventBatch(rows, text)
    # And what follows a text is not of it.
    assert EventBatch(rows, b"a" * size + b"\xff" * 8).strings("row_id").tolist() == ["a" * size]


@pytest.mark.parametrize("name", VALUES)
def test_values_are_any_bytes(name: str) -> None:
    rows = raw_rows(1)
    rows[f"{name}_length"] = 256
    assert EventBatch(rows, bytes(range(256))).values(name)[0] == bytes(range(256))
