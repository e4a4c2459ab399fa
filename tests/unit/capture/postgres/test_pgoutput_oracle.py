"""The compiled decoder against the one in plain Python, on values and messages that Hypothesis draws."""

from __future__ import annotations

import struct
from typing import Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nodedb_ring import RowSchema
from nodedb_ring.capture.postgres._types import row_type

from .agreeing import agree_on_copy, agree_on_messages, agree_on_value, change
from .messages import begin, commit, decoded, insert, relation
from .oracle_values import ARRAYS, SCALARS

T: Final = 16384
FLOAT4, FLOAT8, TIMESTAMPTZ, TEXT = 700, 701, 1184, 25
# However slow the machine is.
FAST: Final = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
TYPES: Final = [*SCALARS, TEXT, *ARRAYS]
Column = tuple[str, int, bool]

INTEGERS = st.integers(-(2**64), 2**64) | st.integers(-300, 300)
FLOATS = st.floats() | st.floats(width=32)
STAMPS = st.builds(
    "{:04}-{:02}-{:02} {:02}:{:02}:{:02}{}{}{}".format,
    st.integers(0, 9999) | st.integers(294_200, 294_300),
    *(st.integers(0, 13), st.integers(0, 32), st.integers(0, 24), st.integers(0, 60), st.integers(0, 60)),
    st.from_regex(r"(\.[0-9]{1,6})?", fullmatch=True),
    st.sampled_from(["+00", "-08", "+05:30", "+15:59:59", "", "Z"]),
    st.sampled_from(["", " BC"]),
)
WORDS = ["NaN", "Infinity", "-Infinity", "infinity", "-infinity", "t", "f", "NULL", "\\x", "-0", "1.", "1e400", "0x10"]
SCALAR_TEXTS = st.one_of(
    *(INTEGERS.map(str), FLOATS.map(repr), FLOATS.map("{:.8g}".format), STAMPS, st.text(max_size=20)),
    st.binary(max_size=20).map(lambda data: "\\x" + data.hex()),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
    st.sampled_from(WORDS),
    st.text("0123456789-+:. eE", max_size=12),
).map(str.encode) | st.binary(max_size=8)


def quoted(text: bytes) -> bytes:
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def braced(items: list[bytes]) -> bytes:
    return b"{" + b",".join(items) + b"}"


ARRAY_TEXTS = st.recursive(
    SCALAR_TEXTS | SCALAR_TEXTS.map(quoted) | st.just(b"NULL"),
    lambda items: st.lists(items, max_size=4).map(braced),
    max_leaves=12,
) | st.text('{}",;\\[]=aN1', max_size=12).map(str.encode)
FIELDS = st.just(("n", b"")) | st.just(("u", b"")) | st.tuples(st.just("t"), SCALAR_TEXTS | ARRAY_TEXTS)


@pytest.mark.parametrize("oid", TYPES)
@settings(FAST, max_examples=40)
@given(st.data())
def test_values_of_each_type(oid: int, data: st.DataObject) -> None:
    text = data.draw(ARRAY_TEXTS if oid in ARRAYS else SCALAR_TEXTS)
    for keys in ((False, False), (True, False), (True, True)):
        agree_on_value(oid, text, keys)


@settings(FAST, max_examples=100)
@given(STAMPS)
@example("294276-12-31 23:59:59.999999+00")
@example("294277-01-01 00:00:00+00")
@example("294247-01-10 04:00:54.775807+00")
@example("294247-01-10 04:00:53.999999+00")
@example("4714-11-24 00:00:00+00 BC")
@example("4714-11-23 23:59:59.999999+00 BC")
@example("0000-01-01 00:00:00+00")
@example("2013-02-29 00:00:00+00")
@example("2000-02-29 00:00:00.+00")
@example("0001-02-29 00:00:00+00 BC")
@example("1900-02-29 00:00:00+00")
def test_times(text: str) -> None:
    if agree_on_value(TIMESTAMPTZ, text.encode()):
        insertion = insert(T, text)
        batch = decoded(relation(T, "public.t", [("v", TIMESTAMPTZ, False)]), begin(5), insertion, commit(5))
        # All of them are times that NumPy has.
        assert batch.rows("new_value", RowSchema({"v": "timestamp"})).valid("v").tolist() == [True]


