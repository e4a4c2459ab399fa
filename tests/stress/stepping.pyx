# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""Calls between two stops of this process, so that a tracer steps through the call and hardly anything else."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from nodedb_ring._ring cimport (
    PUSH_DONE,
    EventRing,
    EventRow,
    PushResult,
    RingLease,
    ring_pop,
    ring_producer_gone,
    ring_push,
    ring_push_rows,
    ring_release,
    ring_take,
)

cdef extern from "<signal.h>" nogil:
    int SIGSTOP
    int stop "raise"(int signal)


def between_stops(call, *arguments):
    """Calls something that Python calls."""
    stop(SIGSTOP)
    result = call(*arguments)
    stop(SIGSTOP)
    return result


def push(EventRing ring not None, const uint8_t[::1] rows not None, const uint8_t[::1] payload not None) -> bool:
    """Pushes the first of the rows, as native code does."""
    cdef PushResult result
    with nogil:
        stop(SIGSTOP)
        result = ring_push(&ring.ring, <const EventRow*>&rows[0], &payload[0], <uint32_t>payload.shape[0])
        stop(SIGSTOP)
    return result == PUSH_DONE


def push_rows(EventRing ring not None, const uint8_t[::1] rows not None, const uint8_t[::1] payload not None) -> int:
    """Pushes all of the rows."""
    cdef size_t count = rows.shape[0] // sizeof(EventRow), done
    with nogil:
        stop(SIGSTOP)
        done = ring_push_rows(&ring.ring, <const EventRow*>&rows[0], count, &payload[0])
        stop(SIGSTOP)
    return done


def pop(EventRing ring not None, uint8_t[::1] row not None, uint8_t[::1] payload not None) -> int:
    """Copies one event out: 1, or 0 when there is none."""
    cdef int result
    with nogil:
        stop(SIGSTOP)
        result = ring_pop(&ring.ring, <EventRow*>&row[0], &payload[0], <uint32_t>payload.shape[0])
        stop(SIGSTOP)
    return result


def producer_gone(EventRing ring not None) -> bool:
    """Whether the producer has gone and nothing of it is left."""
    cdef bint gone
    with nogil:
        stop(SIGSTOP)
        gone = ring_producer_gone(&ring.ring)
        stop(SIGSTOP)
    return gone


cdef class Run:
    """A run of events that native code has taken."""

    cdef EventRing ring
    cdef RingLease lease

    def __init__(self, EventRing ring not None) -> None:
        self.ring = ring

    def take(self, uint32_t most, bint stops) -> int:
        cdef uint32_t count
        with nogil:
            if stops:
                stop(SIGSTOP)
            count = ring_take(&self.ring.ring, most, &self.lease)
            if stops:
                stop(SIGSTOP)
        return count

    def release(self) -> None:
        with nogil:
            stop(SIGSTOP)
            ring_release(&self.ring.ring, &self.lease)
            stop(SIGSTOP)

    def read(self, uint8_t[::1] rows not None) -> None:
        """Copies the rows, whose offsets are into the ring's arena."""
        memcpy(&rows[0], self.lease.rows, self.lease.count * sizeof(EventRow))
