# Which row of the store stands at a position.

from libc.stdint cimport uint32_t, uint64_t

from .atomic cimport load_relaxed_u32, unlikely
from .layout cimport EventRow, Ring


cdef inline EventRow* ring_row(Ring* ring, uint64_t position) noexcept nogil:
    """The row that stands at a position. Masked, so that it is one of the ring's whatever the index holds."""
    cdef uint64_t mask = ring.mask
    return ring.rows + (load_relaxed_u32(&ring.index[position & mask]) & mask)


cdef inline uint32_t ring_run(Ring* ring, uint64_t position, uint64_t most, EventRow** first) noexcept nogil:
    """How many rows, of the `most` from `position` on, lie one behind the other in the store; 0 for an index of no row."""
    cdef uint64_t slot = position & ring.mask
    cdef uint32_t* index = ring.index + slot
    cdef uint32_t start = load_relaxed_u32(index)
    cdef uint32_t run = 1
    if unlikely(start > ring.mask):
        return 0
    first[0] = ring.rows + start
    most = min(most, ring.capacity - max(slot, <uint64_t>start))
    while run < most and index[run] == start + run:
        run += 1
    return run
