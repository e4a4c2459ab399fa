# The consumer's hot path, inlined into whatever cimports it: peek at one event or pop it, or take a run and release it.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ._claims cimport ring_consumer_corrupt
from ._waking cimport ring_wake_producer
from .atomic cimport (
    compiler_fence,
    fence,
    load_acquire,
    load_relaxed_u32,
    store_relaxed,
    store_release,
    unlikely,
)
from .layout cimport (
    CORRUPT_INDEX,
    CORRUPT_PUBLISHED,
    CORRUPT_ROW,
    ConsumerSide,
    EventRow,
    Ring,
    RingHeader,
    RingLease,
    shift_checked,
    shift_fields,
)
from .slot cimport ring_row, ring_run


cdef inline uint64_t ring_available(Ring* ring, uint64_t wanted) noexcept nogil:
    """How many events wait; loads the producer's position only when it knows of fewer than `wanted`."""
    cdef ConsumerSide* side = &ring.local.consumer
    cdef uint64_t ready = side.cached_published - side.taken
    cdef uint64_t published
    if ready < wanted:
        # Acquires the rows and payload; pairs with the release in ring_publish_stamped.
        published = load_acquire(&ring.header.published)
        if unlikely(published - side.released > ring.capacity):
            ring_consumer_corrupt(ring, CORRUPT_PUBLISHED, published)
            return 0
        side.cached_published = published
        ready = published - side.taken
    return ready


cdef inline EventRow* ring_peek(Ring* ring) noexcept nogil:
    """The next event, still in the ring, or NULL. It stays readable until ring_advance."""
    if ring_available(ring, 1) == 0:
        return NULL
    return ring_row(ring, ring.local.consumer.taken)


cdef inline bint span_lies_in(Ring* ring, const EventRow* row) noexcept nogil:
    return <uint64_t>row.span_offset + row.span_length <= ring.arena_bytes


cdef inline bint ring_peek_copy(Ring* ring, EventRow* row) noexcept nogil:
    """Copies the next event's row, offsets into the arena, checked if the ring is shared. It stays until ring_advance."""
    cdef EventRow* waiting = ring_peek(ring)
    if waiting == NULL:
        return False
    memcpy(row, waiting, sizeof(EventRow))
    if ring.shared and unlikely(not shift_checked(row, row + 1, 0, ring.arena_bytes, row) or not span_lies_in(ring, row)):
        ring_consumer_corrupt(ring, CORRUPT_ROW, row.position)
        return False
    return True


cdef inline void ring_release_run(
    Ring* ring, const EventRow* rows, uint32_t count, uint64_t position
) noexcept nogil:
    """Returns a run of rows that stood at `position`, at the next free positions. Slots first, then arena."""
    cdef RingHeader* header = ring.header
    cdef ConsumerSide* side = &ring.local.consumer
    cdef uint64_t released = side.released
    cdef uint64_t tail
    cdef uint32_t first, i
    if position != released:
        # Out of order. In order the indices already stand there, since nobody writes them between take and release.
        first = <uint32_t>(rows - ring.rows)
        for i in range(count):
            ring.index[(released + i) & ring.mask] = first + i
    # The arena is free up to the oldest event that is held or waits: where that begins, since events of one reservation
    # may share bytes. With neither, up to the end of the last taken.
    if side.oldest != NULL:
        tail = side.oldest.arena_start
    elif side.cached_published != side.taken:
        tail = ring_row(ring, side.taken).arena_start
    else:
        tail = side.arena_taken
    side.released = released + count
    # Publishes the indices, and that the rows are read; pairs with the acquire in ring_make_room.
    store_release(&header.released, released + count)
    if tail != header.arena_released:
        # Publishes that the payload is read; pairs with the acquire in ring_make_room.
        store_release(&header.arena_released, tail)
    # ring_notify's handshake the other way round, the producer's membarrier in _announce_room standing for both fences.
    if unlikely(ring.fenced != 0):
        fence()
    else:
        compiler_fence()
    if unlikely(load_relaxed_u32(&header.room_waiting) != 0):
        ring_wake_producer(ring)


cdef inline void ring_advance_rows(Ring* ring, const EventRow* rows, uint32_t count, uint64_t arena_end) noexcept nogil:
    """Takes and releases at once the next `count` rows, which lie at `rows` and end at `arena_end` of the arena."""
    cdef ConsumerSide* side = &ring.local.consumer
    cdef uint64_t position = side.taken
    side.arena_taken = arena_end
    side.taken = position + count
    store_relaxed(&ring.header.taken, position + count)
    ring_release_run(ring, rows, count, position)


cdef inline void ring_advance(Ring* ring) noexcept nogil:
    """Takes and releases at once the row that ring_peek showed."""
    cdef EventRow* row = ring_row(ring, ring.local.consumer.taken)
    ring_advance_rows(ring, row, 1, row.arena_start + row.span_length)


cdef inline int ring_pop(Ring* ring, EventRow* row, uint8_t* payload, uint32_t payload_room) noexcept nogil:
    """Copies one event out: 1, or 0 when empty, or -1 when its span_length, now in `row`, exceeds `payload_room`."""
    if not ring_peek_copy(ring, row):
        return 0
    if row.span_length > payload_room:
        return -1
    if row.span_offset != 0:
        shift_fields(row, -row.span_offset)
    if row.span_length != 0:
        memcpy(payload, ring.arena + row.span_offset, row.span_length)
    ring_advance_rows(ring, ring_row(ring, ring.local.consumer.taken), 1, row.arena_start + row.span_length)
    return 1


cdef inline uint32_t ring_take(Ring* ring, uint32_t most, RingLease* lease) noexcept nogil:
    """Takes a contiguous run, at most `most`, to read in place; 0 when empty. `lease` stays put until ring_release."""
    cdef ConsumerSide* side = &ring.local.consumer
    cdef uint64_t ready = min(ring_available(ring, most), <uint64_t>most)
    cdef EventRow* last
    if ready == 0:
        return 0
    lease.count = ring_run(ring, side.taken, ready, &lease.rows)
    if unlikely(lease.count == 0):
        ring_consumer_corrupt(ring, CORRUPT_INDEX, ring.index[side.taken & ring.mask])
        return 0
    lease.position = side.taken
    lease.arena_start = lease.rows.arena_start
    lease.older = side.newest
    lease.newer = NULL
    if side.newest == NULL:
        side.oldest = lease
    else:
        side.newest.newer = lease
    side.newest = lease
    last = lease.rows + (lease.count - 1)
    side.arena_taken = last.arena_start + last.span_length
    side.taken += lease.count
    store_relaxed(&ring.header.taken, side.taken)
    return lease.count


cdef inline void ring_release(Ring* ring, RingLease* lease) noexcept nogil:
    """Releases what ring_take took, in any order among several."""
    cdef ConsumerSide* side = &ring.local.consumer
    if lease.older == NULL:
        side.oldest = lease.newer
    else:
        lease.older.newer = lease.newer
    if lease.newer == NULL:
        side.newest = lease.older
    else:
        lease.newer.older = lease.older
    ring_release_run(ring, lease.rows, lease.count, lease.position)
