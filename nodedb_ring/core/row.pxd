# One row: where its fields lie in a payload, and how they are copied.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from .layout cimport FIELD_COUNT, NULL_LENGTH, EventRow


cdef inline uint64_t row_lap(const EventRow* row) noexcept nogil:
    """The arena position where the lap that a row's span lies in begins: an empty span may stand at either end of one."""
    return row.arena_start - row.span_offset


cdef inline bint row_is_packed(const EventRow* row, uint64_t* payload) noexcept nogil:
    """Whether the fields of a row lie back to back from the first one's offset on; `payload` is their bytes in all."""
    cdef uint32_t start = row.field[0].offset
    cdef uint32_t stray = 0, length
    cdef uint64_t size = 0
    cdef int k
    for k in range(FIELD_COUNT):
        stray |= row.field[k].offset - start - <uint32_t>size
        length = row.field[k].length
        size += 0 if length == NULL_LENGTH else length
    payload[0] = size
    return stray == 0


cdef inline void row_pack(
    EventRow* to, const EventRow* row, uint8_t* base, uint64_t offset, const uint8_t* payload
) noexcept nogil:
    """Copies the fields of `row` out of `payload`, wherever they lie, back to back to `base + offset`."""
    cdef uint32_t length
    cdef int k
    for k in range(FIELD_COUNT):
        to.field[k].offset = <uint32_t>offset
        length = row.field[k].length
        if length != NULL_LENGTH and length != 0:
            memcpy(base + offset, payload + row.field[k].offset, length)
            offset += length
