# cython: language_level=3, boundscheck=False, wraparound=False
# cython: freethreading_compatible=True
"""A Cython package of somebody else's: it emits into a ring, and takes from one, without the GIL."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from nodedb_ring._ring cimport (
    FIELD_COUNT,
    NO_TIME,
    NULL_LENGTH,
    PUSH_DONE,
    EventRing,
    EventRow,
    Ring,
    RingLease,
    ring_pop,
    ring_publish,
    ring_push,
    ring_push_rows,
    ring_release,
    ring_reserve,
    ring_take,
)

cdef enum:
    INSERT = 1  # as in nodedb_ring.WriteOp
    HEARTBEAT = 6
    COLLECTION = 0  # the fields of a row, in their order
    ROW_ID = 1
    NEW_VALUE = 4
    VALUE_BYTES = 8
    PAYLOAD_BYTES = 6 + 2 + VALUE_BYTES


cdef void blank(EventRow* row, uint64_t sequence, uint8_t op) noexcept nogil:
    """A row without payload: both names empty, everything else None."""
    cdef int k
    memset(row, 0, sizeof(EventRow))
    row.sequence = row.lsn = sequence
    row.op = op
    row.count = 0 if op == HEARTBEAT else 1
    row.system_time_ms = row.valid_time_ms = NO_TIME
    for k in range(FIELD_COUNT):
        row.field[k].length = 0 if k <= ROW_ID else NULL_LENGTH


cdef uint32_t put(EventRow* row, int field, const void* data, uint32_t size, uint8_t* payload, uint32_t at) noexcept nogil:
    """Gives a field its bytes; fields go in their order, back to back. Returns where the next one starts."""
    cdef int k
    memcpy(payload + at, data, size)
    row.field[field].offset = at
    row.field[field].length = size
    for k in range(field + 1, FIELD_COUNT):
        row.field[k].offset = at + size
    return at + size


cdef uint32_t write_insert(EventRow* row, uint64_t sequence, uint8_t* payload, uint32_t at) noexcept nogil:
    """An insert into "native" of row "r0" to "r9", its value the sequence number in binary."""
    cdef uint8_t[2] name
    cdef int k
    name[0] = c"r"
    name[1] = c"0" + <uint8_t>(sequence % 10)
    blank(row, sequence, INSERT)
    for k in range(FIELD_COUNT):
        row.field[k].offset = at
    at = put(row, COLLECTION, b"native", 6, payload, at)
    at = put(row, ROW_ID, name, 2, payload, at)
    return put(row, NEW_VALUE, &sequence, VALUE_BYTES, payload, at)


def push(producer, uint64_t first, uint64_t count):
    """Emits `count` inserts one by one; returns how many were enqueued. The ring has dropped and counted the rest."""
    cdef EventRing end = producer.ring
    cdef Ring* ring = &end.ring
    cdef EventRow row
    cdef uint8_t[PAYLOAD_BYTES] payload
    cdef uint64_t sequence, done = 0
    producer.bind()
    with nogil:
        for sequence in range(first, first + count):
            write_insert(&row, sequence, payload, 0)
            if ring_push(ring, &row, payload, PAYLOAD_BYTES) == PUSH_DONE:
                done += 1
    return done


def push_rows(producer, uint64_t first, uint32_t count):
    """Emits `count` inserts at once; returns how many were enqueued, a prefix."""
    cdef EventRing end = producer.ring
    cdef Ring* ring = &end.ring
    cdef EventRow* rows = <EventRow*>malloc(count * sizeof(EventRow))
    cdef uint8_t* payload = <uint8_t*>malloc(count * PAYLOAD_BYTES)
    cdef uint64_t done = 0
    cdef uint32_t i, at = 0
    try:
        if rows == NULL or payload == NULL:
            raise MemoryError
        producer.bind()
        with nogil:
            for i in range(count):
                at = write_insert(rows + i, first + i, payload, at)
            done = ring_push_rows(ring, rows, count, payload)
    finally:
        free(rows)
        free(payload)
    return done


def publish_heartbeats(producer, uint64_t first, uint32_t count):
    """Writes up to `count` heartbeats straight into the ring's own rows; returns how many there was room for."""
    cdef EventRing end = producer.ring
    cdef Ring* ring = &end.ring
    cdef EventRow* rows
    cdef uint32_t room, done = 0, i
    producer.bind()
    with nogil:
        while done < count:
            room = ring_reserve(ring, count - done, &rows)
            if room == 0:
                break
            for i in range(room):
                blank(rows + i, first + done + i, HEARTBEAT)
            ring_publish(ring, rows, room)
            done += room
    return done


cdef class Taken:
    """A run of events, read where they lie until `release`."""

    cdef object consumer  # whose collection would close the end
    cdef EventRing end
    cdef RingLease lease
    cdef readonly uint32_t count  # 0 when there was nothing to take, or it was released

    def __dealloc__(self):
        self.release()

    def sum_values(self):
        """The bytes of all new values, added up."""
        cdef Ring* ring = &self.end.ring
        cdef const EventRow* row
        cdef uint64_t total = 0
        cdef uint32_t i, k
        with nogil:
            for i in range(self.count):
                row = self.lease.rows + i
                if row.field[NEW_VALUE].length != NULL_LENGTH:
                    for k in range(row.field[NEW_VALUE].length):
                        total += ring.arena[row.field[NEW_VALUE].offset + k]
        return total

    cpdef void release(self) noexcept:
        """Releases the rows. May be repeated."""
        if self.count != 0:
            self.count = 0
            ring_release(&self.end.ring, &self.lease)


def take(consumer, uint32_t most):
    """Takes one contiguous run, at most `most`."""
    cdef Taken taken = Taken.__new__(Taken)
    consumer.bind()
    taken.consumer = consumer
    taken.end = consumer.ring
    taken.count = ring_take(&taken.end.ring, most, &taken.lease)
    return taken


def pop(consumer, uint32_t room):
    """The next event as (sequence, collection, new value), or None; -n when its payload of n bytes exceeds `room`."""
    cdef EventRing end = consumer.ring
    cdef Ring* ring = &end.ring
    cdef EventRow row
    cdef uint8_t* payload = <uint8_t*>malloc(room or 1)
    cdef int found
    try:
        if payload == NULL:
            raise MemoryError
        consumer.bind()
        with nogil:
            found = ring_pop(ring, &row, payload, room)
        if found == 0:
            return None
        if found < 0:
            return -<long long>row.span_length
        value = None
        if row.field[NEW_VALUE].length != NULL_LENGTH:
            value = (payload + row.field[NEW_VALUE].offset)[:row.field[NEW_VALUE].length]
        collection = (payload + row.field[COLLECTION].offset)[:row.field[COLLECTION].length]
        return row.sequence, collection.decode(), value
    finally:
        free(payload)
