from collections.abc import Callable
from typing import final

from ._pgoutput import Decoder

__all__ = ["CopyReader"]

@final
class CopyReader:
    def __init__(self, decoder: Decoder, oid: int, deliver: Callable[[], object]) -> None: ...
    def write(self, data: bytes) -> None: ...
    def finish(self) -> None: ...
