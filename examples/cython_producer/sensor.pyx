# cython: language_level=3, boundscheck=False, wraparound=False
# cython: freethreading_compatible=True
"""Emits from C, without the GIL. Compiled against nodedb_ring's .pxd; docs/cython.md says what the functions expect."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from nodedb_ring._ring cimport FIELD_COUNT, NO_TIME, NULL_LENGTH, PUSH_DONE, EventRing, EventRow, Ring, ring_push

cdef enum:
    INSERT = 1      # as in nodedb_ring.WriteOp
    COLLECTION = 0  # the fields of a row, in their order
    ROW_ID = 1
    NEW_VALUE = 4


cdef inline double reading(uint64_t n) noexcept nogil:
    """What the sensor says the n-th time."""
    return <double>(n % 1000) / 8


def measure(producer, uint64_t count):
    """Emits readings from the calling thread: how many went in. The rest the ring dropped, and counted."""
    cdef EventRing end = producer.ring
    cdef Ring* ring = &end.ring
    cdef uint8_t[14] payload
    cdef EventRow row
    cdef uint64_t n, done = 0
    cdef double value
    cdef int k
    # A row is written once: only the numbers and the value change from event to event.
    memset(&row, 0, sizeof(row))
    row.op = INSERT
    row.count = 1
    row.system_time_ms = row.valid_time_ms = NO_TIME
    for k in range(FIELD_COUNT):
        row.field[k].offset = 6
        row.field[k].length = NULL_LENGTH
    row.field[COLLECTION].offset = 0
    row.field[COLLECTION].length = 6
    row.field[ROW_ID].length = 0
    row.field[NEW_VALUE].length = sizeof(value)
    row.field[NEW_VALUE + 1].offset = 6 + sizeof(value)
    memcpy(payload, b"sensor", 6)
    producer.bind()
    with nogil:
        for n in range(1, count + 1):
            value = reading(n)
            memcpy(payload + 6, &value, sizeof(value))
            row.sequence = row.lsn = n
            if ring_push(ring, &row, payload, sizeof(payload)) == PUSH_DONE:
                done += 1
    return done
