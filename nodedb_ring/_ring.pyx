# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
"""One ring: an array of indices, a store of rows and an arena of payload, in one block of memory.

Positions are counts that only grow; the slot of a position is ``position & (capacity - 1)``. ``index[slot]`` tells which
row of the store stands at a position. Every row has one owner at a time::

    released           taken             published         released + capacity
       |                 |                   |                   |
       |  held by leases |  waits: consumer  |  free: producer   |
       |  (any order)    |  may take         |  may write        |

    released .. taken                 in leases, which know their own rows
    taken .. published                index[] names the rows that wait
    published .. released + capacity  index[] names the rows that are free

The producer writes rows at the positions from ``published`` on and publishes them by storing ``published``. The consumer
takes positions by storing ``taken``, and gives a row back by writing its index at position ``released`` and storing
``released``. Only the consumer writes ``index``. So rows never move, several leases may be out at once and come back
in any order, and after a crash the rows tell which events are outstanding. (After AF_XDP's fill and completion rings
and NVMe's queues, in one array.)

What the two sides say to each other:

=====================  ===============================  ============================================
stored with release    by                               loaded with acquire, by the other side, in
=====================  ===============================  ============================================
``published``          ``ring_publish_stamped``         ``ring_available``: rows and payload are written
``released``           ``ring_give_back``               ``ring_make_room``: rows are read, indices written
``arena_released``     ``ring_give_back``               ``ring_make_room``: payload is read
``emitted_sequence``   ``ring_attempted``               ``EventRing.emitted_sequence``
``producer_claim``     ``ring_close_producer``          ``ring_producer_gone``: then ``published`` once more
``*_claim``            ``EventRing.adopt_*``            ``_is_lost``: then the pid is that claim's or a later one's
``waiting``            ``_announce``, its membarrier    ``ring_notify``
``room_waiting``       ``_announce_room``, the same     ``ring_give_back``, ``ring_wake_producer``
=====================  ===============================  ============================================

Each word has one writer but the claims: a claim that its holder left open is marked ``GONE`` by whoever finds the holder
dead, by compare-and-swap, so that a successor's claim is never taken for its predecessor's.

Store order, so that either side may die between any two stores: the producer stores intent, payload and row,
``arena_head``, ``published``, ``emitted_sequence``; the consumer the indices, ``released``, ``arena_released``. What a
successor makes of what it finds: ``_adopt_producer``, ``_adopt_consumer``.

An end works from its own positions, which it keeps in memory of its own; the header has copies for the other end. Of a
block that is shared with other processes, every number that is read back is checked, or masked, before it is used.

The arena is a ring of bytes whose positions only grow too. An event's span never wraps: what does not fit before the
end of a lap starts the next one. Space comes back in publication order, at the oldest event still held.
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EAGAIN, EINTR, EMFILE, ENFILE, ENOENT, ENOMEM, ETIMEDOUT, errno
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcpy, memset
from posix.unistd cimport getpid

from .core.atomic cimport (
    exchange_u32,
    fetch_and_u32,
    fetch_or_u32,
    load_acquire_u32,
    pause,
    replace_u32,
)
from .core.kernel cimport (
    clear_signal,
    close_fd,
    coarse_ns,
    copy_fd,
    epoll_add,
    epoll_remove,
    futex_wait,
    futex_wake,
    has_ended,
    is_locked,
    let_go_fd,
    map_wiped_on_fork,
    membarrier,
    membarrier_global,
    membarrier_register,
    membarrier_register_global,
    monotonic_ns,
    new_epoll,
    new_eventfd,
    new_timer,
    open_fifo,
    open_pidfd,
    pid_namespace,
    set_timer,
    signal_fd,
    take_role,
    this_thread,
    unmap,
)

import os

from .core.backpressure import PressureState
from .errors import CorruptRingError, LayoutError, RoleTaken

__all__ = ["EventRing", "block_bytes"]

cdef enum:
    LINE = 128
    PAGE = 4096
    LAYOUT_VERSION = 3
    # The byte of a bus's file that is locked for an end: twice the core, and
    PRODUCER_ROLE = 0
    CONSUMER_ROLE = 1
    # How long a sleep may be on a shared ring, and how recent the last look for the other end's holder may be to do.
    LONGEST_NAP_NS = 80000000
    LIVENESS_NS = 40000000
    # Bytes of arena that the producer may use before it looks whether it can start again at the hot beginning.
    ARENA_WINDOW = 64 * 1024
    # Rows published together by ring_push_rows: enough to pay for the line that moves, few enough to stay in cache.
    PUBLISH_ROWS = 256
    # Between two looks of an end that spins.
    PAUSES = 4
    # How long a producer that sleeps lets room gather: woken for each row, it would cost the consumer a system call a row.
    GATHER_NS = 1000000
    # Rows copied at once where they are gone through next: what the first-level cache keeps beside their payload.
    CACHED_ROWS = 64
    # Under pressure the producer looks at the consumer's line once in capacity / 2**LOOKS events.
    LOOKS = 10

cdef tuple _STATES = tuple(PressureState)
cdef enum: # what _copy_span returns for a span that there is no room for
    SPAN_TOO_LONG = 0xFFFFFFFFFFFFFFFF

cdef uint64_t MAGIC = 0x31676E6972626465  # "edbring1", little-endian
cdef bint has_membarrier = membarrier_register()


cdef uint64_t thread_token() noexcept nogil:
    """A number that this thread has for life and no other thread of the process ever gets."""
    return this_thread()


cdef int64_t monotonic() noexcept nogil:
    """Nanoseconds on a clock that only goes forward."""
    return monotonic_ns()


# ---- room -----------------------------------------------------------------------------------------------------------

cdef inline bint _is_after(uint64_t position, uint64_t other) noexcept nogil:
    return <int64_t>(position - other) > 0


cdef void ring_producer_corrupt(Ring* ring, Corruption what, uint64_t value) noexcept nogil:
    """Ends the producer's trust in the block for good: without an owner, every later call is turned away."""
    cdef ProducerSide* side = &ring.local.producer
    side.corrupt = what
    side.corrupt_value = value
    side.owner = 0
    side.noted |= NOTED_CORRUPT


cdef void ring_consumer_corrupt(Ring* ring, Corruption what, uint64_t value) noexcept nogil:
    """The same for the consumer."""
    cdef ConsumerSide* side = &ring.local.consumer
    side.corrupt = what
    side.corrupt_value = value
    side.owner = 0


cdef inline bint _see_released(Ring* ring) noexcept nogil:
    # Acquires rows that are read and indices that are written; pairs with the release in ring_give_back.
    cdef uint64_t released = load_acquire(&ring.header.released)
    if unlikely(ring.local.producer.published - released > ring.capacity):
        ring_producer_corrupt(ring, CORRUPT_RELEASED, released)
        return False
    ring.local.producer.seen_released = released
    return True


cdef inline bint _see_tail(Ring* ring) noexcept nogil:
    # Acquires that the payload below is read; pairs with the release in ring_give_back.
    cdef uint64_t tail = load_acquire(&ring.header.arena_released)
    # It may still lag behind a start of the arena with nothing outstanding, which released everything before.
    if _is_after(tail, ring.local.producer.seen_tail):
        if unlikely(ring.local.producer.arena_head - tail > ring.arena_bytes):
            ring_producer_corrupt(ring, CORRUPT_TAIL, tail)
            return False
        ring.local.producer.seen_tail = tail
    return True


