# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""Room for the producer: what the consumer has released, what is in use, the pressure that follows, and drops."""

from libc.stdint cimport uint32_t, uint64_t

from ._claims cimport ring_mark_dead_consumer, ring_producer_corrupt
from .atomic cimport (
    load_acquire,
    load_relaxed,
    load_relaxed_u32,
    store_relaxed,
    store_release,
    store_release_u32,
    unlikely,
)
from .kernel cimport coarse_ns
from .layout cimport (
    CORRUPT_RELEASED,
    CORRUPT_TAIL,
    LOG_DISCONNECT,
    LOG_OVERFLOW_BEGAN,
    LOG_OVERFLOW_ENDED,
    PEER_CHECK_NS,
    PRESSURE_NORMAL,
    PRESSURE_SUSPENDED,
    PRESSURE_THROTTLED,
    PUSH_FULL,
    ProducerSide,
    PushResult,
    Ring,
    RingHeader,
    is_after,
)
from .sequence cimport ring_attempted

__all__ = []  # C functions alone

cdef enum:
    # Bytes of arena that the producer may use before it checks whether it can start again at the hot beginning.
    ARENA_WINDOW = 64 * 1024
    # Under pressure the producer loads the consumer's positions once in capacity / 2**PRESSURE_STEP_BITS events.
    PRESSURE_STEP_BITS = 10


cdef inline bint _load_released(Ring* ring) noexcept nogil:
    # Acquires rows that are read and indices that are written; pairs with the release in ring_release_run.
    cdef uint64_t released = load_acquire(&ring.header.released)
    if unlikely(ring.local.producer.published - released > ring.capacity):
        ring_producer_corrupt(ring, CORRUPT_RELEASED, released)
        return False
    ring.local.producer.cached_released = released
    return True


cdef inline bint _load_tail(Ring* ring) noexcept nogil:
    # Acquires that the payload below is read; pairs with the release in ring_release_run.
    cdef uint64_t tail = load_acquire(&ring.header.arena_released)
    # It may still lag behind a start of the arena with nothing outstanding, which released everything before.
    if is_after(tail, ring.local.producer.cached_tail):
        if unlikely(ring.local.producer.arena_head - tail > ring.arena_bytes):
            ring_producer_corrupt(ring, CORRUPT_TAIL, tail)
            return False
        ring.local.producer.cached_tail = tail
    return True


cdef inline void _start_lap(Ring* ring) noexcept nogil:
    # In this order a producer that dies between the two leaves a lap that is used up, which is no harm.
    cdef ProducerSide* side = &ring.local.producer
    side.arena_head = side.arena_lap = side.arena_lap + ring.arena_bytes
    store_release(&ring.header.arena_head, side.arena_head)
    store_release(&ring.header.arena_lap, side.arena_lap)


cdef bint ring_make_room(Ring* ring, uint64_t slots, uint64_t payload) noexcept nogil:
    """Loads what the consumer has released; whether `slots` rows and a span of `payload` bytes are free at the head.

    The only place where the producer moves on to the next lap of the arena. False for a corrupt block, too.
    """
    cdef ProducerSide* side = &ring.local.producer
    cdef uint64_t published = side.published
    cdef uint64_t offset, limit
    if not _load_released(ring):
        return False
    if side.pressure != PRESSURE_NORMAL:
        # The estimate that `watch_slots` goes with has moved: the next publication measures.
        side.watch_slots = 0
    if side.cached_released == published:
        # Nothing is outstanding: the bytes at the beginning are in cache, those ahead are not.
        if side.arena_head != side.arena_lap:
            _start_lap(ring)
        store_relaxed(&ring.header.arena_floor, side.arena_head)
        side.cached_tail = side.arena_head
        offset = 0
        limit = ring.arena_bytes
    else:
        if ring.capacity - (published - side.cached_released) < slots:
            return False
        if not _load_tail(ring):
            return False
        offset = side.arena_head - side.arena_lap
        limit = ring.arena_bytes
        if is_after(side.arena_lap, side.cached_tail):
            limit -= side.arena_lap - side.cached_tail
            if offset + payload > limit:
                return False
        elif offset + payload > limit:
            limit = side.cached_tail - side.arena_lap
            if payload > limit:
                return False
            _start_lap(ring)
            offset = 0
    side.arena_limit = min(limit, offset + payload + ARENA_WINDOW)
    return slots <= ring.capacity and offset + payload <= limit


cdef uint32_t ring_percent(Ring* ring, uint64_t slots, uint64_t payload) noexcept nogil:
    """The fuller of slots and arena, in whole percent."""
    cdef uint64_t by_slots = slots * 100 // ring.capacity
    cdef uint64_t by_bytes = payload * 100 // ring.arena_bytes
    return <uint32_t>max(by_slots, by_bytes)


cdef uint32_t ring_next_pressure(Ring* ring, uint32_t state, uint32_t percent) noexcept nogil:
    """The state that follows `state` at a utilization of `percent`: entered at one threshold, left below another."""
    if percent >= ring.suspend_enter or (state == PRESSURE_SUSPENDED and percent >= ring.suspend_exit):
        return PRESSURE_SUSPENDED
    if percent >= ring.throttle_enter or (state != PRESSURE_NORMAL and percent >= ring.throttle_exit):
        return PRESSURE_THROTTLED
    return PRESSURE_NORMAL


