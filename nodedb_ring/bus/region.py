"""Where a ring's bytes live: a private block of this process, laid out as this table says.

::

    offset                 bytes                what
    0                      1 page               header: geometry, then a 128-byte line or more a writer
    index_at               4 * capacity         index array: which row stands at each position
    rows_at                128 * capacity       event store
    arena_at               arena_bytes          payload arena

Index and rows start a whole number of pages into the block. It holds positions, offsets and indices, and no pointer, so
its bytes mean the same wherever they are mapped. ``_ring.pxd`` has the header field by field.
"""

from __future__ import annotations

import contextlib
import mmap

from .._ring import block_bytes
from ..errors import CapacityError

__all__ = ["private_block", "ring_size"]

_MOST_SLOTS = 2**32
_MOST_ARENA_BYTES = 2**32 - 1
_ARENA_BYTES_A_SLOT = 256
_LEAST_DEFAULT_ARENA_BYTES = 64 * 1024


def ring_size(capacity: int, arena_bytes: int | None) -> tuple[int, int]:
    """The slots and arena bytes of a ring asked for: slots rounded up to a power of two, the arena's default filled in.

    Raises
    ------
    CapacityError
        Below 1, or more than 32-bit row indices, 32-bit payload offsets or an address space can hold.
    """
    if not isinstance(capacity, int) or isinstance(capacity, bool):
        raise TypeError(f"capacity {capacity!r}: must be an int, not {type(capacity).__name__}")
    if capacity < 1:
        raise CapacityError(f"capacity {capacity}: must be at least 1")
    if capacity > _MOST_SLOTS:
        raise CapacityError(f"capacity {capacity}: must be at most {_MOST_SLOTS}, what a 32-bit row index addresses")
    slots = 1 << (capacity - 1).bit_length()
    if arena_bytes is None:
        arena_bytes = max(_ARENA_BYTES_A_SLOT * slots, _LEAST_DEFAULT_ARENA_BYTES)
        remedy = f" (the default for {slots} slots); pass a smaller arena_bytes"
    else:
        remedy = ""
    if not isinstance(arena_bytes, int) or isinstance(arena_bytes, bool):
        raise TypeError(f"arena_bytes {arena_bytes!r}: must be an int or None, not {type(arena_bytes).__name__}")
    if arena_bytes < 1:
        raise CapacityError(f"arena_bytes {arena_bytes}: must be at least 1")
    if arena_bytes > _MOST_ARENA_BYTES:
        raise CapacityError(f"arena_bytes {arena_bytes}: must be at most {_MOST_ARENA_BYTES}{remedy}")
    return slots, arena_bytes


def private_block(capacity: int, arena_bytes: int) -> mmap.mmap:
    """Zeroed private memory for one ring, in huge pages where the kernel has them to give. Not touched yet.

    Raises
    ------
    MemoryError
        The kernel refuses so much.
    """
    size = block_bytes(capacity, arena_bytes)
    try:
        block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, ValueError) as error:
        raise MemoryError(f"no memory for a ring of {size} bytes ({capacity} slots): {error}") from None
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # A kernel built without huge pages refuses: the ring works on small ones.
        with contextlib.suppress(OSError):
            block.madvise(mmap.MADV_HUGEPAGE)
    return block
