# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""Both ends of a ring driven by native threads, for the stress tests: each call runs without the GIL until it is done.

Rows are checked against ``native_events.pxd`` when they are taken, and leased ones again just before they go back.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from nodedb_ring._ring cimport (
    FIELD_COUNT,
    PUSH_DONE,
    WAIT_READY,
    EventRing,
    EventRow,
    PushResult,
    Ring,
    RingLease,
    WaitResult,
    ring_advance,
    ring_copy_out,
    ring_measure,
    ring_peek,
    ring_pop,
    ring_producer_gone,
    ring_publish,
    ring_push,
    ring_push_rows,
    ring_release,
    ring_reserve,
    ring_take,
    ring_wait,
    ring_wait_room,
)
from nodedb_ring.core._waiting cimport ring_arm, ring_disarm, ring_open_watch_fd
from nodedb_ring.core._waking cimport ring_close_consumer, ring_close_producer
from nodedb_ring.core.atomic cimport (
    load_acquire,
    load_acquire_u32,
    load_relaxed,
    load_relaxed_u32,
    pause,
    store_relaxed_u32,
    store_release_u32,
)
from nodedb_ring.core.layout cimport GONE

from native_events cimport is_event, mix, payload_size, write_event

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef enum:
    BATCH = 24      # most rows that one call of either side moves
    LEASES = 5      # most leases that the consumer has out

# How to emit, and how to take. MIXED draws one again at each step.
MIXED, PUSH, ROWS, SCATTERED, RESERVE = range(5)
POP, PEEK, TAKE, LEASE, COPY = range(1, 6)

# What is wrong with an event.
OUT_OF_ORDER, TORN, TORN_IN_LEASE, RUN_BROKEN = range(1, 5)


cdef class Stop:
    """A flag that ends both loops: the watchdog's way out of a hang."""

    cdef uint32_t flag

    def set(self) -> None:
        store_relaxed_u32(&self.flag, 1)


cdef inline void rest(uint32_t* polls) noexcept nogil:
    """Between two polls of the other thread's progress: a pause, and now and then a yield, if it needs this CPU."""
    polls[0] += 1
    if polls[0] % 256 == 0:
        sched_yield()
    pause()


# ---- producer -------------------------------------------------------------------------------------------------------

cdef struct Producer:
    Ring* ring
    const uint32_t* stop
    uint64_t first, count
    int how
    uint32_t most
    uint64_t seed
    bint insists, in_step
    int32_t spins
    uint32_t jitter
    uint8_t* enqueued
    EventRow* rows
    uint8_t* payload
    uint64_t attempts


cdef void emit_all(Producer* side) noexcept nogil:
    cdef Ring* ring = side.ring
    cdef uint64_t i = 0, steps = 0, draw, done, n, k
    cdef uint32_t size, at, spins, polls = 0
    cdef EventRow* rows
    cdef PushResult result
    cdef int kind
    while i < side.count and load_relaxed_u32(side.stop) == 0:
        steps += 1
        draw = mix(side.seed + steps)
        kind = side.how if side.how != 0 else <int>(1 + draw % 4)
        n = min(1 + (draw >> 8) % BATCH, side.count - i)
        done = 0
        if kind == 4:
            n = ring_reserve(ring, <uint32_t>n, &rows)
            for k in range(n):
                write_event(rows + k, side.first + i + k, 0, side.payload, 0, &size)
                # Rows without payload: where they lie in the arena is the ring's to say.
                for at in range(FIELD_COUNT):
                    rows[k].field[at].offset = 0
            ring_publish(ring, rows, <uint32_t>n)
            side.attempts += n
            done = n
            if n == 0 and (not side.insists or load_relaxed_u32(&ring.header.consumer_claim) & GONE):
                kind = 1
        if kind == 1:
            n = 1
            write_event(side.rows, side.first + i, side.most, side.payload, 0, &size)
            result = ring_push(ring, side.rows, side.payload, size)
            side.attempts += 1
            done = 1 if result == PUSH_DONE else 0
        elif kind == 2 or kind == 3:
            at = 0
            for k in range(n):
                # Scattered: written from the last event to the first, with a byte of nobody's between any two.
                done = k if kind == 2 else n - 1 - k
                write_event(side.rows + done, side.first + i + done, side.most, side.payload, at, &size)
                at += size + (1 if kind == 3 else 0)
            done = ring_push_rows(ring, side.rows, n, side.payload)
            side.attempts += n
        for k in range(done):
            side.enqueued[i + k] = 1
        if done < n or n == 0:
            if side.insists and not load_relaxed_u32(&ring.header.consumer_claim) & GONE:
                n = done
                if side.spins >= 0:
                    size = payload_size(side.first + i + n, side.most) if kind != 4 else 0
                    ring_wait_room(ring, 1, size, 1 + (draw >> 30) % ring.capacity, -1, side.spins)
                else:
                    sched_yield()
        i += n
        if side.in_step:
            # Continues when the consumer has taken all, somewhere about the moment at which it falls asleep.
            while load_acquire(&ring.header.released) != ring.header.published and load_relaxed_u32(side.stop) == 0:
                rest(&polls)
            spins = <uint32_t>(draw >> 40) % side.jitter
            while spins != 0:
                spins -= 1
                pause()


