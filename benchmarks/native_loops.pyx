# cython: language_level=3, auto_pickle=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""The compiled loops of the benchmark: rows pushed and popped through a ring's ``.pxd``, and through a plain C ring.

Compiled on first use (``native_build.py``) against the headers of the installed package, as any client of it would be.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy, memset

from nodedb_ring.core.atomic cimport pause
from nodedb_ring._ring cimport (
    PUSH_DONE,
    EventRing,
    EventRow,
    Ring,
    RingLease,
    ring_pop,
    ring_publish,
    ring_push,
    ring_release,
    ring_reserve,
    ring_take,
)

cdef extern from "stdlib.h" nogil:
    void* aligned_alloc(size_t alignment, size_t size)

cdef extern from "ping_pong.h" nogil:
    ctypedef struct PingPong "ping_pong":
        pass
    int64_t now "ping_pong_now"()
    int meet_at "ping_pong_meet"(PingPong* ping_pong, int64_t patience_ns)
    int64_t ping "ping_pong_ping"(PingPong* ping_pong, uint32_t trips)
    void pong "ping_pong_pong"(PingPong* ping_pong, uint32_t trips)

cdef extern from "plain_ring.h" nogil:
    ctypedef struct PlainRing "plain_ring":
        uint64_t head, seen_tail, tail, seen_head
        uint8_t* rows
        uint64_t capacity, mask
    uint64_t plain_reserve(PlainRing* ring, uint64_t most, uint8_t** first)
    void plain_publish(PlainRing* ring, uint64_t count)
    uint64_t plain_take(PlainRing* ring, uint64_t most, const uint8_t** first)
    void plain_release(PlainRing* ring, uint64_t count)
    int plain_push(PlainRing* ring, const void* row)
    int plain_pop(PlainRing* ring, void* row)

cdef enum:
    GROUP = 64       # rows that the producer numbers, and publishes together or one by one
    TAKE_MOST = 256  # rows that the consumer copies out at a time
    INSERT = 1
    HUNDRED = 100


cdef void template(EventRow* rows) noexcept nogil:
    """A group of rows that differ in every column that the ring does not own, and have no payload."""
    cdef uint32_t i, k
    memset(rows, 0, GROUP * sizeof(EventRow))
    for i in range(GROUP):
        rows[i].lsn = 1000 + i
        rows[i].tenant_id = <uint64_t>i << 40
        rows[i].system_time_ms = -<int64_t>i
        rows[i].valid_time_ms = 7 * i
        rows[i].vshard_id = 3 * i
        rows[i].count = i
        rows[i].op = INSERT
        for k in range(2, 6):
            rows[i].field[k].length = 0xFFFFFFFF


cdef inline bint is_row(const EventRow* row, uint64_t number, const EventRow* source) noexcept nogil:
    """Whether a row is the `number`-th that was sent, in every column."""
    cdef const EventRow* sent = source + number % GROUP
    return (
        row.sequence == number + 1
        and memcmp(&row.lsn, &sent.lsn, 42) == 0
        and memcmp(row.field, sent.field, sizeof(sent.field)) == 0
    )


