# msgpack has no types of its own. This is what the package and its tests use of it.

from collections.abc import Callable
from typing import Any

class Packer:
    def __init__(self) -> None: ...
    def pack(self, obj: object) -> bytes: ...
    def pack_map_header(self, size: int) -> bytes: ...

class Timestamp:
    seconds: int
    nanoseconds: int
    def __init__(self, seconds: int, nanoseconds: int = 0) -> None: ...

class ExtType:
    code: int
    data: bytes
    def __new__(cls, code: int, data: bytes) -> ExtType: ...

def packb(o: object) -> bytes: ...
def unpackb(
    packed: bytes,
    *,
    strict_map_key: bool = True,
    object_pairs_hook: Callable[[Any], object] | None = None,
    ext_hook: Callable[[int, bytes], object] = ...,
) -> Any: ...
