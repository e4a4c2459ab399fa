# Which columns are exported, and in which of the layouts that Arrow has for them.

from libc.stdint cimport int64_t

from ...core.schema cimport COLUMN_COUNT, FIELD_COUNT
from .abi cimport ArrowSchema

cdef enum Layout:
    FIXED          # one number a row
    DICTIONARY     # an int8 a row, into the names of operations or sources
    VIEWS          # utf8_view, binary_view
    OFFSETS        # utf8, binary: offsets of 32 bits
    LARGE_OFFSETS  # large_utf8, large_binary: of 64

cdef struct Selected:
    # The numbers of the columns that are exported, in their order; their layouts, by number.
    int count
    int[COLUMN_COUNT] column
    Layout[COLUMN_COUNT] layout

cdef tuple COLUMN_NAMES

# The fields of a row by number, and behind them op and source: the columns that Arrow may have as text or bytes.
cdef int[FIELD_COUNT + 2] FIELD_COLUMN

cdef class Selection:
    cdef readonly tuple names
    cdef Selected selected

# Whether None may stand in a column.
cdef bint is_nullable(int column) noexcept nogil
# The schema of some columns; False when there is no memory.
cdef bint write_schema(const Selected* selected, ArrowSchema* out) noexcept nogil
# The same columns as an importer asks for them, as far as there are such layouts.
cdef Selection as_requested(Selection selection, object requested_schema)