def produce(
    EventRing ring not None, Stop stop not None, uint8_t[::1] enqueued not None, *, uint64_t first, int how,
    uint32_t most, uint64_t seed, bint insists, bint in_step=False, uint32_t jitter=300, bint closes=True,
    int32_t spins=-1,
) -> int:
    """Tries the events from `first` on, as many as `enqueued` is long, and records there which were enqueued.

    One that insists tries an event that was refused again; the other continues to the next. One in step waits until all
    was taken, and then for up to `jitter` pauses, and continues. With `spins` of 0 or more one that insists sleeps
    until there is room. Returns the attempts.
    """
    cdef Producer side
    memset(&side, 0, sizeof(side))
    side.ring = &ring.ring
    side.stop = &stop.flag
    side.first, side.count, side.how, side.most, side.seed = first, enqueued.shape[0], how, most, seed
    side.insists, side.in_step, side.jitter, side.spins = insists, in_step, jitter, spins
    side.enqueued = &enqueued[0]
    side.rows = <EventRow*>malloc(BATCH * sizeof(EventRow))
    side.payload = <uint8_t*>malloc(BATCH * (<size_t>most + 1))
    try:
        with nogil:
            emit_all(&side)
            if closes:
                ring_close_producer(side.ring)
    finally:
        free(side.rows)
        free(side.payload)
    return side.attempts


# ---- consumer -------------------------------------------------------------------------------------------------------

cdef struct Consumer:
    Ring* ring
    uint32_t* stop
    uint64_t first, count
    int how
    uint32_t most
    uint64_t seed
    int32_t spins           # before a sleep; negative does not sleep
    uint8_t* received
    EventRow* rows
    uint8_t* payload
    RingLease lease[LEASES]
    bint is_out[LEASES]
    int out
    uint64_t next_sequence  # the least that may come next
    int wrong
    uint64_t wrong_sequence


cdef void check(Consumer* side, const EventRow* row, const uint8_t* payload) noexcept nogil:
    cdef uint64_t at = row.sequence - side.first
    if side.wrong != 0:
        return
    side.wrong_sequence = row.sequence
    if not is_event(row, payload, side.most):
        side.wrong = 2
    elif at >= side.count or row.sequence < side.next_sequence:
        side.wrong = 1
    else:
        side.received[at] += 1
        side.next_sequence = row.sequence + 1


cdef void give_back(Consumer* side, uint64_t draw) noexcept nogil:
    """Ends one of the leases that are out, after checking it again."""
    cdef int k = <int>(draw % LEASES)
    cdef uint32_t i
    while not side.is_out[k]:
        k = (k + 1) % LEASES
    for i in range(side.lease[k].count):
        if side.wrong == 0 and not is_event(side.lease[k].rows + i, side.ring.arena, side.most):
            side.wrong = 3
            side.wrong_sequence = side.lease[k].rows[i].sequence
    ring_release(side.ring, &side.lease[k])
    side.is_out[k] = False
    side.out -= 1


