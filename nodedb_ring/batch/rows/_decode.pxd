# Row values as columns, in memory of their own.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from .._row_block cimport RowBlock
from .rows cimport RowColumn, RowNames, RowPayload, RowType

cdef enum:
    # Bytes of payload from which on a pass lets other threads run: it takes longer than a switch costs.
    LONG_PASS = 1 << 16

cdef class RowPlan:
    cdef readonly tuple names
    cdef bytes text          # the names' UTF-8, which `by_name` refers to
    cdef RowNames by_name
    cdef RowType* types
    cdef uint32_t count


cdef class RowColumns:
    cdef RowPlan plan
    cdef readonly RowBlock block
    cdef readonly uint64_t count
    cdef RowPayload payload
    cdef RowColumn* columns
    cdef uint64_t* valid     # values that each column has
    cdef uint8_t* events
    cdef void* memory
    cdef size_t memory_bytes

cdef uint64_t secret() noexcept
# Where the values of a block lie.
cdef RowPayload payload_of(RowBlock block) noexcept
