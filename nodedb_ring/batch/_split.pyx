# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
# distutils: extra_compile_args = -O3
"""``EventBatch.split``: the events that have the same string in one field, each kind as a block of its own."""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from ..core.layout cimport EventField, EventRow, shift_fields
from ..core.row cimport row_is_packed, row_pack
from ._event_rows cimport decode_text
from ._row_block cimport PACKED, RowBlock, new_block
from ._row_checks cimport check_payload_size

from ..errors import CorruptRingError

__all__ = ["split"]

cdef extern from "nodedb_groups.h":
    ctypedef struct Group "nodedb_group":
        const uint8_t* text
        uint32_t size

    ctypedef struct Groups "nodedb_groups":
        Group* group
        uint32_t count

    bint is_group "nodedb_is_group"(const Group* group, const uint8_t* text, uint32_t size) noexcept nogil
    int64_t group_of "nodedb_group_of"(Groups* groups, const uint8_t* text, uint32_t size) noexcept nogil
    void free_groups "nodedb_free_groups"(Groups* groups) noexcept nogil

cdef enum:
    # Rows from which on a pass lets other threads run: it takes longer than a switch costs.
    LONG_PASS = 8192


cdef struct Part:
    # What comes of one group. Bytes are counted first, and then filled from 0 on again.
    EventRow* rows
    uint8_t* bytes
    uint64_t count
    uint64_t size
    uint64_t room


@cython.final
cdef class _Split:
    """The groups of a block's rows, and the blocks that they become."""

    cdef Groups groups
    cdef uint32_t* number   # of each row's group
    cdef Part* part

    def __dealloc__(self):
        free_groups(&self.groups)
        free(self.number)
        free(self.part)

    cdef int find(self, const EventRow* rows, uint64_t count, const uint8_t* bytes, int field) noexcept nogil:
        """Numbers the rows' groups; -1 when there is no memory."""
        cdef const EventField* at
        cdef int64_t number = 0
        cdef uint64_t i
        for i in range(count):
            at = &rows[i].field[field]
            # Neighbours are often of one group.
            if self.groups.count == 0 or not is_group(&self.groups.group[number], bytes + at.offset, at.length):
                number = group_of(&self.groups, bytes + at.offset, at.length)
                if number < 0:
                    return -1
            self.number[i] = <uint32_t>number
        return 0

    cdef void measure(self, const EventRow* rows, uint64_t count) noexcept nogil:
        cdef uint64_t i, need = 0
        cdef Part* part
        for i in range(count):
            part = &self.part[self.number[i]]
            row_is_packed(rows + i, &need)
            part.count += 1
            part.room += need

    cdef int fill(self, const EventRow* rows, uint64_t count, const uint8_t* bytes) noexcept nogil:
        """Copies each row behind the others of its group; -1 if one is not as it was measured."""
        cdef uint64_t i, need = 0
        cdef EventRow row
        cdef EventRow* to
        cdef Part* part
        for i in range(count):
            part = &self.part[self.number[i]]
            memcpy(&row, rows + i, sizeof(EventRow))
            to = part.rows + part.count
            memcpy(to, &row, sizeof(EventRow))
            if row_is_packed(&row, &need):
                if need > part.room - part.size:
                    return -1
                shift_fields(to, <uint32_t>part.size - row.field[0].offset)
                memcpy(part.bytes + part.size, bytes + row.field[0].offset, need)
            else:
                if need > part.room - part.size:
                    return -1
                row_pack(to, &row, part.bytes, part.size, bytes)
            part.count += 1
            part.size += need
        return 0


def split(RowBlock block not None, int field):
    """The rows by what they have in a field that no row lacks, in order: a dict of str to packed blocks.

    The keys are in the order in which they come.
    """
    cdef _Split split = _Split.__new__(_Split)
    cdef uint64_t count = block.count
    cdef RowBlock made, pinned
    cdef uint32_t k
    cdef int code
    cdef dict parts = {}
    # Pinned, so that no other thread ends the lease of these rows meanwhile.
    pinned = block.slice(0, count)
    if count == 0:
        return parts
    split.number = <uint32_t*>malloc(count * sizeof(uint32_t))
    if split.number == NULL:
        raise MemoryError(f"no memory to split a batch of {count} events")
    if count >= LONG_PASS:
        with nogil:
            code = split.find(pinned.rows, count, pinned.bytes, field)
    else:
        code = split.find(pinned.rows, count, pinned.bytes, field)
    if code == 0:
        split.part = <Part*>calloc(split.groups.count, sizeof(Part))
    if split.part == NULL:
        raise MemoryError(f"no memory to split a batch of {count} events")
    split.measure(pinned.rows, count)
    for k in range(split.groups.count):
        check_payload_size(split.part[k].room)
        made = new_block(split.part[k].count, split.part[k].room, None)
        made.packing = PACKED
        split.part[k].rows = made.rows
        split.part[k].bytes = made.bytes
        split.part[k].count = 0
        parts[decode_text(<const char*>split.groups.group[k].text, split.groups.group[k].size)] = made
    if len(parts) != <Py_ssize_t>split.groups.count:
        raise CorruptRingError("the batch changes while it is split")
    if count >= LONG_PASS:
        with nogil:
            code = split.fill(pinned.rows, count, pinned.bytes)
    else:
        code = split.fill(pinned.rows, count, pinned.bytes)
    if code != 0:
        raise CorruptRingError("the batch changes while it is split")
    return parts
