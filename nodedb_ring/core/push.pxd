# The producer's hot path, inlined into whatever cimports it: push one event, or reserve rows, write and publish them.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ._claims cimport ring_producer_corrupt
from ._room cimport ring_drop, ring_make_room, ring_settle
from ._waking cimport ring_answer
from .atomic cimport compiler_fence, fence, load_acquire, load_relaxed_u32, store_release, unlikely
from .layout cimport (
    CORRUPT_INDEX,
    GONE,
    PRESSURE_NORMAL,
    PUSH_CORRUPT,
    PUSH_DISCONNECTED,
    PUSH_DONE,
    PUSH_FULL,
    PUSH_TOO_LARGE,
    SOUND,
    EventRow,
    ProducerSide,
    PushResult,
    Ring,
    RingHeader,
    is_after,
    ring_stamp,
    shift_fields,
)
from .sequence cimport ring_attempted, ring_intend
from .slot cimport ring_run


cdef inline void ring_notify(Ring* ring) noexcept nogil:
    """Wakes the consumer if it sleeps.

    The sleeper's membarrier in _announce stands for both fences of this handshake: either it sees what was published,
    or this load sees that it waits. Where no membarrier reaches this process, the fence is here; where the sleeper has
    none, the word says so, and the fence is in ring_wake.
    """
    if unlikely(ring.fenced != 0):
        fence()
    else:
        compiler_fence()
    if unlikely(load_relaxed_u32(&ring.header.waiting) != 0):
        ring_answer(ring)


cdef inline EventRow* ring_free_row(Ring* ring, uint64_t position) noexcept nogil:
    """The row for a position that is free; NULL if the index has none, and then the producer is corrupt."""
    cdef uint64_t mask = ring.mask
    cdef uint32_t row = load_relaxed_u32(&ring.index[position & mask])
    if unlikely(row > mask):
        ring_producer_corrupt(ring, CORRUPT_INDEX, row)
        return NULL
    return ring.rows + row


cdef inline PushResult ring_claim_slot(Ring* ring, uint64_t sequence, uint64_t payload, EventRow** row) noexcept nogil:
    """Finds room for one event of `payload` bytes, and the row to write it to; or drops and counts it."""
    cdef RingHeader* header = ring.header
    cdef ProducerSide* side = &ring.local.producer
    if unlikely(payload > ring.arena_bytes):
        return PUSH_TOO_LARGE
    ring_intend(ring, sequence)
    if unlikely(load_relaxed_u32(&header.consumer_claim) & GONE):
        ring_drop(ring, sequence, sequence, 1, PUSH_DISCONNECTED)
        return PUSH_DISCONNECTED
    if unlikely(
        side.published - side.cached_released >= ring.capacity
        or side.arena_head - side.arena_lap + payload > side.arena_limit
    ):
        if not ring_make_room(ring, 1, payload):
            if side.corrupt != SOUND:
                return PUSH_CORRUPT
            ring_drop(ring, sequence, sequence, 1, PUSH_FULL)
            return PUSH_FULL
    row[0] = ring_free_row(ring, side.published)
    return PUSH_DONE if row[0] != NULL else PUSH_CORRUPT


cdef inline void ring_publish_stamped(
    Ring* ring, uint64_t count, uint64_t arena_head, uint64_t sequence
) noexcept nogil:
    """Publishes `count` rows that are written and stamped, of which `sequence` is the highest number.

    The arena's head goes first: a successor that finds the rows must find their payload taken too.
    """
    cdef RingHeader* header = ring.header
    cdef ProducerSide* side = &ring.local.producer
    cdef uint64_t published = side.published + count
    side.arena_head = arena_head
    store_release(&header.arena_head, arena_head)
    side.published = published
    # Publishes rows and payload; pairs with the acquire in ring_available.
    store_release(&header.published, published)
    ring_attempted(ring, sequence)
    ring_notify(ring)
    if unlikely(
        published - side.cached_released > side.watch_slots
        or arena_head - side.cached_tail > side.watch_bytes
        or side.overflowing != 0
    ):
        if not ring_is_settled(ring, header, side, published, arena_head):
            ring_settle(ring)


