# Rows turned into the columns of Arrow. nodedb_export_columns.h says what is written.

from libc.stdint cimport int8_t, int64_t, uint8_t, uint32_t, uint64_t

from ...core.layout cimport EventRow
from ...core.schema cimport FIELD_COUNT

cdef extern from "nodedb_export_columns.h" nogil:
    ctypedef struct View "nodedb_view":
        pass

    ctypedef struct Columns "nodedb_columns":
        int8_t* op
        int8_t* source
        int64_t* time[2]
        uint64_t* time_valid[2]
        uint64_t time_nulls[2]
        View* view[FIELD_COUNT]
        uint64_t* valid[FIELD_COUNT]
        uint64_t nulls[FIELD_COUNT]
        uint64_t longs[FIELD_COUNT]

    ctypedef struct Window "nodedb_window":
        const uint8_t* bytes
        uint64_t size
        uint32_t base, shift

    # Has the numbers go to their buffers, which `data` has by number of the column.
    void set_number_targets "nodedb_set_number_targets"(Columns* to, uint8_t** data) noexcept
    # The number of rows, or that of the first with text that is not UTF-8: `field` says which.
    uint64_t write_columns "nodedb_write_columns"(
        Columns* to, const EventRow* rows, uint64_t count, const Window* window, int* field, bint portable
    ) noexcept