cdef void ring_occupancy(Ring* ring, uint64_t* slots, uint64_t* payload) noexcept nogil:
    """Slots and arena bytes in use, from any thread: a snapshot of moving numbers, clamped to what is possible."""
    cdef RingHeader* header = ring.header
    cdef uint64_t released = load_acquire(&header.released)
    cdef uint64_t tail = load_acquire(&header.arena_released)
    cdef uint64_t published = load_acquire(&header.published)
    cdef uint64_t floor = load_relaxed(&header.arena_floor)
    cdef uint64_t head = load_relaxed(&header.arena_head)
    slots[0] = min(published - released, ring.capacity)
    if is_after(floor, tail):
        tail = floor
    payload[0] = min(head - tail, ring.arena_bytes) if slots[0] != 0 and is_after(head, tail) else 0


cdef void ring_observe(Ring* ring) noexcept nogil:
    """Measures what is in use, moves the pressure state, and says from where on to measure again.

    Cached positions over-estimate what is in use, so as long as they stay at or below `watch_*` neither the high-water
    marks nor the state can change, and the consumer's line need not be read.
    """
    cdef RingHeader* header = ring.header
    cdef ProducerSide* side = &ring.local.producer
    cdef uint64_t slots, payload
    cdef uint32_t state = side.pressure
    cdef uint32_t after
    if not _load_released(ring) or not _load_tail(ring):
        return
    slots = side.published - side.cached_released
    payload = side.arena_head - side.cached_tail if slots != 0 else 0
    if slots > header.slots_high_water:
        store_relaxed(&header.slots_high_water, slots)
    if payload > header.bytes_high_water:
        store_relaxed(&header.bytes_high_water, payload)
    after = ring_next_pressure(ring, state, ring_percent(ring, slots, payload))
    if after != state:
        side.pressure = after
        store_release_u32(&header.pressure, after)
        store_relaxed(&header.transitions[after], header.transitions[after] + 1)
        side.pending_log |= <uint32_t>1 << after
    if after == PRESSURE_NORMAL:
        side.watch_slots = min(header.slots_high_water, (ring.throttle_enter * ring.capacity + 99) // 100 - 1)
        side.watch_bytes = min(header.bytes_high_water, (ring.throttle_enter * ring.arena_bytes + 99) // 100 - 1)
    else:
        # The state may be left when the consumer's positions say so. Their line is busiest while the ring is full, so it
        # is loaded again after a thousandth of the ring, not after every event; with fewer slots than that, after every event.
        side.watch_slots = min(slots + (ring.capacity >> PRESSURE_STEP_BITS), header.slots_high_water)
        side.watch_bytes = min(payload + (ring.arena_bytes >> PRESSURE_STEP_BITS), header.bytes_high_water)
        if after == PRESSURE_THROTTLED:
            side.watch_slots = min(side.watch_slots, (ring.suspend_enter * ring.capacity + 99) // 100 - 1)
            side.watch_bytes = min(side.watch_bytes, (ring.suspend_enter * ring.arena_bytes + 99) // 100 - 1)


cdef void ring_settle(Ring* ring) noexcept nogil:
    """After a publication that ended an overflow, or may have changed the pressure."""
    cdef ProducerSide* side = &ring.local.producer
    if side.overflowing != 0:
        side.overflowing = 0
        side.pending_log |= LOG_OVERFLOW_ENDED
    ring_observe(ring)


cdef void ring_drop(Ring* ring, uint64_t first, uint64_t last, uint64_t count, PushResult reason) noexcept nogil:
    """Counts `count` events that were refused, from sequence `first` to sequence `last`."""
    cdef RingHeader* header = ring.header
    cdef ProducerSide* side = &ring.local.producer
    cdef uint64_t slots_in_use = side.published - side.cached_released
    cdef uint32_t claim
    if header.dropped_full + header.dropped_disconnected == 0:
        store_relaxed(&header.first_dropped, first)
    store_relaxed(&header.last_dropped, last)
    if reason == PUSH_FULL:
        store_relaxed(&header.dropped_full, header.dropped_full + count)
        if side.overflowing == 0:
            side.overflowing = 1
            side.pending_log |= LOG_OVERFLOW_BEGAN
            if side.overflow_count == 0:
                side.overflow_first = first
        side.overflow_count += count
        side.overflow_last = last
        if ring.shared and coarse_ns() - side.peer_checked_ns >= PEER_CHECK_NS:
            # Full for long, perhaps because nobody is left to drain it. What was dropped until now was for lack of room.
            side.peer_checked_ns = coarse_ns()
            ring_mark_dead_consumer(ring)
    else:
        claim = load_relaxed_u32(&header.consumer_claim)
        if side.consumer_gone_for != claim:
            side.consumer_gone_for = claim
            side.pending_log |= LOG_DISCONNECT
        store_relaxed(&header.dropped_disconnected, header.dropped_disconnected + count)
    ring_attempted(ring, last)
    if reason != PUSH_FULL or side.pressure != PRESSURE_SUSPENDED or slots_in_use != ring.capacity:
        # A suspended ring that was just found without a free slot stays as it is.
        ring_observe(ring)
