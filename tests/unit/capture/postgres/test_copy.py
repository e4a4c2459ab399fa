"""The reader of COPY by itself: rows in pieces, and those that are none."""

from __future__ import annotations

import pytest

from nodedb_ring.capture.postgres._copy import CopyReader
from nodedb_ring.capture.postgres._pgoutput import Decoder
from nodedb_ring.errors import CaptureError

from .captured import maps
from .messages import INT4, TEXT, relation

T = 16384


def reading() -> tuple[Decoder, CopyReader]:
    decoder = Decoder(1)
    decoder.start_snapshot(5)
    decoder.describe(relation(T, "public.t", [("id", INT4, True), ("name", TEXT, False)]))
    return decoder, CopyReader(decoder, T, lambda: None)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_pieces_of_any_size(size: int) -> None:
    decoder, reader = reading()
    data = b"1\ta\\tb\\\\N\n2\t\\N\n3\t\n"
    for at in range(0, len(data), size):
        reader.write(data[at : at + size])
    reader.finish()
    assert maps(decoder.take()) == [
        ("INSERT", "1", None, {"id": 1, "name": "a\tb\\N"}),
        ("INSERT", "2", None, {"id": 2, "name": None}),
        ("INSERT", "3", None, {"id": 3, "name": ""}),
    ]


@pytest.mark.parametrize("line", [b"1", b"1\ta\tb", b"1\ta\\", b""])
def test_a_line_that_is_no_row_is_refused(line: bytes) -> None:
    decoder, reader = reading()
    # No column is to blame, although the row before has had some.
    with pytest.raises(CaptureError, match=r"^table public\.t: message"):
        reader.write(b"1\ta\n" + line + b"\n")
    assert decoder.pending == 1


def test_a_last_row_without_its_end_is_refused() -> None:
    decoder, reader = reading()
    reader.write(b"1\ta\n2\tb")
    with pytest.raises(CaptureError, match="ends before its last field"):
        reader.finish()
    assert decoder.pending == 1
