"""Rows that are alike are read two at a time: what comes out is what they give one by one."""

from __future__ import annotations

from typing import Any, Final

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodedb_ring import RowError, RowSchema
from nodedb_ring.batch.rows.schema import ROW_TYPES

from .messages import NAMES, Row, batch_of, encodings, maps, rows, texts
from .oracle import kind_of
from .test_decode import takes_column

# Two rows are read as a pair only where some payload follows them.
ROOM: Final = Row(msgpack.packb({"room": bytes(4096)}), [("room", bytes(4096), b"")])

VALUES: Final[list[Any]] = [
    True, 5, 200, 70_000, -5, -200, -70_000, 2**63 - 1, 2**63, -(2**63), 1.5, float("inf"), "", "text", "twelve bytes",
    "thirteen byte", "x" * 40, "é", "é" * 10, b"bytes", msgpack.Timestamp(1, 1000), [1, ["x"]], {"a": 1}, None,
]  # fmt: skip
K: Final = texts(b"k")[0]
L: Final = texts(b"l")[0]
SHORT: Final = texts(b"short")[0]
LONG: Final = texts(b"x" * 40)[0]


def results(messages: list[bytes | None], schema: RowSchema, step: int) -> object:
    """All that a batch says of every so many of these rows, which are all that it has."""
    decoded = batch_of(*messages).rows("new_value", schema, on_error="null")
    part = decoded[::step]
    values = [part[name].tolist() for name in schema]
    return (
        [position // step for position in decoded.malformed.tolist()],
        part.present.tolist(),
        [part.valid(name).tolist() for name in schema],
        [part.given(name).tolist() for name in schema],
        repr(values),  # NaN is not itself
    )


def is_malformed(message: bytes) -> bool:
    try:
        RowSchema.infer(batch_of(message))
    except RowError:
        return True
    return False


def check_among(common: bytes, odd: bytes, schema: RowSchema) -> None:
    """The odd one as the first of a pair, and as the second."""
    for before in (2, 3):
        messages = [common] * before + [odd] + [common] * 3 + [ROOM.message]
        # Where every event between them has no row there are no neighbours.
        apart = [each for message in messages for each in (message, None)]
        assert results([*messages], schema, 1) == results(apart, schema, 2), odd
        if is_malformed(odd):
            with pytest.raises(RowError, match=f"event {before} "):
                RowSchema.infer(batch_of(*messages))


@pytest.mark.parametrize("kind", ROW_TYPES)
@pytest.mark.parametrize("key", [K, SHORT, LONG])
def test_every_value_beside_every_other(kind: str, key: bytes) -> None:
    schema = RowSchema({msgpack.unpackb(key): kind, "l": "int64"})
    messages = [maps([(key, form), (L, b"\x07")])[0] for value in VALUES for form in encodings(value)]
    fitting = [
        message
        for message in messages
        if not batch_of(message).rows("new_value", schema, on_error="null").malformed.size
    ]
    assert fitting
    for common in fitting[:: max(1, len(fitting) // 8)]:
        for odd in messages:
            check_among(common, odd, schema)


@pytest.mark.parametrize("value", VALUES)
def test_rows_cut_short_and_with_more_behind_them(value: Any) -> None:
    schema = RowSchema({"k": "raw", "l": "int64"})
    for form in encodings(value):
        common = maps([(K, form), (L, b"\x07")])[0]
        for size in range(len(common)):
            check_among(common, common[:size], schema)
        for more in (b"\xc0", b"\x07", L, K + form):
            check_among(common, common + more, schema)


def test_a_row_that_ends_in_the_one_behind_it() -> None:
    """A value that goes on behind its row, where the bytes that follow make sense to whoever reads on."""
    whole = maps([(K, texts(b"abc")[0]), (L, b"\x07")])[0]
    for size in range(1, len(whole)):
        messages = [whole, whole, whole[:size], whole[size:], whole, whole, ROOM.message]
        schema = RowSchema({"k": "str", "l": "int64"})
        got = batch_of(*messages).rows("new_value", schema, on_error="null")
        assert got.malformed.tolist() == [2, 3]
        assert got["k"].tolist() == ["abc", "abc", None, None, "abc", "abc", None]


@pytest.mark.parametrize("text", [b"\xff", b"\xc3", b"abc\xe6\xbc", b"\xed\xa0\x80", b"x" * 20 + b"\x80"])
@pytest.mark.parametrize("kind", ["str", "raw", None])
def test_text_that_is_not_utf8(text: bytes, kind: str | None) -> None:
    schema = RowSchema({"l": "int64"} | ({} if kind is None else {"k": kind}))
    good = maps([(K, texts(b"x" * len(text))[0]), (L, b"\x07")])[0]
    bad = maps([(K, texts(text)[0]), (L, b"\x07")])[0]
    for before in (2, 3):
        messages = [good] * before + [bad] + [good] * 3 + [ROOM.message]
        assert batch_of(*messages).rows("new_value", schema, on_error="null").malformed.tolist() == [before]
        with pytest.raises(RowError, match="UTF-8"):
            RowSchema.infer(batch_of(*messages))


def test_keys_that_differ_in_one_byte_or_in_order() -> None:
    names = [b"k", b"seven_b", b"fifteen_bytes_k", b"sixteen_bytes_ke", b"y" * 31, b"z" * 32, b"w" * 40]
    for name in names:
        key, other = texts(name)[0], texts(name[:-1] + b"!")[0]
        schema = RowSchema({name.decode(): "int64", "l": "str", name[:-1].decode() + "!": "int64"})
        common = maps([(key, b"\x05"), (L, b"\xa1x")])[0]
        for odd in (
            maps([(other, b"\x05"), (L, b"\xa1x")])[0],
            maps([(L, b"\xa1x"), (key, b"\x05")])[0],
            maps([(key, b"\x05")])[0],
            maps([(key, b"\x05"), (L, b"\xa1x"), (key, b"\x06")])[0],
            maps([])[0],
        ):
            check_among(common, odd, schema)


@settings(max_examples=300, deadline=None)
@given(
    pool=st.lists(rows(), min_size=1, max_size=3),
    picks=st.lists(st.integers(0, 2), min_size=2, max_size=12),
    name=st.sampled_from(NAMES),
    kind=st.sampled_from(ROW_TYPES),
)
def test_columns_of_repeated_rows_are_what_msgpack_says(
    pool: list[Row], picks: list[int], name: str, kind: str
) -> None:
    drawn: list[Row | None] = [*(pool[pick % len(pool)] for pick in picks), ROOM]
    batch = batch_of(*[row and row.message for row in drawn])
    takes_column(batch, drawn, name, kind)


@settings(max_examples=300, deadline=None)
@given(pool=st.lists(rows(), min_size=1, max_size=3), picks=st.lists(st.integers(0, 2), min_size=2, max_size=12))
def test_kinds_of_repeated_rows_are_inferred(pool: list[Row], picks: list[int]) -> None:
    """A kind that comes late, as the first of a pair or the second, is seen."""
    drawn = [*(pool[pick % len(pool)] for pick in picks), ROOM]
    batch = batch_of(*[row.message for row in drawn])
    order = list(dict.fromkeys(key for row in drawn for key, _, _ in row.pairs))
    kinds = {name: kind_of([{key: value for key, value, _ in row.pairs}.get(name) for row in drawn]) for name in order}
    if None in kinds.values():
        with pytest.raises(RowError):
            RowSchema.infer(batch)
    else:
        assert dict(RowSchema.infer(batch)) == kinds
        assert list(RowSchema.infer(batch)) == order


@pytest.mark.parametrize("value", VALUES)
def test_a_new_kind_among_common_rows_is_seen(value: Any) -> None:
    for common in VALUES:
        for form in encodings(value):
            odd = maps([(K, form)])[0]
            for before in (2, 3):
                messages = [maps([(K, encodings(common)[0])])[0]] * before + [odd, odd, ROOM.message]
                wanted = kind_of([common, value])
                if wanted is None:
                    with pytest.raises(RowError, match="column 'k'"):
                        RowSchema.infer(batch_of(*messages))
                else:
                    assert RowSchema.infer(batch_of(*messages))["k"] == wanted
