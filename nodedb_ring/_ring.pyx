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

Each word has one writer. What the two sides say to each other:

=====================  ===============================  ============================================
stored with release    by                               loaded with acquire, by the other side, in
=====================  ===============================  ============================================
``published``          ``ring_publish_stamped``         ``ring_available``: rows and payload are written
``released``           ``ring_give_back``               ``ring_make_room``: rows are read, indices written
``arena_released``     ``ring_give_back``               ``ring_make_room``: payload is read
``emitted_sequence``   ``ring_attempted``               ``EventRing.emitted_sequence``
``producer_closed``    ``ring_close_producer``          ``ring_producer_gone``: then ``published`` once more
``waiting``            ``ring_arm``, by its membarrier  ``ring_notify``
=====================  ===============================  ============================================

Store order, so that either side may die between any two stores: the producer stores intent, payload and row,
``arena_head``, ``published``, ``emitted_sequence``; the consumer the indices, ``released``, ``arena_released``.

The arena is a ring of bytes whose positions only grow too. An event's span never wraps: what does not fit before the
end of a lap starts the next one. Space comes back in publication order, at the oldest event still held.
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.string cimport memcpy, memset

from ._atomic cimport exchange_u32, fetch_and_u32, fetch_or_u32, load_acquire_u32, pause
from ._linux cimport (
    close_fd,
    eventfd_clear,
    eventfd_signal,
    futex_wait,
    futex_wake,
    map_wiped_on_fork,
    membarrier,
    membarrier_register,
    monotonic_ns,
    new_eventfd,
    this_thread,
    unmap,
)

__all__ = ["EventRing", "block_bytes"]

cdef extern from "errno.h" nogil:
    int EINTR
    int ETIMEDOUT

cdef enum:
    LINE = 128
    PAGE = 4096
    LAYOUT_VERSION = 1
    # Bytes of arena that the producer may use before it looks whether it can start again at the hot beginning.
    ARENA_WINDOW = 64 * 1024
    # Rows published together by ring_push_rows: enough to pay for the line that moves, few enough to stay in cache.
    PUBLISH_ROWS = 256
    # Under pressure the producer looks at the consumer's line once in capacity / 2**LOOKS events.
    LOOKS = 10

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


cdef inline void _see_tail(Ring* ring) noexcept nogil:
    # Acquires that the payload below is read; pairs with the release in ring_give_back.
    cdef uint64_t tail = load_acquire(&ring.header.arena_released)
    # It may still lag behind a start of the arena with nothing outstanding, which released everything before.
    if _is_after(tail, ring.local.producer.seen_tail):
        ring.local.producer.seen_tail = tail


cdef inline void _start_lap(Ring* ring) noexcept nogil:
    # In this order a producer that dies between the two leaves a lap that is used up, which is no harm.
    cdef uint64_t lap = ring.header.arena_lap + ring.arena_bytes
    store_release(&ring.header.arena_head, lap)
    store_release(&ring.header.arena_lap, lap)


