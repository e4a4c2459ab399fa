# Changes of SQLite's tables, written into a block.

from libc.stdint cimport int64_t, uint8_t, uint64_t

from ._change_block cimport ChangeBlock
from ._table cimport Table

# Writes one row behind those that are there. `new` may say apsw.no_change, for the value that `old` has.
cdef int write_change(
    ChangeBlock self, Table table, uint8_t op, uint8_t source, int64_t rowid, tuple keyed, tuple new, tuple old
) except -1
# Whether both tuples have the same key. `second` may say apsw.no_change.
cdef bint same_key(ChangeBlock self, Table table, tuple first, tuple second) except -1
