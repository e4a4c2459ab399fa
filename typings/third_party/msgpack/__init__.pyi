# msgpack has no types of its own. This is what the package and its tests use of it.

from collections.abc import Callable
from typing import Any, NamedTuple

class ExtType(NamedTuple):
    code: int
    data: bytes

class Timestamp:
    seconds: int
    nanoseconds: int
    def __init__(self, seconds: int, nanoseconds: int = 0) -> None: ...

class Packer:
    def __init__(self) -> None: ...
    def pack(self, obj: object) -> bytes: ...
    def pack_array_header(self, size: int) -> bytes: ...
    def pack_map_header(self, size: int) -> bytes: ...

def packb(o: object, *, datetime: bool = False, use_single_float: bool = False) -> bytes: ...
def unpackb(
    packed: bytes,
    *,
    object_pairs_hook: Callable[[list[tuple[Any, Any]]], Any] | None = None,
    strict_map_key: bool = True,
    timestamp: int = 0,
    ext_hook: Callable[[int, bytes], object] = ...,
) -> Any: ...