cdef bint ring_make_room(Ring* ring, uint64_t slots, uint64_t payload) noexcept nogil:
    """Looks at what the consumer has released; whether `slots` rows and a span of `payload` bytes are free at the head.

    The only place where the producer moves on to the next lap of the arena.
    """
    cdef RingHeader* header = ring.header
    cdef ProducerSide* side = &ring.local.producer
    cdef uint64_t published = header.published
    cdef uint64_t offset, limit
    # Acquires rows that are read and indices that are written; pairs with the release in ring_give_back.
    side.seen_released = load_acquire(&header.released)
    if header.pressure != PRESSURE_NORMAL:
        # The estimate that `watch_slots` goes with has moved: the next publication measures.
        side.watch_slots = 0
    if side.seen_released == published:
        # Nothing is outstanding: the bytes at the beginning are in cache, those ahead are not.
        if header.arena_head != header.arena_lap:
            _start_lap(ring)
        store_relaxed(&header.arena_floor, header.arena_head)
        side.seen_tail = header.arena_head
        offset = 0
        limit = ring.arena_bytes
    else:
        if ring.capacity - (published - side.seen_released) < slots:
            return False
        _see_tail(ring)
        offset = header.arena_head - header.arena_lap
        limit = ring.arena_bytes
        if _is_after(header.arena_lap, side.seen_tail):
            limit -= header.arena_lap - side.seen_tail
            if offset + payload > limit:
                return False
        elif offset + payload > limit:
            limit = side.seen_tail - header.arena_lap
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
    cdef uint32_t state = header.pressure
    cdef uint32_t after
    side.seen_released = load_acquire(&header.released)
    slots = header.published - side.seen_released
    _see_tail(ring)
    payload = header.arena_head - side.seen_tail if slots != 0 else 0
    if slots > header.slots_high_water:
        store_relaxed(&header.slots_high_water, slots)
    if payload > header.bytes_high_water:
        store_relaxed(&header.bytes_high_water, payload)
    after = ring_next_pressure(ring, state, ring_percent(ring, slots, payload))
    if after != state:
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
    cdef uint64_t slots_in_use = header.published - side.seen_released
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
    else:
        if header.dropped_disconnected == 0:
            side.noted |= NOTED_DISCONNECT
        store_relaxed(&header.dropped_disconnected, header.dropped_disconnected + count)
    ring_attempted(ring, last)
    if reason != PUSH_FULL or header.pressure != PRESSURE_SUSPENDED or slots_in_use != ring.capacity:
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


cdef uint64_t ring_push_rows(
    Ring* ring, const EventRow* rows, uint64_t count, const uint8_t* payload
) noexcept nogil:
    """Emits rows in order; returns how many went in. The rest, from the first without room on, is dropped and counted."""
    cdef RingHeader* header = ring.header
    cdef ProducerSide* side = &ring.local.producer
    cdef PushResult why = PUSH_DONE
    cdef const EventRow* row
    cdef EventRow* first
    cdef EventRow* to
    cdef uint64_t done = 0, highest = 0, head, offset, need, i
    cdef uint32_t run
    cdef bint packed
    while done < count:
        if unlikely(load_relaxed_u32(&header.consumer_closed) != 0):
            why = PUSH_DISCONNECTED
            break
        if done == 0:
            # With nothing outstanding, a batch starts where the arena is hot.
            ring_make_room(ring, 1, 0)
        run = ring_reserve(ring, <uint32_t>min(count - done, <uint64_t>PUBLISH_ROWS), &first)
        head = header.arena_head
        i = 0
        while i < run:
            row = rows + (done + i)
            to = first + i
            packed = row_is_packed(row, &need)
            offset = head - header.arena_lap
            if unlikely(offset + need > side.arena_limit):
                if i != 0 or not ring_make_room(ring, 1, need):
                    break
                head = header.arena_head
                offset = head - header.arena_lap
            memcpy(to, row, sizeof(EventRow))
            if packed:
                shift_fields(to, <uint32_t>offset - row.field[0].offset)
                memcpy(ring.arena + offset, payload + row.field[0].offset, need)
            else:
                row_pack(to, row, ring.arena, offset, payload)
            ring_stamp(to, header.published + i, head, offset, need)
            head += need
            highest = max(highest, row.sequence)
            i += 1
        if i == 0:
            why = PUSH_FULL
            break
        ring_intend(ring, highest)
        ring_publish_stamped(ring, i, head, highest)
        done += i
    if done < count:
        ring_drop_rows(ring, rows, done, count, why)
    return done


