# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
# distutils: extra_compile_args = -O3
"""``ChangeBlock``: the changes of a transaction, in the form in which a ring and a log take them.

Each change is a row of the schema and its payload, back to back, so that undoing changes is making the block shorter,
and emitting them is copying it. No object is made for an event. What is written into it is each database's own:
``_sqlite_changes.pyx``, ``postgres/_pgoutput.pyx``.
"""

cimport cython
from libc.stdint cimport uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from ..batch._row_block cimport PACKED
from ..core.layout cimport HEARTBEAT, NO_TIME, NULL_LENGTH, EventField, EventRow
from ..core.schema cimport FIELD_COLLECTION, FIELD_COUNT, FIELD_ROW_ID

from ..errors import CaptureError

__all__ = ["ChangeBlock"]

cdef enum:
    # A block with more room than this is freed after its transaction.
    KEPT_BYTES = 1024 * 1024


@cython.final
@cython.no_gc
cdef class ChangeBlock(RowBlock):
    """Changes of one transaction, in order. Not safe for two threads at once."""

    def __cinit__(self):
        self.packing = PACKED

    def __dealloc__(self):
        free(self.rows)
        free(self.bytes)

    cdef int write_heartbeat(self) except -1:
        cdef EventRow* row = next_row(self)
        cdef int k
        row.op = HEARTBEAT
        for k in range(FIELD_COUNT):
            row.field[k].offset = <uint32_t>self.used
            row.field[k].length = 0 if k == FIELD_COLLECTION or k == FIELD_ROW_ID else NULL_LENGTH
        self.written += 1
        return 0

    cdef void keep(self) noexcept nogil:
        self.count += self.written
        self.payload_bytes = self.used
        self.written = 0

    cdef void discard(self) noexcept nogil:
        self.used = self.payload_bytes
        self.written = 0

    cdef void truncate(self, uint64_t count) noexcept:
        if count < self.count:
            self.payload_bytes = self.rows[count].field[FIELD_COLLECTION].offset
            self.count = count
        self.discard()

    cdef bint is_full(self) noexcept nogil:
        return self.count >= MOST_ROWS - 2 or self.payload_bytes >= MOST_BYTES

    cdef void stamp(self, uint64_t sequence, uint64_t lsn, int64_t time_ms, uint64_t tenant, uint64_t vshard) noexcept:
        cdef EventRow* row
        cdef uint64_t i
        for i in range(self.count):
            row = self.rows + i
            row.sequence = sequence + i
            row.lsn = lsn
            row.system_time_ms = time_ms
            if row.op != HEARTBEAT:
                row.tenant_id = tenant
                row.vshard_id = <uint32_t>vshard

    cdef uint64_t row_bytes(self, uint64_t i) noexcept:
        cdef uint64_t end = self.payload_bytes
        if i + 1 < self.count:
            end = self.rows[i + 1].field[FIELD_COLLECTION].offset
        return end - self.rows[i].field[FIELD_COLLECTION].offset

    cdef bint reuse(self) noexcept:
        cdef Py_ssize_t views
        with cython.critical_section(self):
            views = self.views
        if views != 0 or self.row_room * sizeof(EventRow) + self.byte_room > KEPT_BYTES:
            return False
        self.truncate(0)
        self.used = self.payload_bytes = 0
        return True


cdef int grow_bytes(ChangeBlock self, uint64_t size) except -1:
    cdef uint64_t room
    cdef void* memory
    if self.used + size >= NULL_LENGTH:
        raise CaptureError(f"a row of more than {NULL_LENGTH - 1} bytes cannot be captured; make it shorter")
    room = 2 * (self.used + size) + 1024
    memory = realloc(self.bytes, room)
    if memory == NULL:
        raise MemoryError
    self.bytes = <uint8_t*>memory
    self.byte_room = room
    return 0


cdef EventRow* next_row(ChangeBlock self) except NULL nogil:
    cdef uint64_t room
    cdef void* memory
    cdef EventRow* row
    if self.count + self.written == self.row_room:
        room = 2 * self.row_room + 8
        memory = realloc(self.rows, room * sizeof(EventRow))
        if memory == NULL:
            with gil:
                raise MemoryError
        self.rows = <EventRow*>memory
        self.row_room = room
    row = self.rows + (self.count + self.written)
    memset(row, 0, sizeof(EventRow))
    row.valid_time_ms = NO_TIME
    return row
