"""Row values are read by whole words: never beyond their payload, beside pages that must not be touched."""

from __future__ import annotations

import faulthandler
import signal
from pathlib import Path
from typing import Final, Protocol, cast

import msgpack
import pytest

from nodedb_ring.batch.rows._decode import RowPlan
from nodedb_ring.batch.rows.schema import ROW_TYPES
from tests.stress.compiling import compiled
from tests.unit.runners import in_child

from .messages import encodings, maps, texts

SOURCE: Final = Path(__file__).with_name("guarded.pyx")
# Each value with the type that takes it.
VALUES: Final = [
    ("bool", True), ("int64", 5), ("int64", -(2**63)), ("uint64", 2**64 - 1), ("float64", 1.5), ("float64", 7),
    ("str", ""), ("str", "x" * 12), ("str", "é" * 6), ("str", "x" * 13), ("str", "x" * 31), ("str", "漢" * 11),
    ("bytes", b"xy"),
    ("bytes", b"x" * 13), ("timestamp", msgpack.Timestamp(1, 1000)), ("raw", [1, ["x"]]), ("null", None),
    ("int64", None),
]  # fmt: skip


class Guarded(Protocol):
    """``guarded.pyx``."""

    def read(
        self, messages: list[bytes], plan: RowPlan, at_end: bool, stray: tuple[int, int, int] | None = None
    ) -> tuple[list[int], list[bytes], tuple[int, int]]: ...

    def touch_beyond(self) -> None: ...


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Guarded:
    return cast("Guarded", compiled(SOURCE, tmp_path_factory.mktemp("guarded")).Guarded())


def messages_of(key: str) -> list[tuple[str, bytes]]:
    name = texts(key.encode())[0]
    return [(kind, maps([(name, message)])[0]) for kind, value in VALUES for message in encodings(value)]


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("key", ["", "k", "x" * 15, "x" * 16, "x" * 40])
@pytest.mark.parametrize("is_wanted", [False, True])
def test_no_byte_beyond_the_payload_is_read(guarded: Guarded, at_end: bool, key: str, is_wanted: bool) -> None:
    """Whole and cut short at every byte; first, and behind rows that are like it."""

    def read_all() -> int:
        seen = 0
        for kind, message in messages_of(key):
            plan = RowPlan((key,) if is_wanted else ("other",), (ROW_TYPES.index(kind),))
            for before in (0, 1, 2, 6):
                for size in range(len(message) + 1):
                    messages = [message] * before + [message[:size]]
                    ends = [1] * before + [1 if size == len(message) else 2]
                    names = [key.encode()] if 1 in ends else []
                    assert guarded.read(messages, plan, at_end) == (ends, names, (len(messages),) * 2), (message, size)
                    seen += 1
        return seen

    # A read beyond it ends the child, with SIGSEGV.
    assert in_child(read_all) == sum(4 * (len(message) + 1) for _, message in messages_of(key))


@pytest.mark.parametrize("at_end", [False, True])
def test_sizes_that_lie(guarded: Guarded, at_end: bool) -> None:
    """Heads that promise more than there is: of the value, of a key, of a map, of what is nested."""
    heads = [
        b"\xa5", b"\xbf", b"\xd9\xff", b"\xda\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc4\xff", b"\xc5\xff\xff",
        b"\xc6\xff\xff\xff\xff", b"\xc7\xff\xff", b"\xc8\xff\xff\xff", b"\xc9\xff\xff\xff\xff\xff", b"\xd8\xff",
        b"\x9f", b"\xdc\xff\xff", b"\xdd\xff\xff\xff\xff", b"\x8f", b"\xde\xff\xff", b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff" * 5,
    ]  # fmt: skip
    good = maps([(texts(b"k")[0], b"\x01")])[0]

    def read_all() -> int:
        seen = 0
        for kind in range(len(ROW_TYPES)):
            plan = RowPlan(("k",), (kind,))
            for head in heads:
                for message in (b"\x81\xa1k" + head, b"\x82\xa1k\xc0" + head, b"\x81" + head, head):
                    for before in (0, 3):
                        ends, _, inferred = guarded.read([good] * before + [message], plan, at_end)
                        assert ends[-1] == 2, (message, kind)
                        assert inferred == (before + 1, before + 1)
                        seen += 1
        return seen

    assert in_child(read_all) == len(ROW_TYPES) * len(heads) * 8


def test_no_byte_before_the_payload_is_read(guarded: Guarded) -> None:
    """A view is read from 4 bytes before its own, of which the payload's first may have but 3 in front."""
    message = maps([(texts(b"")[0], texts(b"x")[0])])[0]
    plan = RowPlan(("",), (ROW_TYPES.index("str"),))

    def read_all() -> int:
        # The last event lies where the first does, and comes when its key is known.
        ends, _, ended = guarded.read([message] * 40, plan, False, (39, 0, len(message)))
        return sum(ends) if ended == (40, 40) else 0

    assert in_child(read_all) == 40


@pytest.mark.parametrize("at_end", [False, True])
def test_values_outside_of_the_payload(guarded: Guarded, at_end: bool) -> None:
    """Only who shares a ring can write such offsets: neither decoding nor inference goes on, whatever is asked for."""
    good = maps([(texts(b"k")[0], b"\x01")])[0]
    plan = RowPlan(("k",), (ROW_TYPES.index("int64"),))

    def read_all() -> int:
        # As the only neighbour, and as the first and the second of a pair.
        for count, position in ((2, 1), (100, 2), (100, 3)):
            size = 4 * count
            for offset, length in (
                (-4, 4), (-64, 4), (-1, 5), (size, 1), (size - 4, 5), (size - 1, 2), (0, size + 1), (4096, 1),
                (2**32 - 65, 2**32 - 2), (0, 2**32 - 2),
            ):  # fmt: skip
                stray = position, offset, length
                ends, _, ended = guarded.read([good] * count, plan, at_end, stray)
                assert ends[position - 1] == 1, stray
                assert ended == (position, position), stray
            assert guarded.read([good] * count, plan, at_end, (position, 4, 4))[2] == (count, count)
        return 1

    assert in_child(read_all) == 1


def test_the_pages_beside_it_end_the_process(guarded: Guarded) -> None:
    def touch() -> None:
        faulthandler.disable()
        guarded.touch_beyond()

    with pytest.raises(AssertionError, match=f"the child ended with {int(signal.SIGSEGV)}"):
        in_child(touch)
