# The consumer's end, for Cython code that takes one apart: `consumer.ring` is the EventRing to take from without the GIL.

from libc.stdint cimport int64_t, uint64_t

from ..batch._row_block cimport BufferPool
from .._ring cimport EventRing, Ring


cdef class EventConsumer:
    cdef readonly EventRing ring
    cdef Ring* _ring
    cdef BufferPool _pool
    cdef object _leased         # what leases are over, a _LeasedArena, of a shared ring; else None
    cdef readonly bint _closed
    cdef bint _is_waiting       # a call sleeps, without the GIL or on an event loop
    cdef bint _is_watched       # somebody has the descriptor, and is to be signalled whenever nothing is left to take
    cdef int _loop_fd           # another number for it, which event loops watch, or -1
    cdef int64_t _spin_ns       # how long a wait looks before it sleeps
    cdef object _stream_claim   # a StreamClaim
    cdef object __weakref__

    cdef int admit(self) except -1
    cdef int check_block(self) except -1
    cdef int found_nothing(self) except -1
    cdef int ask_for_signal(self) except -1
    cdef int let_go_if_over(self) except -1
    cdef int _end_wait(self) except -1
    cdef int64_t begin_take(self, object max_events, object timeout, Py_ssize_t* most) except? -2
    cdef bint wait_for_one(self, int64_t limit) except -1
    cdef object take(self, uint64_t most)
    cdef int sleep(self, int64_t limit) except -1
