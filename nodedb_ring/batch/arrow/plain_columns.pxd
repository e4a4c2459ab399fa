# Text and values one behind the other, as utf8 and binary have them, for importers without views.
#
#     ends    | 0 | end of row 0 | end of row 1 | ...     32 or 64 bits; None is as long as nothing
#     bytes   | row 0 | row 1 | ...                       of this column alone, out of the payload
#
# Two passes, in blocks whose rows stay in the first cache: over the rows, to write the ends, which gives how much room
# the bytes take; then over the bytes, which are copied and, where they are text, checked as they have arrived. (In a
# lease of a shared ring the other process can still change what lies in the payload.)
#
# As in nodedb_export_columns.h, a column in which everything is None is not written at all, and one that is not asked for
# has no target. Columns from FIELD_COUNT on are the names of operations and of sources, by number.

from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from ...core.copy cimport nodedb_copy
from ...core.layout cimport NULL_LENGTH, EventRow
from ...core.schema cimport FIELD_COUNT, STRING_COUNT
from .columns cimport Window
from ..utf8 cimport is_ascii, utf8_prefix

cdef enum:
    PLAIN_COUNT = FIELD_COUNT + 2
    PLAIN_BLOCK = 128   # rows: so many bits of whole words
    PLAIN_WORDS = 2
    PLAIN_STEP = 16     # bytes that a copy moves at a time; so many may be written behind a column's last
    PLAIN_NAME = 16     # bytes that a name has room for
    LONG_COPY = 256     # bytes up to which one step at a time is the fastest

cdef struct Names:
    # By number; those that nobody has are empty, whatever a row says.
    uint8_t text[256 * PLAIN_NAME]
    uint8_t length[256]

cdef struct PlainColumns:
    void* ends[PLAIN_COUNT]       # NULL: not asked for
    bint is_large[PLAIN_COUNT]
    uint64_t size[PLAIN_COUNT]    # of all bytes of a column
    uint8_t* bytes[PLAIN_COUNT]   # room for them, and for PLAIN_STEP more
    uint64_t* valid[FIELD_COUNT]  # none for the first two fields, which are never None
    uint64_t nulls[FIELD_COUNT]
    const int8_t* number[2]       # of operations and sources, from 0
    const Names* names[2]


cdef inline void store_end(void* ends, bint is_large, uint64_t i, uint64_t end) noexcept nogil:
    if is_large:
        (<int64_t*>ends)[i] = <int64_t>end
    else:
        (<int32_t*>ends)[i] = <int32_t>end


cdef inline void copy_bytes(uint8_t* to, const uint8_t* source, uint64_t size, uint64_t room) noexcept nogil:
    """Copies `size` bytes of the `room` that there are from `source` on, in whole steps where they lie there."""
    cdef uint64_t i = 0
    if size <= LONG_COPY and size + (PLAIN_STEP - 1) <= room:
        while i < size:
            memcpy(to + i, source + i, PLAIN_STEP)
            i += PLAIN_STEP
    else:
        nodedb_copy(to, source, size)


cdef inline bint all_none(const EventRow* rows, uint64_t count, int k) noexcept nogil:
    cdef uint32_t lengths = NULL_LENGTH
    cdef uint64_t i
    for i in range(count):
        lengths &= rows[i].field[k].length
    return lengths == NULL_LENGTH


