"""The passes move 16 bytes where fewer would do: never beyond their memory, beside pages that must not be touched."""

from __future__ import annotations

import faulthandler
import signal
from pathlib import Path
from typing import Final, Protocol, cast

import numpy as np
import numpy.typing as npt
import pytest

from nodedb_ring import EVENT_DTYPE
from tests.stress.compiling import compiled
from tests.unit.runners import in_child

SOURCE: Final = Path(__file__).with_name("guarded.pyx")
TEXT: Final = bytes(range(33, 127))
LONGEST: Final = 45
"""Bytes of payload: more than the 16 that a read has, on either side of a value of more than the 12 of a view."""


class Guarded(Protocol):
    """``guarded.pyx``."""

    def views(
        self, rows: npt.NDArray[np.uint8], payload: bytes, at_end: bool, portable: bool
    ) -> tuple[bytes, bytes] | None: ...

    def plain(
        self,
        rows: npt.NDArray[np.uint8],
        payload: bytes,
        at_end: bool,
        field: int,
        is_large: bool,
        ends: Guarded,
        text: Guarded,
    ) -> tuple[bytes, bytes] | None: ...

    def touch_beyond(self) -> None: ...


class MakesGuarded(Protocol):
    """Its class."""

    def __call__(self, pages: int = 1) -> Guarded: ...


@pytest.fixture(scope="module")
def make_guarded(tmp_path_factory: pytest.TempPathFactory) -> MakesGuarded:
    return cast("MakesGuarded", compiled(SOURCE, tmp_path_factory.mktemp("guarded")).Guarded)


@pytest.fixture(scope="module")
def guarded(make_guarded: MakesGuarded) -> Guarded:
    return make_guarded()


def places(size: int) -> npt.NDArray[np.uint32]:
    """Offset and length of everything that a payload of so many bytes can hold, the empty at its end included."""
    return np.array([(at, length) for at in range(size + 1) for length in range(size - at + 1)], np.uint32)


def rows_with(field: npt.NDArray[np.uint32]) -> npt.NDArray[np.void]:
    rows = np.zeros(len(field), EVENT_DTYPE)
    rows["op"] = 1
    for name in ("collection", "new_value"):
        rows[f"{name}_offset"], rows[f"{name}_length"] = field[:, 0], field[:, 1]
    return rows


def view_of(payload: bytes, at: int, length: int) -> bytes:
    value = payload[at : at + length]
    if length <= 12:
        return length.to_bytes(4, "little") + value.ljust(12, b"\0")
    return length.to_bytes(4, "little") + value[:4] + bytes(4) + at.to_bytes(4, "little")


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("at_end", [False, True])
def test_no_byte_beyond_the_payload_is_read(guarded: Guarded, at_end: bool, portable: bool) -> None:
    def read_all() -> int:
        seen = 0
        for size in range(LONGEST + 1):
            payload, every = TEXT[:size], places(size)
            # As they come, lengths mixed; and by length, so that whole blocks are of one kind.
            for field in (every, every[np.argsort(every[:, 1], kind="stable")]):
                rows = rows_with(field)
                got = guarded.views(rows.view(np.uint8), payload, at_end, portable)
                wanted = b"".join(view_of(payload, int(at), int(length)) for at, length in field)
                assert got == (wanted, wanted), size
                seen += len(rows)
        return seen

    # A read beyond it ends the child, with SIGSEGV.
    assert in_child(read_all) == 2 * sum(len(places(size)) for size in range(LONGEST + 1))


@pytest.mark.parametrize("length", [9, 13])
@pytest.mark.parametrize("at_end", [False, True])
def test_a_none_that_points_outside_is_not_followed(guarded: Guarded, at_end: bool, length: int) -> None:
    def read_all() -> bool:
        rows = rows_with(np.zeros((300, 2), np.uint32))
        # Where values were expected: after a block without a None.
        rows["new_value_length"][:128] = length
        rows["new_value_length"][128:] = 2**32 - 1
        rows["new_value_offset"][128:] = 2**31 + np.arange(172) * 4096
        got = guarded.views(rows.view(np.uint8), TEXT[:length], at_end, False)
        return got is not None and got[1][: 16 * 128] == view_of(TEXT, 0, length) * 128

    assert in_child(read_all)


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize("field", [0, 4])
@pytest.mark.parametrize("at_end", [False, True])
def test_plain_columns_stay_in_their_memory(
    guarded: Guarded, make_guarded: MakesGuarded, at_end: bool, field: int, is_large: bool
) -> None:
    ends, text = make_guarded(4), make_guarded(8)
    # Beside the short ones, lengths at which a copy goes another way.
    long = bytes(33 + i % 94 for i in range(2600))
    far = np.array([(at, size) for size in (255, 256, 257, 1024, 1025, 2500) for at in (0, 1, 100)], np.uint32)

    def one(payload: bytes, places_of: npt.NDArray[np.uint32]) -> int:
        rows = rows_with(places_of)
        got = guarded.plain(rows.view(np.uint8), payload, at_end, field, is_large, ends, text)
        values = [payload[int(at) : int(at) + int(length)] for at, length in places_of]
        lengths = np.cumsum([0, *map(len, values)])
        assert got == (lengths.astype(np.int64 if is_large else np.int32).tobytes(), b"".join(values)), len(payload)
        return len(rows)

    def copy_all() -> int:
        seen = 0
        for size in range(LONGEST + 1):
            seen += one(TEXT[:size], places(size))
        return seen + sum(one(long[: at + size], np.array([(at, size)], np.uint32)) for at, size in far.tolist())

    # A read or a write beyond it ends the child, with SIGSEGV.
    assert in_child(copy_all) == sum(len(places(size)) for size in range(LONGEST + 1)) + len(far)


def test_a_none_that_points_outside_is_not_copied(guarded: Guarded, make_guarded: MakesGuarded) -> None:
    ends, text = make_guarded(1), make_guarded(1)

    def copy() -> bool:
        rows = rows_with(np.zeros((300, 2), np.uint32))
        rows["new_value_length"][:128] = 9
        rows["new_value_length"][128:] = 2**32 - 1
        rows["new_value_offset"][128:] = 2**31 + np.arange(172) * 4096
        got = guarded.plain(rows.view(np.uint8), TEXT[:9], True, 4, False, ends, text)
        return got is not None and got[1] == TEXT[:9] * 128

    assert in_child(copy)


def test_the_pages_beside_it_end_the_process(guarded: Guarded) -> None:
    def touch() -> None:
        faulthandler.disable()
        guarded.touch_beyond()

    with pytest.raises(AssertionError, match=f"the child ended with {int(signal.SIGSEGV)}"):
        in_child(touch)
