# What every call of a producer's end checks before it emits, and logs after it.

cimport cython

from libc.stdint cimport int64_t, uint32_t

from .._ring cimport EventRing
from ..batch._row_block cimport BufferPool
from ..core.layout cimport Ring

cdef enum:  # bits of `_status`; 0 while the end is open for every call
    END_CLOSED = 1
    END_RESERVED = 2


@cython.no_gc
cdef class ProducerBase:
    cdef readonly EventRing ring
    cdef Ring* _ring
    cdef BufferPool _pool                # of reservations
    cdef int _status                     # END_* bits: why emitting goes the slow way
    cdef bint _overflow_open             # the log has the beginning of an overflow and not its end
    cdef int64_t _overflow_logged_ns
    cdef uint32_t _logged_pressure       # the state that was logged last
    cdef int64_t _logged_pressure_ns[3]  # when each was
    cdef bint _pressure_log_due          # it has changed since, too soon after the last to be logged
    cdef uint32_t _disconnect_logged     # the consumer's claim whose end was logged
    cdef object __weakref__

    cdef int claim(self) except -1
    cdef int queue_pressure_log(self) except -1
    cdef int write_pending_log(self) except -1
    cdef int log_disconnect(self) except -1
