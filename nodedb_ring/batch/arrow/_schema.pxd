# Which columns are exported, and in which of the layouts that Arrow has for them.

from libc.stdint cimport int64_t

from .abi cimport ArrowSchema

cdef enum:
    COLUMN_COUNT = 15

cdef enum:  # in the order of WriteEvent's fields
    SEQUENCE
    COLLECTION
    OP
    ROW_ID
    LSN
    TENANT_ID
    VSHARD_ID
    SOURCE
    COUNT
    NEW_VALUE
    OLD_VALUE
    SYSTEM_TIME
    VALID_TIME
    USER_ID
    STATEMENT_DIGEST

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

cdef class Selection:
    cdef readonly tuple names
    cdef Selected selected

# Whether None may stand in a column.
cdef bint is_nullable(int column) noexcept nogil
# The schema of some columns; False when there is no memory.
cdef bint write_schema(const Selected* selected, ArrowSchema* out) noexcept nogil
# The same columns as an importer asks for them, as far as there are such layouts.
cdef Selection as_requested(Selection selection, object requested_schema)