cdef inline void _start_lap(Ring* ring) noexcept nogil:
    # In this order a producer that dies between the two leaves a lap that is used up, which is no harm.
    cdef ProducerSide* side = &ring.local.producer
    side.arena_head = side.arena_lap = side.arena_lap + ring.arena_bytes
    store_release(&ring.header.arena_head, side.arena_head)
    store_release(&ring.header.arena_lap, side.arena_lap)


cdef bint ring_make_room(Ring* ring, uint64_t slots, uint64_t payload) noexcept nogil:
    """Looks at what the consumer has released; whether `slots` rows and a span of `payload` bytes are free at the head.

    The only place where the producer moves on to the next lap of the arena. False for a corrupt block, too.
    """
    cdef ProducerSide* side = &ring.local.producer
    cdef uint64_t published = side.published
    cdef uint64_t offset, limit
    if not _see_released(ring):
        return False
    if side.pressure != PRESSURE_NORMAL:
        # The estimate that `watch_slots` goes with has moved: the next publication measures.
        side.watch_slots = 0
    if side.seen_released == published:
        # Nothing is outstanding: the bytes at the beginning are in cache, those ahead are not.
        if side.arena_head != side.arena_lap:
            _start_lap(ring)
        store_relaxed(&ring.header.arena_floor, side.arena_head)
        side.seen_tail = side.arena_head
        offset = 0
        limit = ring.arena_bytes
    else:
        if ring.capacity - (published - side.seen_released) < slots:
            return False
        if not _see_tail(ring):
            return False
        offset = side.arena_head - side.arena_lap
        limit = ring.arena_bytes
        if _is_after(side.arena_lap, side.seen_tail):
            limit -= side.arena_lap - side.seen_tail
            if offset + payload > limit:
                return False
        elif offset + payload > limit:
            limit = side.seen_tail - side.arena_lap
            if payload > limit:
                return False
            _start_lap(ring)
            offset = 0
    side.arena_limit = min(limit, offset + payload + ARENA_WINDOW)
    return slots <= ring.capacity and offset + payload <= limit


