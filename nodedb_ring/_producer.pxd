# The producer's end, for Cython code that takes one apart: `producer.ring` is the EventRing to push to without the GIL.

from ._ring cimport EventRing, Ring


cdef class EventProducer:
    cdef readonly EventRing ring
    cdef Ring* _ring
    cdef int _barred            # BARRED_* bits: why emitting goes the slow way
    cdef bint _overflow_open    # the log has the beginning of an overflow and not its end
    cdef long long _overflow_logged_ns
    cdef bint _disconnect_logged
    cdef object __weakref__

    cdef int admit(self) except -1
    cdef int log_noted(self) except -1
    cdef int log_disconnect(self) except -1