cdef uint64_t ring_push_packed(
    Ring* ring, const EventRow* rows, uint64_t count, const uint8_t* payload, uint64_t end
) noexcept nogil:
    """As ring_push_rows, for rows whose fields lie back to back, row after row, up to `end`: two copies a publication."""
    cdef RingHeader* header = ring.header
    cdef ProducerSide* side = &ring.local.producer
    cdef PushResult why = PUSH_DONE
    cdef EventRow* first
    cdef uint64_t done = 0, highest = 0, head, start, stop, at, behind, i
    cdef uint32_t run, fit, more, shift
    while done < count:
        if unlikely(load_relaxed_u32(&header.consumer_closed) != 0):
            why = PUSH_DISCONNECTED
            break
        if done == 0:
            ring_make_room(ring, 1, 0)
        run = ring_reserve(ring, <uint32_t>min(count - done, <uint64_t>PUBLISH_ROWS), &first)
        if run == 0:
            why = PUSH_FULL
            break
        fit = run
        start = rows[done].field[0].offset
        stop = end if done + fit == count else rows[done + fit].field[0].offset
        if header.arena_head - header.arena_lap + (stop - start) > side.arena_limit:
            stop = end if done + 1 == count else rows[done + 1].field[0].offset
            if not ring_make_room(ring, 1, stop - start):
                why = PUSH_FULL
                break
            # One event fits. Double the step while more do, then halve it: the most that fit, in few looks.
            fit = 1
            more = 1
            while more != 0:
                at = end if done + fit + more >= count else rows[done + fit + more].field[0].offset
                if fit + more <= run and header.arena_head - header.arena_lap + (at - start) <= side.arena_limit:
                    fit += more
                    stop = at
                    more *= 2
                else:
                    more //= 2
        head = header.arena_head
        memcpy(first, rows + done, fit * sizeof(EventRow))
        memcpy(ring.arena + (head - header.arena_lap), payload + start, stop - start)
        shift = <uint32_t>(head - header.arena_lap) - <uint32_t>start
        at = start
        for i in range(fit):
            highest = max(highest, first[i].sequence)
            # A row ends where the next one begins, which is not shifted yet.
            behind = stop if i + 1 == fit else first[i + 1].field[0].offset
            if shift != 0:
                shift_fields(first + i, shift)
            ring_stamp(first + i, header.published + i, head + (at - start), at + shift, behind - at)
            at = behind
        ring_intend(ring, highest)
        ring_publish_stamped(ring, fit, head + (stop - start), highest)
        done += fit
    if done < count:
        ring_drop_rows(ring, rows, done, count, why)
    return done


cdef uint64_t ring_measure(Ring* ring, uint64_t most, uint64_t* payload_bytes) noexcept nogil:
    """How many events wait, at most `most`, and how many bytes of arena they stretch over, a skipped end included."""
    cdef uint64_t taken = ring.header.taken
    cdef uint64_t count = min(ring_available(ring, most), most)
    cdef EventRow* first
    cdef EventRow* last
    payload_bytes[0] = 0
    if count != 0:
        first = ring.rows + ring.index[taken & ring.mask]
        last = ring.rows + ring.index[(taken + count - 1) & ring.mask]
        payload_bytes[0] = last.arena_start + last.span_length - first.arena_start
    return count


cdef uint64_t ring_copy_out(Ring* ring, uint64_t count, EventRow* rows, uint8_t* payload) noexcept nogil:
    """Copies `count` events that wait, and gives their rows back; returns the bytes of payload written.

    Rows are copied a run at a time and payload a lap at a time: while releases come in order, two copies of each.
    """
    cdef RingHeader* header = ring.header
    cdef uint64_t taken = header.taken
    cdef uint64_t copied = 0, written = 0, slot, start, end, lap, i
    cdef uint64_t last = count
    cdef EventRow* row
    cdef uint32_t run, shift
    while copied < count:
        slot = (taken + copied) & ring.mask
        run = ring_run(ring.index + slot, <uint32_t>min(count - copied, ring.capacity - slot))
        memcpy(rows + copied, ring.rows + ring.index[slot], run * sizeof(EventRow))
        copied += run
    copied = 0
    while copied < count:
        # The rows from `copied` up to `last` have their spans in one lap of the arena.
        row = rows + copied
        start = row.arena_start
        lap = row_lap(row)
        last = count
        if row_lap(rows + (count - 1)) != lap:
            last = copied + 1
            while row_lap(rows + last) == lap:
                last += 1
        end = rows[last - 1].arena_start + rows[last - 1].span_length
        shift = <uint32_t>written - row.span_offset
        if end != start:
            memcpy(payload + written, ring.arena + row.span_offset, end - start)
        if shift != 0:
            for i in range(copied, last):
                shift_fields(rows + i, shift)
        written += end - start
        copied = last
    # All is read. Give the rows back a run at a time, in order.
    copied = 0
    while copied < count:
        slot = (taken + copied) & ring.mask
        run = ring_run(ring.index + slot, <uint32_t>min(count - copied, ring.capacity - slot))
        ring_advance(ring, run)
        copied += run
    return written


