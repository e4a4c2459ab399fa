# The changes of a transaction as rows and payload that grow.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from ..batch._row_block cimport RowBlock
from ..core.layout cimport NULL_LENGTH, EventField, EventRow

cdef enum:
    # A block takes no further change from here on. So each fits into one row of a log.
    MOST_ROWS = 65536
    MOST_BYTES = 64 * 1024 * 1024

cdef enum:  # WriteOp
    OP_INSERT = 1
    OP_UPDATE = 2
    OP_DELETE = 3
    OP_BULK_DELETE = 5


cdef class ChangeBlock(RowBlock):
    cdef uint64_t row_room, byte_room
    cdef uint64_t used        # bytes written: beyond `payload_bytes` those of rows that are not kept yet
    cdef uint64_t written     # rows that are not kept yet

    # Writes a HEARTBEAT, which has no payload.
    cdef int write_heartbeat(self) except -1
    # Makes rows that were written rows of the block; or forgets them.
    cdef void keep(self) noexcept nogil
    cdef void discard(self) noexcept nogil
    # Undoes all rows from number `count` on.
    cdef void truncate(self, uint64_t count) noexcept
    cdef bint is_full(self) noexcept nogil
    # Gives the rows their numbers, from `sequence` on, and what else the commit knows.
    cdef void stamp(self, uint64_t sequence, uint64_t lsn, int64_t time_ms, uint64_t tenant, uint64_t vshard) noexcept
    # The bytes of payload of a row.
    cdef uint64_t row_bytes(self, uint64_t i) noexcept
    # Empties it for the next transaction, if nobody looks into it and it is not large; otherwise False.
    cdef bint reuse(self) noexcept


# For what writes changes. Room for `size` bytes more.
cdef int grow_bytes(ChangeBlock self, uint64_t size) except -1
# The row behind those that are there, without a field. It counts once `written` says so.
cdef EventRow* next_row(ChangeBlock self) except NULL nogil


cdef inline void clear_field(EventField* field, uint64_t used) noexcept nogil:
    field.offset = <uint32_t>used
    field.length = NULL_LENGTH