@pytest.mark.parametrize("oid", [FLOAT4, FLOAT8])
@settings(FAST, max_examples=100)
@given(st.from_regex(r"-?[0-9]{1,18}(\.[0-9]{1,9})?(e[-+]?[0-9]{1,2})?", fullmatch=True))
@example("340282356779733661637539395458142568447")  # of two as near the even one, which float4 has not
@example("3.4028235677973366e38")
@example("3.4028235677973365e38")
@example("16777217")
@example("16777219")
@example("0.1")
@example("7.006492321624085e-46")
@example("7.006492321624086e-46")
@example("1e39")
@example("1.7976931348623159e308")
@example("9007199254740993")
@example("-0")
@example("1e-400")
def test_floats_are_the_nearest_ones(oid: int, text: str) -> None:
    agree_on_value(oid, text.encode())


COLUMNS = st.lists(
    st.tuples(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
        st.sampled_from(TYPES),
        st.booleans(),
    ),
    max_size=4,
)


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Messages of transactions on two tables, most of which are as they must be."""
    tables: dict[int, int] = {}
    messages, lsn = [], 10
    for _ in range(draw(st.integers(1, 6))):
        oid = draw(st.sampled_from([T, T + 1]))
        kind = draw(st.sampled_from("RRIIIUUUUDDDTBCYOMX")) if oid in tables else "R"
        if kind == "R":
            columns: list[Column] = draw(COLUMNS)
            tables[oid] = len(columns)
            messages.append(relation(oid, "s.t" if oid == T else "s.a table", columns))
            continue
        if kind in "BCX":
            messages.append({"B": begin(lsn, draw(st.integers(-(10**18), 10**18))), "C": commit(lsn)}.get(kind, b""))
            lsn += kind == "C"
            continue
        fields = st.lists(FIELDS, min_size=tables[oid], max_size=tables[oid])
        old = draw(st.sampled_from([b"K", b"O"])), draw(fields)
        new = b"N", draw(st.just(old[1]) | fields)
        parts = {"I": [new], "U": draw(st.sampled_from([[new], [old, new]])), "D": [old]}.get(kind)
        if parts is None:
            oids = draw(st.lists(st.sampled_from([T, T, T + 1]), max_size=3))
            messages.append({"T": struct.pack(f">cIB{len(oids)}I", b"T", len(oids), 0, *oids)}.get(kind, kind.encode()))
        else:
            messages.append(change(kind.encode(), *parts, oid=oid))
    return [begin(9), *messages] if draw(st.integers(0, 9)) else messages


@settings(FAST, max_examples=200)
@given(streams(), st.tuples(st.sampled_from([0, 9, 10, 11]), st.integers(0, 3)))
def test_streams_of_messages(messages: list[bytes], after: tuple[int, int]) -> None:
    agree_on_messages(messages, after)


@settings(FAST, max_examples=100)
@given(
    COLUMNS,
    st.lists(st.lists(st.sampled_from([b"\\N", b"a", b"\\", b"\\t", b"\t", b"1", b"{}", b"\\\\x", b"\xff", b"t"]))),
    st.lists(st.integers(1, 7)),
    st.sampled_from([b"", b"", b"", b"1"]),
)
@example([("a", TEXT, True), ("b", TEXT, False)], [[b"\\N", b"\t", b"\\", b"\t"]], [], b"")
def test_rows_of_copy(columns: list[Column], pieces: list[list[bytes]], sizes: list[int], rest: bytes) -> None:
    agree_on_copy(columns, b"".join(b"".join(line) + b"\n" for line in pieces) + rest, sizes)


def test_row_types_are_of_the_same_kinds() -> None:
    named = {"integer": "int64", "float4": "float64", "float8": "float64", "bytea": "bytes", "timestamptz": "timestamp"}
    for oid in TYPES:
        kind = SCALARS.get(oid, "text")
        assert row_type(oid) == ("raw" if oid in ARRAYS else "bool" if kind == "bool" else named.get(kind, "str"))