# ---- sleeping, closing ----------------------------------------------------------------------------------------------

cdef bint ring_producer_gone(Ring* ring) noexcept nogil:
    """Whether the producer has closed and nothing of it is left: the flag first, then the ring once more.

    In the other order an event published between the two looks would be lost. Pairs with ring_close_producer.
    """
    return (
        load_acquire_u32(&ring.header.producer_closed) != 0
        and load_acquire(&ring.header.published) == load_relaxed(&ring.header.taken)
    )


cdef inline bint _is_due(Ring* ring) noexcept nogil:
    return (
        load_acquire(&ring.header.published) != ring.header.taken
        or load_acquire_u32(&ring.header.producer_closed) != 0
        or load_acquire_u32(&ring.header.consumer_closed) != 0
    )


cdef inline bint _announce(Ring* ring, uint32_t how) noexcept nogil:
    """Says that the consumer is about to sleep; whether it must not, since something came meanwhile."""
    fetch_or_u32(&ring.header.waiting, how)
    if has_membarrier:
        # Every thread of the process passes a fence: what it published before is seen by the next line, and what it
        # publishes after sees `waiting`. Pairs with ring_notify.
        membarrier()
    else:
        fence()
    return _is_due(ring)


cdef WaitResult ring_wait(Ring* ring, int64_t timeout_ns, uint32_t spins) noexcept nogil:
    """Sleeps until there is something to take, or an end has closed; a negative timeout is no limit.

    It looks `spins` times first: a wake through the kernel takes tens of microseconds. One thread at a time.
    """
    cdef int64_t deadline = -1, left = -1
    cdef uint32_t i
    cdef int rc
    for i in range(spins):
        if _is_due(ring):
            return WAIT_READY
        pause()
    if timeout_ns >= 0:
        deadline = monotonic_ns() + timeout_ns
    while True:
        if _announce(ring, WAITING_THREAD):
            fetch_and_u32(&ring.header.waiting, ~<uint32_t>WAITING_THREAD)
            return WAIT_READY
        if deadline >= 0:
            left = deadline - monotonic_ns()
            if left <= 0:
                fetch_and_u32(&ring.header.waiting, ~<uint32_t>WAITING_THREAD)
                return WAIT_TIMEOUT
        rc = futex_wait(&ring.header.waiting, WAITING_THREAD, left)
        fetch_and_u32(&ring.header.waiting, ~<uint32_t>WAITING_THREAD)
        if _is_due(ring):
            return WAIT_READY
        if rc == EINTR:
            return WAIT_INTERRUPTED
        if rc == ETIMEDOUT:
            return WAIT_TIMEOUT


cdef bint ring_arm(Ring* ring) noexcept nogil:
    """Asks for a signal on `wake_fd` at the next event; whether there is something already."""
    eventfd_clear(ring.wake_fd)
    return _announce(ring, WAITING_FD)


cdef void ring_disarm(Ring* ring) noexcept nogil:
    fetch_and_u32(&ring.header.waiting, ~<uint32_t>WAITING_FD)
    eventfd_clear(ring.wake_fd)


cdef void ring_wake(Ring* ring) noexcept nogil:
    """Wakes whoever waits. Taking the bits is what makes one wake a sleep, however many events follow."""
    cdef uint32_t waiting = exchange_u32(&ring.header.waiting, 0)
    if waiting & WAITING_THREAD:
        futex_wake(&ring.header.waiting)
    if waiting & WAITING_FD:
        eventfd_signal(ring.wake_fd)