cdef inline bint ring_is_settled(
    Ring* ring, RingHeader* header, ProducerSide* side, uint64_t published, uint64_t arena_head
) noexcept nogil:
    """Whether the cached positions alone were what was too high, as they are where the consumer is never far behind."""
    # As in _load_released and _load_tail, which see to whatever is not as it should be.
    cdef uint64_t released = load_acquire(&header.released)
    cdef uint64_t tail = load_acquire(&header.arena_released)
    if (
        published - released > side.watch_slots
        or arena_head - tail > side.watch_bytes
        or side.overflowing != 0
        or side.pressure != PRESSURE_NORMAL
    ):
        return False
    side.cached_released = released
    if is_after(tail, side.cached_tail):
        side.cached_tail = tail
    return True


cdef inline PushResult ring_push(
    Ring* ring, const EventRow* row, const uint8_t* payload, uint32_t payload_bytes
) noexcept nogil:
    """Copies one event in: a row whose offsets lie in [0, payload_bytes], and its payload."""
    return ring_push_span(ring, row, payload, 0, payload_bytes)


cdef inline PushResult ring_push_span(
    Ring* ring, const EventRow* row, const uint8_t* payload, uint64_t span_start, uint64_t span_bytes
) noexcept nogil:
    """The same of a row whose offsets lie in so many bytes of the payload from `span_start` on, which are copied."""
    cdef ProducerSide* side = &ring.local.producer
    cdef EventRow* to
    cdef PushResult result = ring_claim_slot(ring, row.sequence, span_bytes, &to)
    cdef uint64_t start, offset
    if unlikely(result != PUSH_DONE):
        return result
    start = side.arena_head
    offset = start - side.arena_lap
    memcpy(to, row, sizeof(EventRow))
    if offset != span_start:
        shift_fields(to, <uint32_t>offset - <uint32_t>span_start)
    if span_bytes != 0:
        memcpy(ring.arena + offset, payload + span_start, span_bytes)
    ring_stamp(to, side.published, start, <uint32_t>offset, <uint32_t>span_bytes)
    ring_publish_stamped(ring, 1, start + span_bytes, row.sequence)
    return PUSH_DONE


cdef inline uint32_t ring_reserve(Ring* ring, uint32_t most, EventRow** first) noexcept nogil:
    """A contiguous run of free rows to write in place: at most `most`, 0 when full. Drops and counts nothing."""
    cdef uint64_t published = ring.local.producer.published
    cdef uint64_t free = ring.capacity - (published - ring.local.producer.cached_released)
    cdef uint32_t run
    if free < most:
        ring_make_room(ring, most, 0)
        free = ring.capacity - (published - ring.local.producer.cached_released)
    if free == 0 or most == 0:
        return 0
    run = ring_run(ring, published, min(free, <uint64_t>most), first)
    if unlikely(run == 0):
        ring_producer_corrupt(ring, CORRUPT_INDEX, ring.index[published & ring.mask])
    return run


cdef inline void ring_publish(Ring* ring, EventRow* rows, uint32_t count) noexcept nogil:
    """Publishes the first `count` rows of the last ring_reserve: rows without payload, in order of sequence."""
    cdef ProducerSide* side = &ring.local.producer
    cdef uint64_t start = side.arena_head
    cdef uint64_t offset = start - side.arena_lap
    cdef uint32_t i
    if count == 0:
        return
    for i in range(count):
        ring_stamp(rows + i, side.published + i, start, <uint32_t>offset, 0)
    if offset != 0:
        for i in range(count):
            shift_fields(rows + i, <uint32_t>offset)
    ring_intend(ring, rows[count - 1].sequence)
    ring_publish_stamped(ring, count, start, rows[count - 1].sequence)