cdef uint64_t take_some(Consumer* side, int kind, uint32_t most, uint64_t draw) noexcept nogil:
    """Takes and checks up to `most` events in one of the ways; returns how many."""
    cdef Ring* ring = side.ring
    cdef EventRow* row
    cdef uint64_t count = 0, payload = 0, i
    cdef int k = 0
    if kind == 1:
        if ring_pop(ring, side.rows, side.payload, side.most) != 1:
            return 0
        check(side, side.rows, side.payload)
        return 1
    if kind == 2:
        row = ring_peek(ring)
        if row == NULL:
            return 0
        check(side, row, ring.arena)
        ring_advance(ring)
        return 1
    if kind == 5:
        count = ring_measure(ring, most, &payload)
        if payload > ring.arena_bytes:
            side.wrong = 4
            return 0
        ring_copy_out(ring, count, side.rows, side.payload, payload)
        for i in range(count):
            check(side, side.rows + i, side.payload)
        return count
    if side.out == LEASES:
        give_back(side, draw)
    while side.is_out[k]:
        k += 1
    count = ring_take(ring, most, &side.lease[k])
    if count == 0:
        return 0
    side.is_out[k] = True
    side.out += 1
    for i in range(count):
        check(side, side.lease[k].rows + i, ring.arena)
    if kind == 3 or draw & 0x30000 == 0:
        give_back(side, k if kind == 3 else draw >> 20)
    return count


cdef void take_all(Consumer* side) noexcept nogil:
    cdef Ring* ring = side.ring
    cdef uint64_t steps = 0, draw = 0
    cdef uint32_t polls = 0
    cdef int kind
    while side.wrong == 0 and load_relaxed_u32(side.stop) == 0:
        steps += 1
        draw = mix(side.seed + steps)
        kind = side.how if side.how != 0 else <int>(1 + draw % 5)
        if take_some(side, kind, <uint32_t>(1 + (draw >> 8) % BATCH), draw) != 0:
            continue
        elif side.out != 0:
            give_back(side, draw)
        elif ring_producer_gone(ring):
            break
        elif load_relaxed_u32(&ring.header.consumer_claim) & GONE:
            break
        elif side.spins >= 0:
            ring_wait(ring, -1, side.spins)
        else:
            rest(&polls)
    if side.wrong != 0:
        # A producer that insists would wait forever.
        store_relaxed_u32(side.stop, 1)
    while side.out != 0:
        give_back(side, draw >> 30)


def consume(
    EventRing ring not None, Stop stop not None, uint8_t[::1] received not None, *, uint64_t first, int how,
    uint32_t most, uint64_t seed, int32_t spins=-1,
) -> tuple[int, int]:
    """Takes events until the producer has gone, and counts in `received` how often each came.

    With `spins` of 0 or more it sleeps when there is nothing. Returns what is wrong with the first wrong event, 0 for
    nothing, and its sequence number.
    """
    cdef Consumer side
    memset(&side, 0, sizeof(side))
    side.ring = &ring.ring
    side.stop = &stop.flag
    side.first, side.count, side.how, side.most, side.seed = first, received.shape[0], how, most, seed
    side.spins = spins
    side.next_sequence = first
    side.received = &received[0]
    side.rows = <EventRow*>malloc(BATCH * sizeof(EventRow))
    side.payload = <uint8_t*>malloc(max(<size_t>ring.ring.arena_bytes, <size_t>most) + 1)
    try:
        with nogil:
            take_all(&side)
    finally:
        free(side.rows)
        free(side.payload)
    return side.wrong, side.wrong_sequence


# ---- the last event before a close ----------------------------------------------------------------------------------

cdef class Turns:
    """Whose move it is in a run of many rounds on one ring: 2k + 1 is the producer's in round k."""

    cdef uint32_t turn