cdef class Way:
    """A way of rows from one thread to another: a ring of ours, or a plain one over `block`."""

    cdef EventRing owner
    cdef object block
    cdef Ring* ring
    cdef PlainRing* plain
    cdef PingPong* ping_pong

    def __cinit__(self, EventRing ring, uint8_t[::1] block):
        """Give `ring`; or None, and a block of a power of two of rows."""
        self.ping_pong = <PingPong*>aligned_alloc(128, sizeof(PingPong))
        self.plain = <PlainRing*>aligned_alloc(128, sizeof(PlainRing))
        if self.ping_pong == NULL or self.plain == NULL:
            raise MemoryError
        memset(self.ping_pong, 0, sizeof(PingPong))
        memset(self.plain, 0, sizeof(PlainRing))
        if ring is not None:
            self.owner = ring
            self.ring = &ring.ring
            return
        self.block = block
        self.plain.rows = &block[0]
        self.plain.capacity = block.shape[0] // sizeof(EventRow)
        self.plain.mask = self.plain.capacity - 1
        memset(&block[0], 0, block.shape[0])

    def __dealloc__(self):
        free(self.ping_pong)
        free(self.plain)

    def send(self, uint64_t count, uint32_t together, uint32_t pauses, uint32_t trips):
        """The producer's thread: (nanoseconds a round trip of a line, time of the start).

        It plays ping-pong with the consumer's thread `trips` times, then sends `count` rows, a multiple of 64, publishing
        1 or 64 together. Where there is no room it pauses `pauses` times.
        """
        cdef int64_t probe, start
        if count % GROUP or together not in (1, GROUP) or trips == 0 or trips % HUNDRED:
            raise ValueError(f"count {count}, together {together}, trips {trips}: must be multiples of {GROUP}, and of 100")
        with nogil:
            meet(self.ping_pong)
            probe = ping(self.ping_pong, trips)
            meet(self.ping_pong)
            start = now()
            if self.ring != NULL:
                if together == 1:
                    push_singly(self.ring, count, pauses)
                else:
                    push_groups(self.ring, count, pauses)
            elif together == 1:
                plain_push_singly(self.plain, count, pauses)
            else:
                plain_push_groups(self.plain, count, pauses)
        return probe / <double>HUNDRED, start

    def receive(self, uint64_t count, uint32_t together, uint32_t pauses, uint32_t trips, bint check):
        """The consumer's thread: (rows that were not the one expected, time of the end).

        With `check` every column of every row is compared; without, the number of the last row of each batch.
        """
        cdef uint64_t wrong
        cdef int64_t end
        with nogil:
            meet(self.ping_pong)
            pong(self.ping_pong, trips)
            meet(self.ping_pong)
            if self.ring != NULL:
                if together == 1:
                    wrong = pop_singly(self.ring, count, pauses, check)
                else:
                    wrong = take_batches(self.ring, count, pauses, check)
            elif together == 1:
                wrong = plain_pop_singly(self.plain, count, pauses, check)
            else:
                wrong = plain_take_batches(self.plain, count, pauses, check)
            end = now()
        return wrong, end

    def turns(self, uint64_t count, uint32_t together, bint check):
        """One thread, push and pop in turn, 1 or 64 rows at a time: (rows that were wrong, nanoseconds)."""
        cdef uint64_t wrong
        cdef int64_t start
        with nogil:
            start = now()
            if self.ring != NULL:
                wrong = turn_singly(self.ring, count, check) if together == 1 else turn_groups(self.ring, count, check)
            elif together == 1:
                wrong = plain_turn_singly(self.plain, count, check)
            else:
                wrong = plain_turn_groups(self.plain, count, check)
        return wrong, now() - start


cdef inline void meet(PingPong* ping_pong) noexcept nogil:
    """Returns when both threads have called it: in one process the other cannot be gone."""
    meet_at(ping_pong, 1 << 62)


cdef inline void rest(uint32_t pauses) noexcept nogil:
    cdef uint32_t i
    for i in range(pauses):
        pause()


cdef inline void write_time(EventRow* source, uint64_t sent) noexcept nogil:
    """Numbers a group: 64 stores well ahead of the loads of the copy."""
    cdef uint32_t i
    for i in range(GROUP):
        source[i].sequence = sent + i + 1


cdef inline uint64_t wrong_rows(
    const EventRow* rows, uint64_t count, uint64_t number, const EventRow* source, bint check
) noexcept nogil:
    cdef uint64_t wrong = 0, i
    if not check:
        return rows[count - 1].sequence != number + count
    for i in range(count):
        wrong += not is_row(rows + i, number + i, source)
    return wrong


# ---- two threads: a ring of ours ----------------------------------------------------------------------------------------