cdef inline void field_ends(
    PlainColumns* to, uint64_t first, const EventRow* rows, uint64_t count, int k, bint is_large
) noexcept nogil:
    """The ends of one block of one field, which begins at row `first`, and which of its rows are no None."""
    cdef uint64_t[PLAIN_WORDS] word
    cdef void* ends = to.ends[k]
    cdef uint64_t at = to.size[k], nulls = 0, i, is_none
    cdef uint32_t length
    memset(word, 0, sizeof(word))
    for i in range(count):
        length = rows[i].field[k].length
        is_none = length == NULL_LENGTH
        at += length & (<uint64_t>is_none - 1)
        store_end(ends, is_large, first + i + 1, at)
        word[i // 64] |= (is_none ^ 1) << (i % 64)
        nulls += is_none
    to.size[k] = at
    to.nulls[k] += nulls
    if to.valid[k] != NULL:
        memcpy(<uint8_t*>to.valid[k] + first // 8, word, (count + 63) // 64 * 8)


cdef inline void write_ends(PlainColumns* to, const EventRow* rows, uint64_t count) noexcept nogil:
    """Ends and validity of every column, how many are None, and how many bytes there are."""
    cdef uint64_t first = 0, n
    cdef int k
    for k in range(PLAIN_COUNT):
        if to.ends[k] != NULL:
            store_end(to.ends[k], to.is_large[k], 0, 0)
    while first < count:
        n = min(count - first, <uint64_t>PLAIN_BLOCK)
        for k in range(FIELD_COUNT):
            if to.ends[k] == NULL:
                continue
            if to.valid[k] != NULL and to.nulls[k] == first:
                if all_none(rows + first, n, k):
                    to.nulls[k] += n
                    continue
                memset(to.ends[k], 0, (first + 1) * (8 if to.is_large[k] else 4))
                memset(to.valid[k], 0, first // 8)
            if to.is_large[k]:
                field_ends(to, first, rows + first, n, k, True)
            else:
                field_ends(to, first, rows + first, n, k, False)
        first += n
    for k in range(FIELD_COUNT, PLAIN_COUNT):
        if to.ends[k] != NULL:
            name_ends(to, count, k)


cdef inline void name_ends(PlainColumns* to, uint64_t count, int k) noexcept nogil:
    cdef const int8_t* number = to.number[k - FIELD_COUNT]
    cdef const Names* names = to.names[k - FIELD_COUNT]
    cdef uint64_t at = 0, i
    for i in range(count):
        at += names.length[<uint8_t>number[i]]
        store_end(to.ends[k], to.is_large[k], i + 1, at)
    to.size[k] = at


cdef inline uint64_t copy_values(
    const PlainColumns* to, const EventRow* rows, uint64_t count, const Window* window, int* field
) noexcept nogil:
    """Copies all bytes. The number of rows, or that of the first with text that is not UTF-8: `field` says which."""
    cdef (uint8_t*)[FIELD_COUNT] out
    cdef const EventRow* row
    cdef uint8_t* begin
    cdef uint64_t first = 0, n, i, at
    cdef uint32_t length
    cdef int k
    for k in range(FIELD_COUNT):
        out[k] = to.bytes[k]
    while first < count:
        n = min(count - first, <uint64_t>PLAIN_BLOCK)
        row = rows + first
        for k in range(FIELD_COUNT):
            if to.ends[k] == NULL or to.nulls[k] == count:
                continue
            begin = out[k]
            for i in range(n):
                length = row[i].field[k].length
                if length == 0 or length == NULL_LENGTH:
                    continue
                # Of a lease, a row may lie behind the window, in the arena: it has no more room than its own bytes.
                at = <uint32_t>(row[i].field[k].offset - window.base)
                copy_bytes(out[k], window.bytes + at, length, window.size - at if at < window.size else length)
                out[k] += length
            if k < STRING_COUNT and not is_ascii(begin, out[k] - begin):
                for i in range(n):
                    length = row[i].field[k].length
                    if length == NULL_LENGTH:
                        continue
                    if utf8_prefix(begin, length) != length:
                        field[0] = k
                        return first + i
                    begin += length
        first += n
    for k in range(FIELD_COUNT, PLAIN_COUNT):
        if to.ends[k] != NULL:
            copy_names(to, count, k)
    return count


cdef inline void copy_names(const PlainColumns* to, uint64_t count, int k) noexcept nogil:
    cdef const int8_t* number = to.number[k - FIELD_COUNT]
    cdef const Names* names = to.names[k - FIELD_COUNT]
    cdef uint8_t* out = to.bytes[k]
    cdef uint64_t i
    for i in range(count):
        memcpy(out, names.text + PLAIN_NAME * <uint8_t>number[i], PLAIN_NAME)
        out += names.length[<uint8_t>number[i]]
