"""MessagePack of every form: each value in all of its encodings, and rows drawn from them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgpack
from hypothesis import strategies as st

from nodedb_ring import EventBatch
from tests.unit.builders import event

INTEGERS: Final = (
    ("B", 0xCC),
    ("H", 0xCD),
    ("I", 0xCE),
    ("Q", 0xCF),
    ("b", 0xD0),
    ("h", 0xD1),
    ("i", 0xD2),
    ("q", 0xD3),
)
EDGES: Final = sorted(
    {
        sign * 2**bits + step
        for bits in (0, 5, 7, 8, 15, 16, 31, 32, 53, 62, 63, 64)
        for sign in (1, -1)
        for step in (-1, 0, 1)
    }
)
INTEGER_EDGES: Final = [edge for edge in EDGES if -(2**63) <= edge < 2**64]


def sized(heads: Sequence[tuple[str, int]], size: int, rest: bytes) -> list[bytes]:
    """All heads whose size field holds `size`, with `rest` behind them."""
    return [
        bytes([first]) + struct.pack(f">{letter}", size) + rest
        for letter, first in heads
        if size < 256 ** struct.calcsize(letter)
    ]


def integers(value: int) -> list[bytes]:
    found = [bytes([value & 0xFF])] if -32 <= value < 128 else []
    for letter, first in INTEGERS:
        try:
            found.append(bytes([first]) + struct.pack(f">{letter}", value))
        except struct.error:
            continue
    return found


def extensions(code: int, data: bytes) -> list[bytes]:
    kind = struct.pack("b", code)
    fixed = [bytes([0xD4 + power]) + kind + data for power in range(5) if len(data) == 1 << power]
    return fixed + sized((("B", 0xC7), ("H", 0xC8), ("I", 0xC9)), len(data), kind + data)


def encodings(value: Any) -> list[bytes]:
    """Every encoding that MessagePack has for a value; what is nested in it is encoded as ``msgpack`` does."""
    if value is None:
        return [b"\xc0"]
    if isinstance(value, bool):
        return [b"\xc3" if value else b"\xc2"]
    if isinstance(value, int):
        return integers(value)
    if isinstance(value, float):
        single = [b"\xca" + struct.pack(">f", value)] if is_single(value) else []
        return [*single, b"\xcb" + struct.pack(">d", value)]
    if isinstance(value, str):
        return texts(value.encode())
    if isinstance(value, bytes):
        return sized((("B", 0xC4), ("H", 0xC5), ("I", 0xC6)), len(value), value)
    if isinstance(value, msgpack.Timestamp):
        return stamps(value)
    if isinstance(value, msgpack.ExtType):
        return extensions(value.code, value.data)
    if isinstance(value, list):
        items = b"".join(map(msgpack.packb, value))
        fixed = [bytes([0x90 | len(value)]) + items] if len(value) < 16 else []
        return fixed + sized((("H", 0xDC), ("I", 0xDD)), len(value), items)
    return maps([(texts(key.encode())[0], msgpack.packb(item)) for key, item in value.items()])


def texts(data: bytes) -> list[bytes]:
    fixed = [bytes([0xA0 | len(data)]) + data] if len(data) < 32 else []
    return fixed + sized((("B", 0xD9), ("H", 0xDA), ("I", 0xDB)), len(data), data)


def stamps(value: msgpack.Timestamp) -> list[bytes]:
    seconds, nanoseconds = value.seconds, value.nanoseconds
    found = [struct.pack(">Iq", nanoseconds, seconds)]
    if 0 <= seconds < 2**34:
        found.append(struct.pack(">Q", nanoseconds << 34 | seconds))
    if nanoseconds == 0 and 0 <= seconds < 2**32:
        found.append(struct.pack(">I", seconds))
    return [message for data in found for message in extensions(-1, data)]


def is_single(value: float) -> bool:
    try:
        back: float = struct.unpack(">f", struct.pack(">f", value))[0]
    except OverflowError:
        return False
    return back == value or value != value


def maps(pairs: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    """The encodings of a map of encoded keys and values, which may repeat."""
    body = b"".join(key + value for key, value in pairs)
    fixed = [bytes([0x80 | len(pairs)]) + body] if len(pairs) < 16 else []
    return fixed + sized((("H", 0xDE), ("I", 0xDF)), len(pairs), body)


class Row(NamedTuple):
    """A row value: its bytes, and name, value and bytes of each of its pairs in order."""

    message: bytes
    pairs: list[tuple[str, Any, bytes]]


NAMES: Final = ("a", "b", "carrier", "größe", "exactly_sixteen", "a_name_of_more_than_two_words", "x" * 40, "漢")

leaves: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(INTEGER_EDGES),
    st.integers(-(2**63), 2**64 - 1),
    st.integers(-40, 300),
    st.floats(allow_nan=False),
    st.floats(width=32, allow_nan=False),
    st.text(max_size=40),
    st.sampled_from(["", "é", "twelve bytes", "thirteen byte", "x" * 31, "x" * 32, "日本語", "x" * 300]),
    st.binary(max_size=40),
    st.builds(msgpack.Timestamp, st.integers(-(2**40), 2**40), st.integers(0, 999_999).map(lambda us: us * 1000)),
    st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20)),
)
values: Final = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def rows(draw: st.DrawFn, of: st.SearchStrategy[Any] = values) -> Row:
    """A row of some of the names, in any order, some of them twice, in any encodings."""
    pairs = []
    encoded = []
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=8)):
        value = draw(of)
        message = draw(st.sampled_from(encodings(value)))
        pairs.append((name, value, message))
        encoded.append((draw(st.sampled_from(texts(name.encode()))), message))
    return Row(draw(st.sampled_from(maps(encoded))), pairs)


def batch_of(*messages: bytes | None, field: str = "new_value") -> EventBatch:
    """An event for each value, numbered from 100."""
    return EventBatch.from_events([event(100 + i, **{field: message}) for i, message in enumerate(messages)])