cdef void ring_close_producer(Ring* ring) noexcept nogil:
    # Publishes that nothing follows; pairs with the acquire in ring_producer_gone.
    store_release_u32(&ring.header.producer_closed, 1)
    fence()
    ring_wake(ring)


cdef void ring_close_consumer(Ring* ring) noexcept nogil:
    store_release_u32(&ring.header.consumer_closed, 1)
    fence()
    ring_wake(ring)


# ---- the block ------------------------------------------------------------------------------------------------------

cdef inline uint64_t _align(uint64_t value, uint64_t to) noexcept nogil:
    return (value + to - 1) // to * to


def block_bytes(capacity: int, arena_bytes: int) -> int:
    """Bytes of a block for `capacity` events and `arena_bytes` of payload. Neither is checked here."""
    index_at = _align(sizeof(RingHeader), PAGE)
    rows_at = (index_at + 4 * capacity + PAGE - 1) // PAGE * PAGE
    return rows_at + sizeof(EventRow) * capacity + (arena_bytes + PAGE - 1) // PAGE * PAGE


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

    Thread safety
    -------------
    Properties may be read from any thread: each is a snapshot. One thread at a time may push, one may take.
    """

    def __cinit__(self, block: object, *, core_id: int, capacity: int, arena_bytes: int, thresholds: tuple):
        cdef Ring* ring = &self.ring
        cdef uint64_t i
        ring.wake_fd = -1
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
        ring.capacity = capacity
        ring.mask = ring.capacity - 1
        ring.arena_bytes = arena_bytes
        ring.fenced = 0 if has_membarrier else 1
        ring.header = <RingHeader*>self._block.buf
        ring.header.index_at = _align(sizeof(RingHeader), PAGE)
        ring.header.rows_at = _align(ring.header.index_at + 4 * ring.capacity, PAGE)
        ring.header.arena_at = ring.header.rows_at + sizeof(EventRow) * ring.capacity
        ring.header.block_bytes = self._block.len
        ring.header.capacity = ring.capacity
        ring.header.arena_bytes = ring.arena_bytes
        ring.header.core_id = core_id
        ring.header.version = LAYOUT_VERSION
        ring.header.magic = MAGIC
        ring.index = <uint32_t*>(<uint8_t*>self._block.buf + ring.header.index_at)
        ring.rows = <EventRow*>(<uint8_t*>self._block.buf + ring.header.rows_at)
        ring.arena = <uint8_t*>self._block.buf + ring.header.arena_at
        ring.local = <LocalSide*>map_wiped_on_fork(PAGE)
        if ring.local == NULL:
            raise MemoryError("no memory for the local side of a ring")
        ring.local.alive = 1
        with nogil:
            for i in range(ring.capacity):
                ring.index[i] = <uint32_t>i
            # Touch every page now: the first touch of memory costs more than copying it.
            memset(ring.rows, 0, sizeof(EventRow) * ring.capacity)
            memset(ring.arena, 0, ring.arena_bytes)
            # No byte may be written before ring_make_room has looked: limits of zero send the first emit there.
            ring_observe(ring)

    def __dealloc__(self):
        if self.ring.wake_fd >= 0:
            close_fd(self.ring.wake_fd)
        if self.ring.local != NULL:
            unmap(self.ring.local, PAGE)
        if self._has_block:
            PyBuffer_Release(&self._block)

    def __reduce__(self):
        raise TypeError("a private ring lives in the memory of one process and cannot be pickled")

    cdef int open_wake_fd(self) except -1:
        """The eventfd that signals an asynchronous waiter; made when first asked for, kept for the ring's life."""
        if self.ring.wake_fd < 0:
            self.ring.wake_fd = new_eventfd()
            if self.ring.wake_fd < 0:
                raise OSError("cannot make an eventfd: too many open files?")
        return self.ring.wake_fd

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
    def emitted_sequence(self) -> int | None:
        """The highest sequence number tried, enqueued or not; None while nothing was tried."""
        # Acquire, so that the number read next is one that was tried; pairs with ring_attempted.
        if load_acquire_u32(&self.ring.header.attempted) == 0:
            return None
        return load_acquire(&self.ring.header.emitted_sequence)
