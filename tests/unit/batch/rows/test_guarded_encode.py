"""The encoder copies 16 bytes where fewer would do: never beyond its memory, beside pages that must not be touched."""

from __future__ import annotations

import faulthandler
import itertools
import signal
import struct
from pathlib import Path
from typing import Any, Final, Protocol, cast

import msgpack
import pytest

import nodedb_ring
from tests.stress.compiling import compiled
from tests.unit.runners import in_child

SOURCE: Final = Path(__file__).with_name("guarded_rows.pyx")
TEXT: Final = bytes(range(33, 127))
NUMBERS: Final = [("c", 1), ("c", -128), ("s", 300), ("i", 70_000), ("l", -(2**40)), ("l", 2**63 - 1), ("g", 0.1)]
CODES: Final = {"c": "b", "s": "h", "i": "i", "l": "q", "g": "d"}


class GuardedRows(Protocol):
    """``guarded_rows.pyx``."""

    def encode(
        self, text: bytes, number: bytes, letter: str, width: str, key: bytes, other_key: bytes, less: int = 0
    ) -> bytes | None: ...

    def touch_beyond(self) -> None: ...


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> GuardedRows:
    batch = Path(nodedb_ring.__file__).parent / "batch"
    folders = [f"-I{folder}" for folder in (batch, batch / "arrow", batch / "rows")]
    return cast("GuardedRows", compiled(SOURCE, tmp_path_factory.mktemp("guarded_rows"), *folders))


def packed(value: Any) -> bytes:
    return msgpack.packb(value)


@pytest.mark.parametrize("letter", ["u", "U", "v"])
def test_no_byte_beyond_a_buffer_or_the_row_is_touched(guarded: GuardedRows, letter: str) -> None:
    def encode_all() -> int:
        seen = 0
        for size, key_size, (width, number) in itertools.product(range(46), (1, 2, 15, 16, 17, 20), NUMBERS):
            text, key, other = TEXT[:size].decode(), "k" * key_size, "o" * (21 - key_size)
            raw = struct.pack(CODES[width], number)
            got = guarded.encode(text.encode(), raw, letter, width, packed(key), packed(other))
            assert got == packed({key: text, other: number}), (size, key_size, number)
            seen += 1
        return seen

    # A touch beyond it ends the child, with SIGSEGV.
    assert in_child(encode_all) == 46 * 6 * len(NUMBERS)


@pytest.mark.parametrize("letter", ["u", "U", "v"])
def test_values_that_grew_are_not_written_beyond_their_row(guarded: GuardedRows, letter: str) -> None:
    def encode_all() -> bool:
        for size, (width, number) in itertools.product((0, 1, 3, 7, 8, 16, 17, 40), NUMBERS):
            raw = struct.pack(CODES[width], number)
            whole = len(packed({"k": TEXT[:size].decode(), "other": number}))
            for less in range(1, whole):
                if guarded.encode(TEXT[:size], raw, letter, width, packed("k"), packed("other"), less) is not None:
                    return False
        return True

    assert in_child(encode_all)


def test_the_page_behind_it_ends_the_process(guarded: GuardedRows) -> None:
    def touch() -> None:
        faulthandler.disable()
        guarded.touch_beyond()

    with pytest.raises(AssertionError, match=f"the child ended with {int(signal.SIGSEGV)}"):
        in_child(touch)
