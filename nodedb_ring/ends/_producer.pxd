# The producer's end, for Cython code that takes one apart: `producer.ring` is the EventRing to push to without the GIL.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from ..batch._row_block cimport BufferPool
from .._ring cimport EventRing, Ring


cdef class EventProducer:
    cdef readonly EventRing ring
    cdef Ring* _ring
    cdef BufferPool _pool             # of reservations
    cdef int _barred            # BARRED_* bits: why emitting goes the slow way
    cdef bint _overflow_open    # the log has the beginning of an overflow and not its end
    cdef long long _overflow_logged_ns
    cdef uint32_t _pressure_told  # the state that the log has
    cdef long long _pressure_told_ns[3]  # when, by state
    cdef bint _pressure_held    # it has been another one since, and too soon after to be told
    cdef uint32_t _disconnect_logged  # the consumer's claim whose end the log has
    cdef bint _is_waiting       # a call waits for room: the role is kept until it is back
    cdef object __weakref__

    cdef int admit(self) except -1
    cdef int check_block(self) except -1
    cdef bint wait_until(self, uint64_t slots, uint64_t payload, uint64_t gather, int64_t deadline) except -1
    cdef int note_pressure(self) except -1
    cdef int log_noted(self) except -1
    cdef int log_disconnect(self) except -1
