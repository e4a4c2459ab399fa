# What is wrong with a row value, as an exception.

from libc.stdint cimport uint64_t

from .._row_block cimport RowBlock
from .rows cimport MsgpackHead, RowFault

# `column` and `type` are the name and the number of what it is about, or None.
cdef int refuse(
    RowBlock block, int field, uint64_t position, RowFault fault, const MsgpackHead* found, object column, object type
) except -1
# "event 3 (sequence 17)"
cdef str event_of(RowBlock block, uint64_t position)
cdef str field_name(int field)
