"""The checksum of what a log stores."""

from __future__ import annotations

import random

import pytest

from nodedb_ring.batch._crc32c import crc32c


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        # RFC 3720, B.4, and the catalogue's check value.
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_known_values(data: bytes, checksum: int, portable: bool) -> None:
    assert crc32c(data, portable=portable) == checksum


def test_the_instruction_and_the_table_agree_in_pieces_of_any_length() -> None:
    chance = random.Random(7)
    data = chance.randbytes(10_000)
    whole = crc32c(data, portable=True)
    for _ in range(200):
        place = chance.randrange(len(data))
        assert crc32c(memoryview(data)[place:], crc32c(data[:place])) == whole


def test_a_flipped_bit_shows() -> None:
    data = bytearray(random.Random(7).randbytes(1000))
    before = crc32c(bytes(data))
    for bit in range(0, 8 * len(data), 37):
        data[bit // 8] ^= 1 << bit % 8
        assert crc32c(bytes(data)) != before
        data[bit // 8] ^= 1 << bit % 8
