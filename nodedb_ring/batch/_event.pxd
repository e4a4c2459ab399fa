# WriteEvent as Cython code sees it.

from ..core.layout cimport EventRow
from ..core.schema cimport FIELD_COUNT


cdef class WriteEvent:
    cdef EventRow row                   # offsets are into the event's own payload: its fields back to back
    cdef (const char*)[FIELD_COUNT] data  # the bytes of each field, kept alive by the objects below
    cdef readonly str collection
    cdef readonly str row_id
    cdef readonly object user_id
    cdef readonly object statement_digest
    cdef readonly object new_value
    cdef readonly object old_value


# Fills in where each field lies in the event's payload, and where its bytes are now.
cdef int lay_out(WriteEvent event) except -1