def close_after_one(EventRing ring not None, Stop stop not None, Turns turns not None, uint32_t rounds, uint64_t seed) -> int:
    """In each round emits one event and closes, at some moment of the consumer's poll."""
    cdef Ring* at = &ring.ring
    cdef EventRow row
    cdef uint32_t size, spins, k, polls = 0
    cdef uint8_t nothing = 0
    memset(&row, 0, sizeof(row))
    with nogil:
        for k in range(rounds):
            while load_acquire_u32(&turns.turn) != 2 * k + 1 and load_relaxed_u32(&stop.flag) == 0:
                rest(&polls)
            for spins in range(<uint32_t>(mix(seed + k) % 40)):
                pause()
            write_event(&row, k + 1, 0, &nothing, 0, &size)
            ring_push(at, &row, NULL, 0)
            ring_close_producer(at)
    return 0


def look_for_the_last(EventRing ring not None, Stop stop not None, Turns turns not None, uint32_t rounds) -> int:
    """Counts the rounds in which the producer was taken to be gone while its event was still there."""
    cdef Ring* at = &ring.ring
    cdef uint32_t k, lost = 0, polls = 0
    with nogil:
        for k in range(rounds):
            store_release_u32(&turns.turn, 2 * k + 1)
            while not ring_producer_gone(at) and load_relaxed_u32(&stop.flag) == 0:
                if ring_peek(at) != NULL:
                    ring_advance(at)
                else:
                    rest(&polls)
            if at.header.taken != k + 1:
                lost += 1
                while ring_peek(at) == NULL and load_relaxed_u32(&stop.flag) == 0:
                    rest(&polls)
                ring_advance(at)
            # The same ring again: the next round's producer is another one.
            store_relaxed_u32(&at.header.producer_claim, 0)
    return lost


# ---- the ring itself ------------------------------------------------------------------------------------------------

def waits_see_what_came_before(EventRing ring not None) -> tuple[bool, bool]:
    """Whether both kinds of wait, begun without a poll, find what is in the ring when they announce themselves."""
    slept = ring_wait(&ring.ring, 0, 0) != WAIT_READY
    ring_open_watch_fd(&ring.ring)
    armed = ring_arm(&ring.ring)
    ring_disarm(&ring.ring)
    return not slept, armed


def room_waits_see_what_came_before(EventRing ring not None) -> bool:
    """Whether a wait for room, begun without a poll, finds that there is some when it announces itself."""
    return ring_wait_room(&ring.ring, 1, 0, 1, 0, 0) == WAIT_READY


def sleep_until_room(EventRing ring not None, uint64_t slots, uint64_t payload, uint64_t gather) -> bool:
    """Sleeps, without a limit and without a poll, until there is room; returns whether there is."""
    cdef WaitResult result
    with nogil:
        result = ring_wait_room(&ring.ring, slots, payload, gather, -1, 0)
    return result == WAIT_READY


def sleep(EventRing ring not None) -> bool:
    """Sleeps, without a limit and without a poll, until woken; returns whether it then found something."""
    cdef WaitResult result
    with nogil:
        result = ring_wait(&ring.ring, -1, 0)
    return result == WAIT_READY


def start_at(EventRing ring not None, uint64_t position, uint64_t arena_position) -> None:
    """Moves a ring that was never used to other positions, so that a test sees them wrap."""
    cdef Ring* at = &ring.ring
    at.header.published = at.header.taken = at.header.released = position
    at.local.producer.published = at.local.consumer.taken = at.local.consumer.released = position
    at.local.producer.cached_released = at.local.consumer.cached_published = position
    at.header.arena_head = at.header.arena_lap = at.header.arena_floor = at.header.arena_released = arena_position
    at.local.producer.arena_head = at.local.producer.arena_lap = arena_position
    at.local.producer.cached_tail = at.local.consumer.arena_taken = arena_position


def progress(EventRing ring not None) -> tuple[int, int]:
    """Positions published and taken: while either moves, the ring is not stuck."""
    return load_relaxed(&ring.ring.header.published), load_relaxed(&ring.ring.header.taken)


def close_both(EventRing ring not None) -> None:
    """Closes both ends, which wakes a sleeping one."""
    ring_close_producer(&ring.ring)
    ring_close_consumer(&ring.ring)
