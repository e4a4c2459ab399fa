# An exported array, as a stream makes one after the other.

from cpython.object cimport PyObject
from libc.stdint cimport uint32_t, uint64_t

from ...core.schema cimport COLUMN_COUNT
from .._row_block cimport RowBlock
from ._schema cimport Selected
from .abi cimport ArrowArray

cdef enum:
    # Buffers of views begin this many bytes apart, as a power of two: one that begins there may end up to 2 GiB later.
    WINDOW_SHIFT = 28
    # The bytes that offsets of 32 bits reach, and the length of the longest view.
    LONGEST = 0x7FFFFFFF

cdef extern from "nodedb_arrow_sheet.h":
    ctypedef struct Hold "nodedb_hold":
        PyObject* object
        size_t size

    ctypedef struct Sheet "nodedb_sheet":
        Hold hold
        void* text
        size_t text_size
        uint64_t users
        ArrowArray column[COLUMN_COUNT]
        ArrowArray* columns[COLUMN_COUNT]
        ArrowArray dictionary[2]
        const void* no_validity[1]

# Writes the selected columns of a block. False, and nothing is written, when a column with offsets of 32 bits has more
# than `longest` bytes.
cdef bint write_array(
    RowBlock block, const Selected* selected, uint32_t shift, bint portable, uint64_t longest, ArrowArray* out
) except -1
# How many rows have at most `longest` bytes in each column with offsets of 32 bits: of a block that is too large.
cdef uint64_t rows_within(RowBlock block, const Selected* selected, uint64_t longest) except 0
# Drops what a hold holds, and its memory; from any thread, with or without the GIL.
cdef void release_hold(Hold* hold) noexcept nogil
# Memory of which large pieces are kept for the next export; of any size, aligned to a cache line.
cdef void* take_export_memory(size_t size, size_t* got) noexcept nogil
cdef void give_export_memory(void* memory, size_t size) noexcept nogil


# Where an array of `size` bytes goes, and moves *at behind it. Arrays a multiple of a page apart would push each other
# out of the cache.
cdef inline size_t place_array(size_t* at, size_t size) noexcept:
    cdef size_t here = (at[0] + 63) & ~<size_t>63
    at[0] = here + size + 5 * 64
    return here