cdef void push_groups(Ring* ring, uint64_t count, uint32_t pauses) noexcept nogil:
    cdef EventRow source[GROUP]
    cdef EventRow* first
    cdef uint64_t sent = 0
    cdef uint32_t done, run
    template(source)
    while sent < count:
        write_time(source, sent)
        done = 0
        while done < GROUP:
            run = ring_reserve(ring, GROUP - done, &first)
            if run == 0:
                rest(pauses)
                continue
            memcpy(first, source + done, run * sizeof(EventRow))
            ring_publish(ring, first, run)
            done += run
        sent += GROUP


cdef void push_singly(Ring* ring, uint64_t count, uint32_t pauses) noexcept nogil:
    cdef EventRow source[GROUP]
    cdef uint64_t sent = 0
    cdef uint32_t i
    template(source)
    while sent < count:
        write_time(source, sent)
        for i in range(GROUP):
            while ring_push(ring, source + i, NULL, 0) != PUSH_DONE:
                rest(pauses)
        sent += GROUP


cdef uint64_t take_batches(Ring* ring, uint64_t count, uint32_t pauses, bint check) noexcept nogil:
    cdef EventRow source[GROUP]
    cdef EventRow out[TAKE_MOST]
    cdef RingLease lease
    cdef uint64_t received = 0, wrong = 0
    cdef uint32_t run
    template(source)
    while received < count:
        run = ring_take(ring, TAKE_MOST, &lease)
        if run == 0:
            rest(pauses)
            continue
        memcpy(out, lease.rows, run * sizeof(EventRow))
        ring_release(ring, &lease)
        wrong += wrong_rows(out, run, received, source, check)
        received += run
    return wrong


cdef uint64_t pop_singly(Ring* ring, uint64_t count, uint32_t pauses, bint check) noexcept nogil:
    cdef EventRow source[GROUP]
    cdef EventRow out
    cdef uint64_t received = 0, wrong = 0
    template(source)
    while received < count:
        if ring_pop(ring, &out, NULL, 0) != 1:
            rest(pauses)
            continue
        wrong += wrong_rows(&out, 1, received, source, check)
        received += 1
    return wrong


# ---- two threads: the plain ring, and in groups the bare copy-through ---------------------------------------------------

cdef void plain_push_groups(PlainRing* ring, uint64_t count, uint32_t pauses) noexcept nogil:
    cdef EventRow source[GROUP]
    cdef uint8_t* first
    cdef uint64_t sent = 0
    cdef uint32_t done, run
    template(source)
    while sent < count:
        write_time(source, sent)
        done = 0
        while done < GROUP:
            run = <uint32_t>plain_reserve(ring, GROUP - done, &first)
            if run == 0:
                rest(pauses)
                continue
            memcpy(first, source + done, run * sizeof(EventRow))
            plain_publish(ring, run)
            done += run
        sent += GROUP


cdef void plain_push_singly(PlainRing* ring, uint64_t count, uint32_t pauses) noexcept nogil:
    cdef EventRow source[GROUP]
    cdef uint64_t sent = 0
    cdef uint32_t i
    template(source)
    while sent < count:
        write_time(source, sent)
        for i in range(GROUP):
            while not plain_push(ring, source + i):
                rest(pauses)
        sent += GROUP


cdef uint64_t plain_take_batches(PlainRing* ring, uint64_t count, uint32_t pauses, bint check) noexcept nogil:
    cdef EventRow source[GROUP]
    cdef EventRow out[TAKE_MOST]
    cdef const uint8_t* first
    cdef uint64_t received = 0, wrong = 0
    cdef uint32_t run
    template(source)
    while received < count:
        run = <uint32_t>plain_take(ring, TAKE_MOST, &first)
        if run == 0:
            rest(pauses)
            continue
        memcpy(out, first, run * sizeof(EventRow))
        plain_release(ring, run)
        wrong += wrong_rows(out, run, received, source, check)
        received += run
    return wrong


