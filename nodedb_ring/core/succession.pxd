# How the successor of a dead end continues, from whatever that end's last store left. Only _ring.pyx cimports this.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memset

from ._claims cimport ring_consumer_corrupt, ring_producer_corrupt
from ._room cimport ring_observe
from .atomic cimport load_acquire, load_relaxed, load_relaxed_u32, store_relaxed, store_release
from .layout cimport (
    CORRUPT_HEAD,
    CORRUPT_INDEX,
    CORRUPT_LEDGER,
    CORRUPT_PUBLISHED,
    CORRUPT_RELEASED,
    CORRUPT_TAIL,
    PRESSURE_SUSPENDED,
    SOUND,
    ConsumerSide,
    ProducerSide,
    Ring,
    RingHeader,
    is_after,
)
from .sequence cimport ring_attempted


cdef struct Outstanding:
    uint64_t age   # how many publications ago
    uint32_t row


cdef inline int _older_first(const void* a, const void* b) noexcept nogil:
    cdef uint64_t one = (<const Outstanding*>a).age
    cdef uint64_t other = (<const Outstanding*>b).age
    return (one < other) - (one > other)


cdef inline void adopt_producer(Ring* ring) noexcept nogil:
    """Takes over where the last producer stopped, between any two of its stores.

    What it wrote and did not publish is written over. Bytes of arena that it took for that come free with what is
    published next. A number that it was about to try counts as tried, since the event may have been seen.
    """
    cdef RingHeader* header = ring.header
    cdef ProducerSide* side = &ring.local.producer
    cdef uint64_t released = load_acquire(&header.released)
    cdef uint64_t tail = load_acquire(&header.arena_released)
    cdef uint64_t floor = load_relaxed(&header.arena_floor)
    side.published = load_relaxed(&header.published)
    side.arena_head = load_relaxed(&header.arena_head)
    side.arena_lap = load_relaxed(&header.arena_lap)
    side.cached_tail = floor if is_after(floor, tail) else tail
    if side.published - released > ring.capacity:
        ring_producer_corrupt(ring, CORRUPT_RELEASED, released)
    elif side.arena_head - side.arena_lap > ring.arena_bytes:
        ring_producer_corrupt(ring, CORRUPT_HEAD, side.arena_head)
    elif side.published != released and side.arena_head - side.cached_tail > ring.arena_bytes:
        ring_producer_corrupt(ring, CORRUPT_TAIL, side.cached_tail)
    if side.corrupt != SOUND:
        return
    if side.published == released:
        # Nothing is outstanding, whatever the tail says: it may lag.
        side.cached_tail = side.arena_head
        store_relaxed(&header.arena_floor, side.arena_head)
    side.cached_released = released
    side.pressure = min(load_relaxed_u32(&header.pressure), <uint32_t>PRESSURE_SUSPENDED)
    if load_relaxed_u32(&header.intended) != 0:
        ring_attempted(ring, load_relaxed(&header.intent))
    ring_observe(ring)


cdef inline bint adopt_consumer(Ring* ring) noexcept nogil:
    """Takes over what was published and not released, in order of position; False when there is no memory for that.

    The rows that are free stand in the index from `published` on, and whatever else the last consumer was writing
    there, that part it had written before. All other rows are outstanding. Only the part of the index below
    `published` is written, which a producer that lives does not read: dying here leaves the same work to the next.
    """
    cdef RingHeader* header = ring.header
    cdef ConsumerSide* side = &ring.local.consumer
    cdef uint64_t released = load_acquire(&header.released)
    cdef uint64_t published = load_acquire(&header.published)
    cdef uint64_t taken = load_relaxed(&header.taken)
    cdef uint64_t count = published - released
    cdef uint64_t found = 0, age = 0, i
    cdef uint32_t row
    cdef uint8_t* is_free
    cdef Outstanding* rows
    if count > ring.capacity:
        ring_consumer_corrupt(ring, CORRUPT_PUBLISHED, published)
        return True
    is_free = <uint8_t*>malloc(ring.capacity)
    rows = <Outstanding*>malloc((count + 1) * sizeof(Outstanding))
    if is_free == NULL or rows == NULL:
        free(is_free)
        free(rows)
        return False
    memset(is_free, 0, ring.capacity)
    for i in range(ring.capacity - count):
        row = load_relaxed_u32(&ring.index[(published + i) & ring.mask])
        if row > ring.mask:
            ring_consumer_corrupt(ring, CORRUPT_INDEX, row)
            break
        if is_free[row]:
            ring_consumer_corrupt(ring, CORRUPT_LEDGER, row)
            break
        is_free[row] = 1
    if side.corrupt == SOUND:
        # As many as are not free: each of capacity - count slots has named a row of its own.
        for i in range(ring.capacity):
            if not is_free[i]:
                rows[found].row = <uint32_t>i
                rows[found].age = published - load_relaxed(&ring.rows[i].position)
                found += 1
        qsort(rows, found, sizeof(Outstanding), _older_first)
        for i in range(found):
            # No two were published at one position, and none at one that is still to come.
            if rows[i].age == 0 or <int64_t>rows[i].age < 0 or rows[i].age == age:
                ring_consumer_corrupt(ring, CORRUPT_LEDGER, rows[i].row)
                break
            age = rows[i].age
    if side.corrupt == SOUND:
        for i in range(found):
            ring.index[(released + i) & ring.mask] = rows[i].row
        if taken - released <= count:
            store_relaxed(&header.redelivered, header.redelivered + (taken - released))
        side.taken = side.released = side.cached_published = released
        store_release(&header.taken, released)
    free(is_free)
    free(rows)
    return True