# ---- pressure, accounting -------------------------------------------------------------------------------------------

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
    if _is_after(floor, tail):
        tail = floor
    payload[0] = min(head - tail, ring.arena_bytes) if slots[0] != 0 and _is_after(head, tail) else 0


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
    if not _see_released(ring) or not _see_tail(ring):
        return
    slots = side.published - side.seen_released
    payload = side.arena_head - side.seen_tail if slots != 0 else 0
    if slots > header.slots_high_water:
        store_relaxed(&header.slots_high_water, slots)
    if payload > header.bytes_high_water:
        store_relaxed(&header.bytes_high_water, payload)
    after = ring_next_pressure(ring, state, ring_percent(ring, slots, payload))
    if after != state:
        side.pressure = after
        store_release_u32(&header.pressure, after)
        store_relaxed(&header.transitions[after], header.transitions[after] + 1)
        side.noted |= <uint32_t>1 << after
    if after == PRESSURE_NORMAL:
        side.watch_slots = min(header.slots_high_water, (ring.throttle_enter * ring.capacity + 99) // 100 - 1)
        side.watch_bytes = min(header.bytes_high_water, (ring.throttle_enter * ring.arena_bytes + 99) // 100 - 1)
    else:
        # Only the consumer's line tells when the state may be left. It is busiest while the ring is full, so it is read
        # again after a thousandth of the ring, not after every event; a ring of fewer slots is looked at every time.
        side.watch_slots = min(slots + (ring.capacity >> LOOKS), header.slots_high_water)
        side.watch_bytes = min(payload + (ring.arena_bytes >> LOOKS), header.bytes_high_water)
        if after == PRESSURE_THROTTLED:
            side.watch_slots = min(side.watch_slots, (ring.suspend_enter * ring.capacity + 99) // 100 - 1)
            side.watch_bytes = min(side.watch_bytes, (ring.suspend_enter * ring.arena_bytes + 99) // 100 - 1)


cdef void ring_settle(Ring* ring) noexcept nogil:
    """After a publication that has to be looked at: it ended an overflow, or may have changed the pressure."""
    cdef ProducerSide* side = &ring.local.producer
    if side.overflowing != 0:
        side.overflowing = 0
        side.noted |= NOTED_OVERFLOW_ENDED
    ring_observe(ring)


cdef void ring_drop(Ring* ring, uint64_t first, uint64_t last, uint64_t count, PushResult reason) noexcept nogil:
    """Counts `count` events that were refused, from sequence `first` to sequence `last`."""
    cdef RingHeader* header = ring.header
    cdef ProducerSide* side = &ring.local.producer
    cdef uint64_t slots_in_use = side.published - side.seen_released
    cdef uint32_t claim
    if header.dropped_full + header.dropped_disconnected == 0:
        store_relaxed(&header.first_dropped, first)
    store_relaxed(&header.last_dropped, last)
    if reason == PUSH_FULL:
        store_relaxed(&header.dropped_full, header.dropped_full + count)
        if side.overflowing == 0:
            side.overflowing = 1
            side.noted |= NOTED_OVERFLOW_BEGAN
            if side.overflow_count == 0:
                side.overflow_first = first
        side.overflow_count += count
        side.overflow_last = last
        if ring.shared and coarse_ns() - side.peer_looked_ns >= LIVENESS_NS:
            # Full for long, perhaps because nobody is left to drain it. What was dropped until now was for lack of room.
            side.peer_looked_ns = coarse_ns()
            ring_consumer_lost(ring)
    else:
        claim = load_relaxed_u32(&header.consumer_claim)
        if side.turned_away_by != claim:
            side.turned_away_by = claim
            side.noted |= NOTED_DISCONNECT
        store_relaxed(&header.dropped_disconnected, header.dropped_disconnected + count)
    ring_attempted(ring, last)
    if reason != PUSH_FULL or side.pressure != PRESSURE_SUSPENDED or slots_in_use != ring.capacity:
        # A suspended ring that was just found without a free slot stays as it is.
        ring_observe(ring)


# ---- in bulk --------------------------------------------------------------------------------------------------------

cdef void ring_drop_rows(
    Ring* ring, const EventRow* rows, uint64_t done, uint64_t count, PushResult why
) noexcept nogil:
    """Counts the rows from `done` up to `count` as refused; the highest of their numbers was tried with them."""
    cdef uint64_t highest = 0, i
    for i in range(done, count):
        highest = max(highest, rows[i].sequence)
    ring_intend(ring, highest)
    ring_drop(ring, rows[done].sequence, rows[count - 1].sequence, count - done, why)
    ring_attempted(ring, highest)


cdef uint64_t ring_too_large(
    Ring* ring, const EventRow* rows, uint64_t count, uint64_t payload_bytes
) noexcept nogil:
    """What the first row that could never fit needs, of rows over `payload_bytes`; 0 where there is none."""
    cdef uint64_t need, i
    # No event can need more than all of its fields over the whole payload.
    if FIELD_COUNT * payload_bytes > ring.arena_bytes:
        for i in range(count):
            row_is_packed(rows + i, &need)
            if need > ring.arena_bytes:
                return need
    return 0


cdef uint64_t ring_push_rows(
    Ring* ring, const EventRow* rows, uint64_t count, const uint8_t* payload
) noexcept nogil:
    """Emits rows in order; returns how many went in. The rest, from the first without room on, is dropped and counted."""
    cdef PushResult why
    cdef uint64_t done = ring_fit_rows(ring, rows, count, payload, &why)
    if done < count and ring.local.producer.corrupt == SOUND:
        ring_drop_rows(ring, rows, done, count, why)
    return done


cdef uint64_t ring_fit_rows(
    Ring* ring, const EventRow* rows, uint64_t count, const uint8_t* payload, PushResult* why
) noexcept nogil:
    """Emits the rows that there is room for, in order; returns how many. The rest was not tried."""
    cdef ProducerSide* side = &ring.local.producer
    cdef const EventRow* row
    cdef EventRow* first
    cdef EventRow* to
    cdef uint64_t done = 0, highest = 0, head, offset, need, i
    cdef uint32_t run
    cdef bint packed
    why[0] = PUSH_DONE
    while done < count:
        if unlikely(load_relaxed_u32(&ring.header.consumer_claim) & GONE):
            why[0] = PUSH_DISCONNECTED
            break
        if done == 0:
            # With nothing outstanding, a batch starts where the arena is hot.
            ring_make_room(ring, 1, 0)
        run = ring_reserve(ring, <uint32_t>min(count - done, <uint64_t>PUBLISH_ROWS), &first)
        head = side.arena_head
        i = 0
        while i < run:
            row = rows + (done + i)
            to = first + i
            packed = row_is_packed(row, &need)
            offset = head - side.arena_lap
            if unlikely(offset + need > side.arena_limit):
                if i != 0 or not ring_make_room(ring, 1, need):
                    break
                head = side.arena_head
                offset = head - side.arena_lap
            memcpy(to, row, sizeof(EventRow))
            if packed:
                shift_fields(to, <uint32_t>offset - row.field[0].offset)
                memcpy(ring.arena + offset, payload + row.field[0].offset, need)
            else:
                row_pack(to, row, ring.arena, offset, payload)
            clear_reserved(to)
            ring_stamp(to, side.published + i, head, offset, need)
            head += need
            highest = max(highest, row.sequence)
            i += 1
        if i == 0:
            why[0] = PUSH_FULL
            break
        ring_intend(ring, highest)
        ring_publish_stamped(ring, i, head, highest)
        done += i
    return done


cdef uint64_t ring_fit_packed(
    Ring* ring, const EventRow* rows, uint64_t count, const uint8_t* payload, uint64_t end, PushResult* why
) noexcept nogil:
    """As ring_fit_rows, for rows whose fields lie back to back, row after row, up to `end`: two copies a publication."""
    cdef ProducerSide* side = &ring.local.producer
    cdef EventRow* first
    cdef uint64_t done = 0, highest = 0, head, start, stop, at, behind, i
    cdef uint32_t run, fit, more, shift
    why[0] = PUSH_DONE
    while done < count:
        if unlikely(load_relaxed_u32(&ring.header.consumer_claim) & GONE):
            why[0] = PUSH_DISCONNECTED
            break
        if done == 0:
            ring_make_room(ring, 1, 0)
        run = ring_reserve(ring, <uint32_t>min(count - done, <uint64_t>PUBLISH_ROWS), &first)
        if run == 0:
            why[0] = PUSH_FULL
            break
        fit = run
        start = rows[done].field[0].offset
        stop = end if done + fit == count else rows[done + fit].field[0].offset
        if side.arena_head - side.arena_lap + (stop - start) > side.arena_limit:
            stop = end if done + 1 == count else rows[done + 1].field[0].offset
            if not ring_make_room(ring, 1, stop - start):
                why[0] = PUSH_FULL
                break
            # One event fits. Double the step while more do, then halve it: the most that fit, in few looks.
            fit = 1
            more = 1
            while more != 0:
                at = end if done + fit + more >= count else rows[done + fit + more].field[0].offset
                if fit + more <= run and side.arena_head - side.arena_lap + (at - start) <= side.arena_limit:
                    fit += more
                    stop = at
                    more *= 2
                else:
                    more //= 2
        head = side.arena_head
        memcpy(ring.arena + (head - side.arena_lap), payload + start, stop - start)
        shift = <uint32_t>(head - side.arena_lap) - <uint32_t>start
        at = start
        for i in range(fit):
            if i % CACHED_ROWS == 0:
                memcpy(first + i, rows + (done + i), min(fit - i, <uint32_t>CACHED_ROWS) * sizeof(EventRow))
            highest = max(highest, first[i].sequence)
            # A row ends where the next one begins.
            behind = stop if i + 1 == fit else rows[done + i + 1].field[0].offset
            if shift != 0:
                shift_fields(first + i, shift)
            ring_stamp(first + i, side.published + i, head + (at - start), at + shift, behind - at)
            at = behind
        ring_intend(ring, highest)
        ring_publish_stamped(ring, fit, head + (stop - start), highest)
        done += fit
    return done


cdef uint64_t ring_measure(Ring* ring, uint64_t most, uint64_t* payload_bytes) noexcept nogil:
    """How many events wait, at most `most`, and how many bytes of arena they stretch over, a skipped end included."""
    cdef uint64_t taken = ring.local.consumer.taken
    cdef uint64_t count = min(ring_available(ring, most), most)
    cdef EventRow* first
    cdef EventRow* last
    payload_bytes[0] = 0
    if count != 0:
        first = ring_row(ring, taken)
        last = ring_row(ring, taken + count - 1)
        payload_bytes[0] = last.arena_start + last.span_length - first.arena_start
        if ring.shared and payload_bytes[0] > ring.arena_bytes:
            ring_consumer_corrupt(ring, CORRUPT_ROW, last.position)
            payload_bytes[0] = 0
            return 0
    return count


cdef uint64_t ring_copy_out(
    Ring* ring, uint64_t count, EventRow* rows, uint8_t* payload, uint64_t payload_room
) noexcept nogil:
    """Copies `count` events that wait, and gives their rows back; returns the bytes of payload written.


    Rows are copied some at a time, and gone through while they are in cache; payload a lap at a time. ``is_plain_run`` of
    the consumer's side then tells whether their numbers follow each other one by one and none is a heartbeat.
    """
    cdef uint64_t taken = ring.local.consumer.taken
    cdef uint64_t copied = 0, written = 0, stray = 0, lap, end, stop, i
    cdef EventRow* run_rows = NULL
    cdef EventRow* first = rows    # of the rows in this lap
    cdef const EventRow* ahead
    cdef uint32_t shift, run = 0, used = 0
    if count == 0:
        return 0
    while copied < count:
        if used == run:
            used = 0
            run = ring_run(ring, taken + copied, count - copied, &run_rows)
            if unlikely(run == 0):
                ring_consumer_corrupt(ring, CORRUPT_INDEX, ring.index[(taken + copied) & ring.mask])
                return 0
        stop = copied + min(run - used, <uint32_t>CACHED_ROWS)
        memcpy(rows + copied, run_rows + used, (stop - copied) * sizeof(EventRow))
        for i in range(copied, stop):
            stray |= (rows[i].sequence ^ (rows.sequence + i)) | (rows[i].op == HEARTBEAT)
        used += <uint32_t>(stop - copied)
        while copied < stop:
            lap = row_lap(rows + copied)
            if copied != 0 and lap != row_lap(first):
                # The lap before is complete: what its rows stretch over, in one piece.
                written = _copy_span(ring, first, rows + (copied - 1), payload, written, payload_room)
                first = rows + copied
            end = copied + 1
            while end < stop and row_lap(rows + end) == lap:
                end += 1
            shift = <uint32_t>written - first.span_offset
            if ring.shared:
                # Ahead are only rows that are published: the producer's lines are left to it.
                ahead = run_rows + used if used + (end - copied) <= run else rows + copied
                if unlikely(not shift_checked(rows + copied, rows + end, shift, payload_room, ahead)):
                    ring_consumer_corrupt(ring, CORRUPT_ROW, rows[copied].position)
                    return 0
            elif shift != 0:
                for i in range(copied, end):
                    shift_fields(rows + i, shift)
            copied = end
    written = _copy_span(ring, first, rows + (count - 1), payload, written, payload_room)
    if unlikely(written == <uint64_t>SPAN_TOO_LONG):
        ring_consumer_corrupt(ring, CORRUPT_ROW, first.position)
        return 0
    # All is read. Give the rows back a run at a time, in order.
    copied = 0
    while copied < count:
        run = ring_run(ring, taken + copied, count - copied, &run_rows)
        if unlikely(run == 0):
            ring_consumer_corrupt(ring, CORRUPT_INDEX, ring.index[(taken + copied) & ring.mask])
            return 0
        end = rows[copied + run - 1].arena_start + rows[copied + run - 1].span_length
        ring_advance_rows(ring, run_rows, run, end)
        copied += run
    ring.local.consumer.is_plain_run = stray == 0
    return written


cdef inline uint64_t _copy_span(
    Ring* ring, const EventRow* first, const EventRow* last, uint8_t* payload, uint64_t written, uint64_t room
) noexcept nogil:
    """Copies what the rows from `first` to `last`, of one lap, stretch over; returns the bytes written until then."""
    cdef uint64_t size = last.arena_start + last.span_length - first.arena_start
    # Only rows of a corrupt block stretch over more than ring_measure found, or beyond the arena.
    if unlikely(size > room - min(written, room) or size > ring.arena_bytes - min(first.span_offset, ring.arena_bytes)):
        return <uint64_t>SPAN_TOO_LONG
    if size != 0:
        memcpy(payload + written, ring.arena + first.span_offset, size)
    return written + size


# ---- sleeping, closing ----------------------------------------------------------------------------------------------

cdef bint _is_lost(
    Ring* ring, uint32_t* claim_word, const uint32_t* pid, const uint64_t* namespace, uint64_t role
) noexcept nogil:
    """Whether the other end is GONE, or the holder of its latest claim is found dead, and so marked.

    Its lock is the first witness. A process that it was forked into by other means than fork(), and that lives on, keeps
    that; then the pidfd tells. In another pid namespace the number is somebody else's: there the lock alone tells.
    """
    cdef uint64_t here
    cdef uint32_t claim = load_acquire_u32(claim_word)
    cdef bint lost = False
    if claim & GONE:
        return True
    # Nobody has come yet; or the process is one that inherited this end.
    if claim == 0 or ring.shared == 0 or ring.role_fd < 0 or ring.local.alive == 0:
        return False
    if exchange_u32(&ring.peer_busy, 1) != 0:
        return False
    if ring.peer_claim != claim:
        if ring.peer_fd >= 0:
            if ring.watch_fd >= 0:
                epoll_remove(ring.watch_fd, ring.peer_fd)
            close_fd(ring.peer_fd)
        ring.peer_fd = -1
        ring.peer_claim = claim
        here = pid_namespace()
        if here != 0 and here == load_relaxed(namespace):
            ring.peer_fd = open_pidfd(load_relaxed_u32(pid))
            if ring.peer_fd < 0 and errno in (EMFILE, ENFILE, ENOMEM):
                ring.peer_claim = 0  # it may go better at the next look
        if ring.peer_fd >= 0 and ring.watch_fd >= 0:
            epoll_add(ring.watch_fd, ring.peer_fd)
    if not is_locked(ring.role_fd, 2 * <uint64_t>ring.core_id + role) or (ring.peer_fd >= 0 and has_ended(ring.peer_fd)):
        # Another observer may have been first, and so may a successor: its claim is open.
        lost = replace_u32(claim_word, claim, claim | GONE) or load_acquire_u32(claim_word) & GONE
    store_release_u32(&ring.peer_busy, 0)
    return lost


cdef bint ring_consumer_lost(Ring* ring) noexcept nogil:
    cdef RingHeader* header = ring.header
    return _is_lost(
        ring, &header.consumer_claim, &header.consumer_pid, &header.consumer_pid_namespace, CONSUMER_ROLE
    )


cdef bint ring_producer_lost(Ring* ring) noexcept nogil:
    cdef RingHeader* header = ring.header
    return _is_lost(
        ring, &header.producer_claim, &header.producer_pid, &header.producer_pid_namespace, PRODUCER_ROLE
    )


cdef bint ring_producer_gone(Ring* ring) noexcept nogil:
    """Whether the producer has gone and nothing of it is left: the claim first, then the ring once more.

    In the other order an event published between the two looks would be lost. Pairs with ring_close_producer.
    """
    return (
        load_acquire_u32(&ring.header.producer_claim) & GONE
        and load_acquire(&ring.header.published) == ring.local.consumer.taken
    )


cdef inline bint _is_due(Ring* ring) noexcept nogil:
    return (
        load_acquire(&ring.header.published) != ring.local.consumer.taken
        or load_acquire_u32(&ring.header.producer_claim) & GONE
        or load_acquire_u32(&ring.header.consumer_claim) & GONE
    )


cdef inline void _fence_both(Ring* ring, uint32_t* word) noexcept nogil:
    """Every thread of the other end's process passes a fence, or is told by `word` to; and so does this one."""
    if ring.fenced == 0:
        if membarrier_global() if ring.shared else membarrier():
            return
        # Refused from now on, by a filter that this process has put on since.
        store_relaxed_u32(&ring.fenced, 1)
        fetch_or_u32(word, WAKER_FENCES)
    fence()


cdef inline bint _announce(Ring* ring, uint32_t how) noexcept nogil:
    """Says that the consumer is about to sleep; whether it must not, since something came meanwhile."""
    fetch_or_u32(&ring.header.waiting, how)
    # What the producer published before is seen by the next line, and what it publishes after sees `waiting`. Pairs with
    # ring_notify.
    _fence_both(ring, &ring.header.waiting)
    return _is_due(ring)


cdef inline bint _spin(Ring* ring, int64_t spin_ns) noexcept nogil:
    cdef int64_t until
    cdef int i
    if spin_ns <= 0:
        return False
    until = monotonic_ns() + spin_ns
    while True:
        if _is_due(ring):
            return True
        # Not at every turn: each look takes the producer's line away from it.
        for i in range(PAUSES):
            pause()
        if monotonic_ns() >= until:
            return False


cdef WaitResult ring_wait(Ring* ring, int64_t timeout_ns, int64_t spin_ns) noexcept nogil:
    """Sleeps until there is something to take, or an end has gone; a negative timeout is no limit.

    It looks for `spin_ns` first: a wake through the kernel takes tens of microseconds. One thread at a time. A producer
    that dies wakes nobody, so on a shared ring no sleep is longer than the time between two looks for it.
    """
    cdef ConsumerSide* side = &ring.local.consumer
    cdef int64_t deadline = -1, left = -1, nap
    cdef WaitResult result = WAIT_READY
    cdef uint32_t word
    cdef int rc
    if timeout_ns >= 0:
        deadline = monotonic_ns() + timeout_ns
    if _spin(ring, spin_ns if timeout_ns < 0 else min(spin_ns, timeout_ns)):
        return WAIT_READY
    while True:
        if ring.shared and coarse_ns() - side.peer_looked_ns >= LIVENESS_NS:
            side.peer_looked_ns = coarse_ns()
            ring_producer_lost(ring)
        if _announce(ring, WAITING_THREAD):
            break
        if deadline >= 0:
            left = deadline - monotonic_ns()
            if left <= 0:
                result = WAIT_TIMEOUT
                break
        nap = left
        if ring.shared and (nap < 0 or nap > LONGEST_NAP_NS):
            nap = LONGEST_NAP_NS
        # An asynchronous waiter may have a bit of its own in it, which is taken with this one.
        word = load_relaxed_u32(&ring.header.waiting)
        rc = futex_wait(&ring.header.waiting, word, nap) if word & WAITING_THREAD else 0
        fetch_and_u32(&ring.header.waiting, ~<uint32_t>WAITING_THREAD)
        if _is_due(ring):
            return WAIT_READY
        if rc == EINTR:
            return WAIT_INTERRUPTED
        if rc == ETIMEDOUT and nap == left:
            return WAIT_TIMEOUT
    fetch_and_u32(&ring.header.waiting, ~<uint32_t>WAITING_THREAD)
    return result


cdef inline bint _is_room(Ring* ring, uint64_t slots, uint64_t payload) noexcept nogil:
    """Whether a wait for room is over: there is some, an end has gone, or the block is no ring any more."""
    return (
        ring_make_room(ring, slots, payload)
        or load_acquire_u32(&ring.header.consumer_claim) & GONE
        or load_acquire_u32(&ring.header.producer_claim) & GONE
        or ring.local.producer.corrupt != SOUND
    )


cdef inline bint _announce_room(Ring* ring, uint64_t slots, uint64_t payload) noexcept nogil:
    """Says that the producer is about to sleep, and until when; whether it must not, since room came meanwhile.

    Where a span of `payload` bytes fits depends on how far the arena is given back, or on all being given back.
    """
    cdef RingHeader* header = ring.header
    cdef ProducerSide* side = &ring.local.producer
    cdef uint64_t tail = side.arena_head + payload - ring.arena_bytes
    if side.arena_head - side.arena_lap + payload > ring.arena_bytes:
        # It starts the next lap, of which the consumer has to have left the beginning of this one.
        tail = side.arena_lap + payload
    store_relaxed(&header.room_released, side.published + slots - ring.capacity)
    store_relaxed(&header.room_tail, tail)
    # Publishes the two; pairs with the acquire in ring_wake_producer.
    fetch_or_u32(&header.room_waiting, WAITING_THREAD)
    # What the consumer gave back before is seen by the next line, and what it gives back after sees `room_waiting`. Pairs
    # with ring_give_back.
    _fence_both(ring, &header.room_waiting)
    return _is_room(ring, slots, payload)


cdef inline bint _spin_room(Ring* ring, uint64_t slots, uint64_t payload, int64_t spin_ns) noexcept nogil:
    cdef int64_t until
    cdef int i
    if spin_ns <= 0:
        return False
    until = monotonic_ns() + spin_ns
    while True:
        if _is_room(ring, slots, payload):
            return True
        for i in range(PAUSES):
            pause()
        if monotonic_ns() >= until:
            return False


cdef WaitResult ring_wait_room(
    Ring* ring, uint64_t slots, uint64_t payload, uint64_t gather, int64_t timeout_ns, int64_t spin_ns
) noexcept nogil:
    """As ring_wait, on the producer's side. A consumer that dies wakes nobody either."""
    cdef ProducerSide* side = &ring.local.producer
    # Where payload is what it lacks, that is to gather, too.
    cdef uint64_t piece = min(payload + (ring.arena_bytes >> 3), ring.arena_bytes) if gather > slots else payload
    cdef int64_t deadline = -1, left = -1, now, hurry, nap
    cdef WaitResult result = WAIT_READY
    cdef uint32_t word
    cdef int rc
    if timeout_ns >= 0:
        deadline = monotonic_ns() + timeout_ns
    if _spin_room(ring, slots, payload, spin_ns if timeout_ns < 0 else min(spin_ns, timeout_ns)):
        return WAIT_READY
    hurry = monotonic_ns() + GATHER_NS
    while True:
        if ring.shared and coarse_ns() - side.peer_looked_ns >= LIVENESS_NS:
            side.peer_looked_ns = coarse_ns()
            ring_consumer_lost(ring)
        now = monotonic_ns()
        if deadline >= 0:
            left = max(deadline - now, <int64_t>0)
        if now >= hurry or left == 0 or gather < slots:
            gather, piece = slots, payload
        if _announce_room(ring, gather, piece):
            break
        if left == 0:
            result = WAIT_TIMEOUT
            break
        nap = left
        if gather > slots and (nap < 0 or nap > hurry - now):
            nap = hurry - now
        if ring.shared and (nap < 0 or nap > LONGEST_NAP_NS):
            nap = LONGEST_NAP_NS
        word = load_relaxed_u32(&ring.header.room_waiting)
        rc = futex_wait(&ring.header.room_waiting, word, nap) if word & WAITING_THREAD else 0
        fetch_and_u32(&ring.header.room_waiting, ~<uint32_t>WAITING_THREAD)
        if _is_room(ring, gather, piece):
            return WAIT_READY
        if rc == EINTR:
            return WAIT_INTERRUPTED
    fetch_and_u32(&ring.header.room_waiting, ~<uint32_t>WAITING_THREAD)
    return result


cdef void ring_wake_producer(Ring* ring) noexcept nogil:
    """Wakes the producer that waits for room, if what it waits for is there."""
    cdef RingHeader* header = ring.header
    cdef uint64_t released = ring.local.consumer.released
    if load_relaxed_u32(&header.room_waiting) & WAKER_FENCES:
        fence()
    # What it waits for was written before it said so; pairs with _announce_room. It publishes nothing meanwhile.
    if load_acquire_u32(&header.room_waiting) & WAITING_THREAD == 0 or _is_after(load_relaxed(&header.room_released), released):
        return
    if not _is_after(load_relaxed(&header.room_tail), load_relaxed(&header.arena_released)) or (
        load_acquire(&header.published) == released
    ):
        _end_room_wait(ring)


cdef inline void _end_room_wait(Ring* ring) noexcept nogil:
    if fetch_and_u32(&ring.header.room_waiting, ~<uint32_t>WAITING_THREAD) & WAITING_THREAD:
        futex_wake(&ring.header.room_waiting)


cdef bint ring_arm(Ring* ring) noexcept nogil:
    """Asks for a signal on `watch_fd` at the next event; whether there is something already.

    On a shared ring also after as long as ring_wait naps: the producer may die, or be stopped, between two of its steps,
    or have no way to signal.
    """
    # The descriptor is to tell of the death of whoever holds the producer now.
    ring_producer_lost(ring)
    if ring.wake_fd >= 0:
        clear_signal(ring.wake_fd)
    if ring.timer_fd >= 0:
        set_timer(ring.timer_fd, LONGEST_NAP_NS)
    return _announce(ring, WAITING_FD)


cdef void ring_disarm(Ring* ring) noexcept nogil:
    fetch_and_u32(&ring.header.waiting, ~<uint32_t>WAITING_FD)
    if ring.wake_fd >= 0:
        clear_signal(ring.wake_fd)
    if ring.timer_fd >= 0:
        set_timer(ring.timer_fd, 0)


cdef void ring_signal(Ring* ring) noexcept nogil:
    """What the consumer asked for, from itself: something is there."""
    fetch_and_u32(&ring.header.waiting, ~<uint32_t>WAITING_FD)
    if ring.timer_fd >= 0:
        set_timer(ring.timer_fd, 1)
    elif ring.wake_fd >= 0:
        signal_fd(ring.wake_fd)


cdef void ring_wake(Ring* ring) noexcept nogil:
    """Wakes whoever waits. Taking the bits is what makes one wake a sleep, however many events follow.

    A bit is taken by whoever can signal what it asks for: without a FIFO the waiter's timer has it look again.
    """
    cdef uint32_t* word = &ring.header.waiting
    cdef uint32_t taken
    if load_relaxed_u32(word) & WAKER_FENCES:
        fence()
    # Acquires `wake_fd`, which a waiter of this process opens before it asks; pairs with _announce.
    taken = load_acquire_u32(word) & (WAITING_THREAD | WAITING_FD)
    if ring.wake_fd < 0:
        taken &= WAITING_THREAD
    if taken == 0:
        return
    taken &= fetch_and_u32(word, ~taken)
    if taken & WAITING_THREAD:
        futex_wake(word)
    if taken & WAITING_FD:
        signal_fd(ring.wake_fd)


cdef void ring_close_producer(Ring* ring) noexcept nogil:
    # Publishes that nothing follows; pairs with the acquire in ring_producer_gone.
    fetch_or_u32(&ring.header.producer_claim, GONE)
    fence()
    ring_wake(ring)
    # A thread of its own that waits for room.
    _end_room_wait(ring)


cdef void ring_close_consumer(Ring* ring) noexcept nogil:
    fetch_or_u32(&ring.header.consumer_claim, GONE)
    fence()
    ring_wake(ring)
    _end_room_wait(ring)


# ---- succession -----------------------------------------------------------------------------------------------------

cdef struct Outstanding:
    uint64_t age   # how many publications ago
    uint32_t row


cdef int _older_first(const void* a, const void* b) noexcept nogil:
    cdef uint64_t one = (<const Outstanding*>a).age
    cdef uint64_t other = (<const Outstanding*>b).age
    return (one < other) - (one > other)


cdef void _adopt_producer(Ring* ring) noexcept nogil:
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
    side.seen_tail = floor if _is_after(floor, tail) else tail
    if side.published - released > ring.capacity:
        ring_producer_corrupt(ring, CORRUPT_RELEASED, released)
    elif side.arena_head - side.arena_lap > ring.arena_bytes:
        ring_producer_corrupt(ring, CORRUPT_HEAD, side.arena_head)
    elif side.published != released and side.arena_head - side.seen_tail > ring.arena_bytes:
        ring_producer_corrupt(ring, CORRUPT_TAIL, side.seen_tail)
    if side.corrupt != SOUND:
        return
    if side.published == released:
        # Nothing is outstanding, whatever the tail says: it may lag.
        side.seen_tail = side.arena_head
        store_relaxed(&header.arena_floor, side.arena_head)
    side.seen_released = released
    side.pressure = min(load_relaxed_u32(&header.pressure), <uint32_t>PRESSURE_SUSPENDED)
    if load_relaxed_u32(&header.intended) != 0:
        ring_attempted(ring, load_relaxed(&header.intent))
    ring_observe(ring)


cdef bint _adopt_consumer(Ring* ring) noexcept nogil:
    """Takes over what was published and not given back, in order of position; False when there is no memory for that.

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
        side.taken = side.released = side.seen_published = released
        store_release(&header.taken, released)
    free(is_free)
    free(rows)
    return True


# ---- the block ------------------------------------------------------------------------------------------------------

cdef inline uint64_t _align(uint64_t value, uint64_t to) noexcept nogil:
    return (value + to - 1) // to * to


def block_bytes(capacity: int, arena_bytes: int) -> int:
    """Bytes of a block for `capacity` events and `arena_bytes` of payload. Neither is checked here."""
    rows_at = (_index_at() + 4 * capacity + PAGE - 1) // PAGE * PAGE
    return rows_at + sizeof(EventRow) * capacity + (arena_bytes + PAGE - 1) // PAGE * PAGE


cdef inline uint64_t _index_at() noexcept nogil:
    return _align(sizeof(RingHeader), PAGE)


cdef inline uint64_t _rows_at(uint64_t capacity) noexcept nogil:
    return _align(_index_at() + 4 * capacity, PAGE)


cdef inline uint64_t _arena_at(uint64_t capacity) noexcept nogil:
    return _rows_at(capacity) + sizeof(EventRow) * capacity


cdef int _write_geometry(Ring* ring, uint64_t size) except -1:
    cdef RingHeader* header = ring.header
    header.index_at = _index_at()
    header.rows_at = _rows_at(ring.capacity)
    header.arena_at = _arena_at(ring.capacity)
    header.block_bytes = size
    header.capacity = ring.capacity
    header.arena_bytes = ring.arena_bytes
    header.thresholds[0] = <uint32_t>ring.throttle_enter
    header.thresholds[1] = <uint32_t>ring.throttle_exit
    header.thresholds[2] = <uint32_t>ring.suspend_enter
    header.thresholds[3] = <uint32_t>ring.suspend_exit
    header.core_id = ring.core_id
    header.version = LAYOUT_VERSION
    header.magic = MAGIC
    return 0


cdef int _check_geometry(Ring* ring, uint64_t size) except -1:
    cdef RingHeader* header = ring.header
    if header.magic != MAGIC:
        raise LayoutError(f"core {ring.core_id}: magic {header.magic:#x}: is no ring, which has {MAGIC:#x}")
    if header.version != LAYOUT_VERSION:
        raise LayoutError(
            f"core {ring.core_id}: layout version {header.version}: this build reads {LAYOUT_VERSION}; use one version"
        )
    for name, is_there, expected in (
        ("core_id", header.core_id, ring.core_id),
        ("capacity", header.capacity, ring.capacity),
        ("arena_bytes", header.arena_bytes, ring.arena_bytes),
        ("block_bytes", header.block_bytes, size),
        ("index_at", header.index_at, _index_at()),
        ("rows_at", header.rows_at, _rows_at(ring.capacity)),
        ("arena_at", header.arena_at, _arena_at(ring.capacity)),
        ("throttle_enter", header.thresholds[0], ring.throttle_enter),
        ("throttle_exit", header.thresholds[1], ring.throttle_exit),
        ("suspend_enter", header.thresholds[2], ring.suspend_enter),
        ("suspend_exit", header.thresholds[3], ring.suspend_exit),
    ):
        if is_there != expected:
            raise LayoutError(f"core {ring.core_id}: {name} {is_there}: the bus was made with {expected}")
    return 0


cdef void _claim(uint32_t* claim_word) noexcept:
    """Opens the next claim. Under its lock nobody else writes this but an observer who finds the last holder dead."""
    # Publishes the pid, too; pairs with the acquire in _is_lost.
    store_release_u32(claim_word, ((load_relaxed_u32(claim_word) >> 1) + 1) << 1)


cdef object _holder(const uint32_t* pid, const uint64_t* namespace):
    """The pid that a claim says, None before it has; and whether that is the number of another process here."""
    holder = load_relaxed_u32(pid) or None
    return holder, holder is not None and load_relaxed(namespace) not in (0, pid_namespace())


cdef dict _CORRUPTIONS = {
    CORRUPT_PUBLISHED: "published position {}: leaves more events than there are slots",
    CORRUPT_RELEASED: "released position {}: is not within a ring's length of what was published",
    CORRUPT_TAIL: "arena tail {}: is not within the arena's length of its head",
    CORRUPT_HEAD: "arena head {}: lies outside its lap",
    CORRUPT_INDEX: "row number {} in the index: there is no such row",
    CORRUPT_LEDGER: "row {}: stands at two positions, or at one that no event has",
    CORRUPT_ROW: "row of position {}, or one behind it: is no event; its fields lie outside the arena, say",
}


cdef class EventRing:
    """One bounded single-producer single-consumer ring, laid out in a block of memory that it is given.

    Python code uses the two ends that ``create_event_bus`` hands out; this class is what they share, and what Cython
    code cimports to push and take without the GIL (``_ring.pxd``).

    Parameters
    ----------
    block : writable buffer, zeroed, of ``block_bytes(capacity, arena_bytes)`` bytes, aligned to a page
    core_id : int
    capacity : int, a power of two up to 2**32
    arena_bytes : int, 1 to 2**32 - 1
    thresholds : (int, int, int, int)
        Enter and leave ``THROTTLED``, enter and leave ``SUSPENDED``, in percent.
    attach : bool, default False
        The block is laid out already, and stays as it is: check that it was laid out so.

    Raises
    ------
    LayoutError
        The block to attach to says something else of itself: which.

    Thread safety
    -------------
    Properties may be read from any thread: each is a snapshot. One thread at a time may push, one may take.
    """

    def __cinit__(
        self, block: object, *, core_id: int, capacity: int, arena_bytes: int, thresholds: tuple, attach: bool = False
    ):
        cdef Ring* ring = &self.ring
        cdef uint64_t i
        cdef int wrong
        ring.wake_fd = ring.watch_fd = ring.timer_fd = ring.role_fd = ring.peer_fd = -1
        if capacity < 1 or capacity > 2**32 or capacity & (capacity - 1):
            raise ValueError(f"capacity {capacity}: must be a power of two, at most {2**32}")
        if not 1 <= arena_bytes < 2**32:
            raise ValueError(f"arena_bytes {arena_bytes}: must be in 1 .. {2**32 - 1}")
        PyObject_GetBuffer(block, &self._block, PyBUF_WRITABLE)
        self._has_block = True
        if self._block.len < block_bytes(capacity, arena_bytes):
            raise ValueError(f"block of {self._block.len} bytes: {block_bytes(capacity, arena_bytes)} are needed")
        if <size_t>self._block.buf % LINE != 0:
            raise ValueError(f"block at {<size_t>self._block.buf:#x}: must be aligned to {LINE} bytes")
        ring.throttle_enter, ring.throttle_exit, ring.suspend_enter, ring.suspend_exit = thresholds
        ring.core_id = core_id
        ring.capacity = capacity
        ring.mask = ring.capacity - 1
        ring.arena_bytes = arena_bytes
        ring.fenced = 0 if has_membarrier else 1
        ring.header = <RingHeader*>self._block.buf
        if not attach:
            _write_geometry(ring, self._block.len)
        else:
            _check_geometry(ring, self._block.len)
        # From what was asked for, and not from the block: what is in the block may change at any time.
        ring.index = <uint32_t*>(<uint8_t*>self._block.buf + _index_at())
        ring.rows = <EventRow*>(<uint8_t*>self._block.buf + _rows_at(ring.capacity))
        ring.arena = <uint8_t*>self._block.buf + _arena_at(ring.capacity)
        ring.local = <LocalSide*>map_wiped_on_fork(PAGE)
        if ring.local == NULL:
            wrong = errno
            if wrong != ENOMEM:
                raise OSError(
                    wrong,
                    f"madvise(MADV_WIPEONFORK): {os.strerror(wrong)}: it needs Linux 4.14 or newer, and a sandbox that "
                    "allows it; without it a forked child would take its parent's ends for its own",
                )
            raise MemoryError("no memory for the local side of a ring")
        ring.local.alive = 1
        if attach:
            ring.shared = 1
            return
        with nogil:
            for i in range(ring.capacity):
                ring.index[i] = <uint32_t>i
            # Touch every page now: the first touch of memory costs more than copying it.
            memset(ring.rows, 0, sizeof(EventRow) * ring.capacity)
            memset(ring.arena, 0, ring.arena_bytes)
            # No byte may be written before ring_make_room has looked: limits of zero send the first emit there.
            ring_observe(ring)

    def __dealloc__(self):
        if self.ring.local == NULL and not self._has_block:
            return  # Cython refused an argument before __cinit__ began: every descriptor is 0, and not ours
        self.let_go()
        if self.ring.peer_fd >= 0:
            close_fd(self.ring.peer_fd)
        if self.ring.watch_fd >= 0 and self.ring.watch_fd != self.ring.wake_fd:
            close_fd(self.ring.watch_fd)
        if self.ring.wake_fd >= 0:
            close_fd(self.ring.wake_fd)
        if self.ring.timer_fd >= 0:
            close_fd(self.ring.timer_fd)
        if self.ring.local != NULL:
            unmap(self.ring.local, PAGE)
        if self._has_block:
            PyBuffer_Release(&self._block)

    def __reduce__(self):
        raise TypeError("a private ring lives in the memory of one process and cannot be pickled")

    def adopt_producer(self, file_fd: int, wake_path: bytes):
        """Claims the producer's end of an attached ring, and goes on where the last producer stopped.

        Parameters
        ----------
        file_fd : int
            The bus's file. It is opened anew for the claim.
        wake_path : bytes
            The FIFO that signals an asynchronous waiter; empty where there is none, since the bus was unlinked.

        Raises
        ------
        RoleTaken
            A process that lives holds the end.
        CorruptRingError
            The block cannot be gone on from.
        OSError
            No descriptor is left.
        """
        cdef Ring* ring = &self.ring
        self._take_role(file_fd, wake_path, PRODUCER_ROLE)
        _adopt_producer(ring)
        if ring.local.producer.corrupt != SOUND:
            self.let_go()
            raise self.corruption(ring.local.producer.corrupt, ring.local.producer.corrupt_value)
        # What the last holder waited for is over, and whether it could have a membarrier.
        exchange_u32(&ring.header.room_waiting, WAKER_FENCES if ring.fenced else 0)
        _claim(&ring.header.producer_claim)
        # Whoever waits looks up, and watches the new holder.
        fence()
        ring_wake(ring)

    def adopt_consumer(self, file_fd: int, wake_path: bytes):
        """The same for the consumer's end: what was published and not given back is delivered again, in order."""
        cdef Ring* ring = &self.ring
        cdef bint has_memory
        self._take_role(file_fd, wake_path, CONSUMER_ROLE)
        with nogil:
            has_memory = _adopt_consumer(ring)
        if not has_memory:
            self.let_go()
            raise MemoryError(f"no memory to go through the {ring.capacity} rows of core {ring.core_id}")
        if ring.local.consumer.corrupt != SOUND:
            self.let_go()
            raise self.corruption(ring.local.consumer.corrupt, ring.local.consumer.corrupt_value)
        exchange_u32(&ring.header.waiting, WAKER_FENCES if ring.fenced else 0)
        _claim(&ring.header.consumer_claim)

    cdef int _take_role(self, int file_fd, bytes wake_path, uint64_t role) except -1:
        cdef Ring* ring = &self.ring
        cdef RingHeader* header = ring.header
        cdef uint32_t* pid = &header.producer_pid if role == PRODUCER_ROLE else &header.consumer_pid
        cdef uint64_t* namespace = (
            &header.producer_pid_namespace if role == PRODUCER_ROLE else &header.consumer_pid_namespace
        )
        cdef int role_fd
        role_fd = take_role(file_fd, 2 * <uint64_t>ring.core_id + role)
        if role_fd == -EAGAIN:
            holder, is_foreign = _holder(pid, namespace)
            shown = "another process, which has yet to say its pid" if holder is None else f"process {holder}"
            if is_foreign:
                shown = f"process {holder} of another pid namespace, a container's say"
                holder = None
            raise RoleTaken(
                f"{'producer' if role == PRODUCER_ROLE else 'consumer'} of core {ring.core_id}: is claimed by {shown}; "
                "close it there, or wait until that process has ended",
                holder,
            )
        if role_fd < 0:
            raise OSError(-role_fd, os.strerror(-role_fd))
        ring.role_fd = role_fd
        # At once: whoever is turned away from here on is told this process, not the last.
        store_relaxed(namespace, pid_namespace())
        store_relaxed_u32(pid, <uint32_t>getpid())
        self._pid = pid
        self._pid_namespace = namespace
        ring.fenced = 0 if membarrier_register_global() else 1
        if wake_path:
            # Now, since it may be missing, and no descriptor free, when it is wanted.
            ring.wake_fd = open_fifo(wake_path)
            if ring.wake_fd < 0 and errno != ENOENT:
                wrong = errno
                self.let_go()
                raise OSError(wrong, os.strerror(wrong), os.fsdecode(wake_path))
        return 0

    cdef void let_go(self) noexcept:
        # In a forked child the descriptor was closed at the fork, and its number may be another file's.
        if self.ring.role_fd >= 0 and self.ring.local.alive:
            # Before the lock goes: after that the word is the next holder's.
            store_relaxed_u32(self._pid, 0)
            store_relaxed(self._pid_namespace, 0)
            let_go_fd(self.ring.role_fd)
        self.ring.role_fd = -1

    cdef int open_watch_fd(self) except -1:
        cdef Ring* ring = &self.ring
        cdef int watch, timer
        if ring.watch_fd >= 0:
            return ring.watch_fd
        if not ring.shared:
            ring.wake_fd = ring.watch_fd = new_eventfd()
            if ring.wake_fd < 0:
                raise OSError(errno, f"cannot make an eventfd: {os.strerror(errno)}")
            return ring.watch_fd
        watch = new_epoll()
        timer = new_timer()
        if (
            watch < 0
            or timer < 0
            or epoll_add(watch, timer) < 0
            or (ring.wake_fd >= 0 and epoll_add(watch, ring.wake_fd) < 0)
        ):
            wrong = errno
            for fd in (watch, timer):
                if fd >= 0:
                    close_fd(fd)
            raise OSError(wrong, f"cannot make a descriptor to watch: {os.strerror(wrong)}")
        # The pidfd of a producer that was looked for before joins it when it is looked for again.
        ring.peer_claim = 0
        ring.timer_fd = timer
        ring.watch_fd = watch
        return watch

    cdef int copy_watch_fd(self) except -1:
        cdef int copy = copy_fd(self.open_watch_fd())
        if copy < 0:
            raise OSError(errno, f"cannot make a descriptor to watch: {os.strerror(errno)}")
        return copy

    cdef object corruption(self, uint32_t what, uint64_t value):
        return CorruptRingError(
            f"core {self.ring.core_id}: {_CORRUPTIONS[what].format(value)}; something else has written to this block: "
            "unlink the bus, create it anew, and replay from the log"
        )

    @property
    def claims(self) -> tuple[int, int]:
        """How often the producer's end and the consumer's were claimed. Always 0 on a private ring."""
        return (
            load_acquire_u32(&self.ring.header.producer_claim) >> 1,
            load_acquire_u32(&self.ring.header.consumer_claim) >> 1,
        )

    @property
    def gone(self) -> tuple[bool, bool]:
        """Whether the latest holder of the producer's end, and of the consumer's, has closed it or was found dead."""
        return (
            load_acquire_u32(&self.ring.header.producer_claim) & GONE != 0,
            load_acquire_u32(&self.ring.header.consumer_claim) & GONE != 0,
        )

    def check_positions(self):
        """Looks whether the two ends' positions can be those of a ring, as a snapshot of moving numbers allows.

        Raises
        ------
        CorruptRingError
            They cannot.
        """
        cdef RingHeader* header = self.ring.header
        cdef uint64_t released, published
        for _ in range(100):
            released = load_acquire(&header.released)
            published = load_acquire(&header.published)
            # Only where nothing was released meanwhile do the two belong together.
            if load_acquire(&header.released) == released:
                if published - released > self.ring.capacity:
                    raise self.corruption(CORRUPT_PUBLISHED, published)
                return

    def holders(self, file_fd: int) -> tuple[tuple[int | None, bool], tuple[int | None, bool]]:
        """Who holds the two ends, by the locks of the bus's file: pid, and whether it is of another pid namespace.

        (None, False) for an end that no process holds.
        """
        cdef uint64_t role = 2 * <uint64_t>self.ring.core_id
        cdef RingHeader* header = self.ring.header
        producer = consumer = (None, False)
        if is_locked(file_fd, role + PRODUCER_ROLE):
            producer = _holder(&header.producer_pid, &header.producer_pid_namespace)
        if is_locked(file_fd, role + CONSUMER_ROLE):
            consumer = _holder(&header.consumer_pid, &header.consumer_pid_namespace)
        return producer, consumer

    @property
    def core_id(self) -> int:
        """The Data Plane core whose events this ring carries."""
        return self.ring.header.core_id

    @property
    def capacity(self) -> int:
        """Slots, each usable: a power of two."""
        return self.ring.capacity

    @property
    def arena_bytes(self) -> int:
        """Bytes of payload that the ring may hold."""
        return self.ring.arena_bytes

    @property
    def slots_in_use(self) -> int:
        """Events published and not yet given back, leased ones included: a snapshot."""
        cdef uint64_t slots, payload
        ring_occupancy(&self.ring, &slots, &payload)
        return slots

    @property
    def bytes_in_use(self) -> int:
        """Bytes of the arena that cannot be written yet: a snapshot."""
        cdef uint64_t slots, payload
        ring_occupancy(&self.ring, &slots, &payload)
        return payload

    @property
    def utilization(self) -> int:
        """Whole percent in use, 0 to 100, the fuller of slots and arena: a snapshot."""
        cdef uint64_t slots, payload
        ring_occupancy(&self.ring, &slots, &payload)
        return ring_percent(&self.ring, slots, payload)

    @property
    def pressure_state(self) -> PressureState:
        """The state that follows the producer's last one at what is in use now: a snapshot, which stores nothing."""
        cdef uint64_t slots, payload
        ring_occupancy(&self.ring, &slots, &payload)
        return _STATES[
            ring_next_pressure(
                &self.ring,
                load_acquire_u32(&self.ring.header.pressure),
                ring_percent(&self.ring, slots, payload),
            )
        ]

    @property
    def emitted_sequence(self) -> int | None:
        """The highest sequence number tried, enqueued or not; None while nothing was tried."""
        # Acquire, so that the number read next is one that was tried; pairs with ring_attempted.
        if load_acquire_u32(&self.ring.header.attempted) == 0:
            return None
        return load_acquire(&self.ring.header.emitted_sequence)
