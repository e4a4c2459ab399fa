# The changes of a transaction as rows and payload that grow.

from libc.stdint cimport int64_t, uint8_t, uint64_t

from ..batch._row_block cimport RowBlock
from ._table cimport Table

cdef enum:
    # A block takes no further change from here on. So each fits into one row of a log.
    MOST_ROWS = 65536
    MOST_BYTES = 64 * 1024 * 1024

cdef enum:  # WriteOp
    OP_INSERT = 1
    OP_UPDATE = 2
    OP_DELETE = 3


cdef class ChangeBlock(RowBlock):
    cdef uint64_t row_room, byte_room
    cdef uint64_t used        # bytes written: beyond `payload_bytes` those of rows that are not kept yet
    cdef uint64_t written     # rows that are not kept yet

    # Writes one row behind those that are there. `new` may say apsw.no_change, for the value that `old` has.
    cdef int write(
        self, Table table, uint8_t op, uint8_t source, int64_t rowid, tuple keyed, tuple new, tuple old
    ) except -1
    # Whether both tuples have the same key. `second` may say apsw.no_change.
    cdef bint same_key(self, Table table, tuple first, tuple second) except -1
    # Writes a HEARTBEAT, which has no payload.
    cdef int write_heartbeat(self) except -1
    # Makes rows that were written rows of the block; or forgets them.
    cdef void keep(self) noexcept
    cdef void discard(self) noexcept
    # Undoes all rows from number `count` on.
    cdef void truncate(self, uint64_t count) noexcept
    cdef bint is_full(self) noexcept
    # Gives the rows their numbers, from `sequence` on, and what else the commit knows.
    cdef void stamp(self, uint64_t sequence, uint64_t lsn, int64_t time_ms, uint64_t tenant, uint64_t vshard) noexcept
    # The bytes of payload of a row.
    cdef uint64_t row_bytes(self, uint64_t i) noexcept
    # Empties it for the next transaction, if nobody looks into it and it is not large; otherwise False.
    cdef bint reuse(self) noexcept
