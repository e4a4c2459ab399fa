from typing import Final

__all__ = ["ENCODING_VERSION", "checksum"]

ENCODING_VERSION: Final[int]

def checksum(
    core_id: int, first: int, last: int, count: int, rows: bytes | memoryview, payload: bytes | memoryview
) -> int: ...