cdef uint64_t plain_pop_singly(PlainRing* ring, uint64_t count, uint32_t pauses, bint check) noexcept nogil:
    cdef EventRow source[GROUP]
    cdef EventRow out
    cdef uint64_t received = 0, wrong = 0
    template(source)
    while received < count:
        if not plain_pop(ring, &out):
            rest(pauses)
            continue
        wrong += wrong_rows(&out, 1, received, source, check)
        received += 1
    return wrong


# ---- one thread ---------------------------------------------------------------------------------------------------------

cdef uint64_t turn_groups(Ring* ring, uint64_t count, bint check) noexcept nogil:
    cdef EventRow source[GROUP]
    cdef EventRow out[GROUP]
    cdef EventRow* first
    cdef RingLease lease
    cdef uint64_t sent = 0, wrong = 0
    cdef uint32_t run
    template(source)
    while sent < count:
        write_time(source, sent)
        # Groups divide the capacity, and nothing is outstanding: a run is never cut.
        run = ring_reserve(ring, GROUP, &first)
        memcpy(first, source, run * sizeof(EventRow))
        ring_publish(ring, first, run)
        run = ring_take(ring, GROUP, &lease)
        if run != GROUP:
            return count
        memcpy(out, lease.rows, run * sizeof(EventRow))
        ring_release(ring, &lease)
        wrong += wrong_rows(out, run, sent, source, check)
        sent += GROUP
    return wrong


cdef uint64_t turn_singly(Ring* ring, uint64_t count, bint check) noexcept nogil:
    cdef EventRow source[GROUP]
    cdef EventRow out
    cdef uint64_t sent = 0, wrong = 0
    cdef uint32_t i
    template(source)
    while sent < count:
        write_time(source, sent)
        for i in range(GROUP):
            wrong += ring_push(ring, source + i, NULL, 0) != PUSH_DONE
            wrong += ring_pop(ring, &out, NULL, 0) != 1
            wrong += wrong_rows(&out, 1, sent + i, source, check)
        sent += GROUP
    return wrong


cdef uint64_t plain_turn_groups(PlainRing* ring, uint64_t count, bint check) noexcept nogil:
    cdef EventRow source[GROUP]
    cdef EventRow out[GROUP]
    cdef uint8_t* first
    cdef const uint8_t* taken
    cdef uint64_t sent = 0, wrong = 0, run
    template(source)
    while sent < count:
        write_time(source, sent)
        run = plain_reserve(ring, GROUP, &first)
        memcpy(first, source, run * sizeof(EventRow))
        plain_publish(ring, run)
        run = plain_take(ring, GROUP, &taken)
        if run != GROUP:
            return count
        memcpy(out, taken, run * sizeof(EventRow))
        plain_release(ring, run)
        wrong += wrong_rows(out, run, sent, source, check)
        sent += GROUP
    return wrong


cdef uint64_t plain_turn_singly(PlainRing* ring, uint64_t count, bint check) noexcept nogil:
    cdef EventRow source[GROUP]
    cdef EventRow out
    cdef uint64_t sent = 0, wrong = 0
    cdef uint32_t i
    template(source)
    while sent < count:
        write_time(source, sent)
        for i in range(GROUP):
            wrong += not plain_push(ring, source + i)
            wrong += not plain_pop(ring, &out)
            wrong += wrong_rows(&out, 1, sent + i, source, check)
        sent += GROUP
    return wrong


def copy_twice(const uint8_t[::1] source, uint8_t[::1] middle, uint8_t[::1] out, uint64_t times):
    """Nanoseconds for two bare memcpys, of source to middle and of middle to out, the fastest of `times`."""
    cdef int64_t best = -1, start, took
    cdef size_t size = source.shape[0]
    cdef uint64_t i
    if middle.shape[0] < <Py_ssize_t>size or out.shape[0] < <Py_ssize_t>size:
        raise ValueError("middle and out must hold what source does")
    with nogil:
        for i in range(times):
            start = now()
            memcpy(&middle[0], &source[0], size)
            memcpy(&out[0], &middle[0], size)
            took = now() - start
            if best < 0 or took < best:
                best = took
    return best
