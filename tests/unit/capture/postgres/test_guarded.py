"""Messages are never read beyond their end: each lies directly before a page that must not be touched."""

from __future__ import annotations

import faulthandler
import signal
from pathlib import Path
from typing import Final, Protocol, cast

import pytest

import nodedb_ring
from nodedb_ring.capture.postgres._pgoutput import Decoder
from tests.fuzz.corpus_of_postgres import CORPUS, VALUE
from tests.stress.compiling import compiled
from tests.unit.runners import in_child

from .agreeing import change
from .messages import UNCHANGED, begin, commit, delete, insert, relation, truncate, update
from .oracle import Oracle
from .oracle_values import ARRAYS, SCALARS, Refused

SOURCE: Final = Path(__file__).with_name("guarded.pyx")
HEADERS: Final = Path(nodedb_ring.__file__).parent / "capture" / "postgres"
T: Final = 16384
ID_NAME: Final = relation(T, "public.t", [("id", 23, True), ("name", 25, False), ("at", 1184, False)])
AT: Final = "2013-01-01 05:15:00+00"
CHANGES: Final = [
    insert(T, "1", "a name of more than sixteen bytes", AT),
    insert(T, "1", "", None),
    insert(T, "1", None, AT),
    update(T, ["1", UNCHANGED, AT]),
    update(T, ["2", "name", UNCHANGED], key=["1", None, None]),
    update(T, ["2", "name", None], old=["1", "name", AT]),
    delete(T, key=["1", None, None]),
    delete(T, old=["1", None, AT]),
    truncate(T, T),
    commit(5),
]
TEXTS: Final = [data[2:] for data in CORPUS.values() if data[:1] == VALUE]
LINES: Final = [b"1\ta\\tb\\\\\t" + AT.encode(), b"1\t\\N\t\\N", b"-1\t\t\\N", b"1\t\\\\\\\\\t\\N"]


class Guarded(Protocol):
    """``guarded.pyx``."""

    def decode(self, decoder: Decoder, message: bytes) -> bool: ...

    def copy(self, decoder: Decoder, oid: int, line: bytes) -> bool: ...

    def touch_beyond(self) -> None: ...


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Guarded:
    return cast("Guarded", compiled(SOURCE, tmp_path_factory.mktemp("guarded"), f"-I{HEADERS}"))


def takes(messages: list[bytes]) -> bool:
    """Whether the oracle takes the last one."""
    oracle = Oracle()
    for message in messages[:-1]:
        oracle.decode(message)
    try:
        oracle.decode(messages[-1])
    except Refused:
        return False
    return True


@pytest.mark.parametrize("before", [[], [ID_NAME], [ID_NAME, begin(5)]])
def test_every_message_cut_short_at_every_byte(guarded: Guarded, before: list[bytes]) -> None:
    messages = [ID_NAME, begin(5), *CHANGES, b"Y\0", b"Z"]

    def decode_all() -> int:
        seen = 0
        for message in messages:
            for size in range(len(message) + 1):
                decoder = Decoder(1)
                for each in before:
                    assert guarded.decode(decoder, each)
                assert guarded.decode(decoder, message[:size]) == takes([*before, message[:size]]), (message, size)
                seen += 1
        return seen

    # A read beyond it ends the child, with SIGSEGV.
    assert in_child(decode_all) == sum(len(message) + 1 for message in messages)


@pytest.mark.parametrize("is_key", [False, True])
@pytest.mark.parametrize("types", [[*SCALARS, 25], [*ARRAYS]])
def test_every_beginning_of_a_value_in_a_column_of_every_type(guarded: Guarded, types: list[int], is_key: bool) -> None:
    def decode_all() -> int:
        seen = 0
        for oid in types:
            told = [relation(T, "public.t", [("v", oid, is_key)]), begin(5)]
            for text in TEXTS:
                for size in range(len(text) + 1):
                    message = change(b"I", (b"N", [("t", text[:size])]), oid=T)
                    decoder = Decoder(1)
                    for each in told:
                        guarded.decode(decoder, each)
                    assert guarded.decode(decoder, message) == takes([*told, message]), (oid, text, size)
                    seen += 1
        return seen

    assert in_child(decode_all) == len(types) * sum(len(text) + 1 for text in TEXTS)


def test_sizes_that_lie(guarded: Guarded) -> None:
    """What is promised and not there: columns, fields, bytes, tables."""
    told = [ID_NAME, begin(5)]
    sizes = [b"\0\0\0\1", b"\0\0\0\x7f", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff\xff\xff\xff"]
    head = change(b"I", oid=T) + b"N\0\3"
    lies = [head + b"t" + size for size in sizes] + [head + b"nnt" + size for size in sizes]
    lies += [change(b"T", oid=1)[:1] + size + b"\0" for size in sizes]
    lies += [relation(T, "s.t", [])[:-2] + count for count in (b"\0\1", b"\6\x80", b"\6\x81", b"\xff\xff")]

    def decode_all() -> int:
        for lie in lies:
            decoder = Decoder(1)
            for each in told:
                guarded.decode(decoder, each)
            assert not guarded.decode(decoder, lie), lie
            # And what came before still holds.
            assert guarded.decode(decoder, insert(T, "1", None, None))
        return len(lies)

    assert in_child(decode_all) == len(lies)


def test_every_row_of_copy_cut_short_at_every_byte(guarded: Guarded) -> None:
    def decode_all() -> int:
        seen = 0
        for line in LINES:
            for size in range(len(line) + 1):
                oracle, decoder = Oracle(), Decoder(1)
                oracle.decode(ID_NAME)
                decoder.start_snapshot(5)
                decoder.describe(ID_NAME)
                try:
                    oracle.copy(T, line[:size])
                    expected = True
                except Refused:
                    expected = False
                assert guarded.copy(decoder, T, line[:size]) == expected, (line, size)
                seen += 1
        return seen

    assert in_child(decode_all) == sum(len(line) + 1 for line in LINES)


def test_the_page_behind_it_ends_the_process(guarded: Guarded) -> None:
    def touch() -> None:
        faulthandler.disable()
        guarded.touch_beyond()

    with pytest.raises(AssertionError, match=f"the child ended with {int(signal.SIGSEGV)}"):
        in_child(touch)
