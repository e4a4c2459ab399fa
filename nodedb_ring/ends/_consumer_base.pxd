# What every call of a consumer's end checks before it takes, and how it waits.

cimport cython

from libc.stdint cimport int64_t, uint64_t

from .._ring cimport EventRing
from ..core.atomic cimport unlikely
from ..core.layout cimport SOUND, Ring


@cython.no_gc
cdef class ConsumerBase:
    cdef readonly EventRing ring
    cdef Ring* _ring
    cdef readonly bint _closed
    cdef bint _is_waiting   # a call sleeps, in the kernel or on an event loop
    cdef uint64_t _listed_in  # the number of the WaitSet that was made with it last
    cdef bint _is_watched   # somebody has the descriptor, and is to be signalled whenever nothing is left to take
    cdef int _loop_fd       # another number for it, which event loops watch, or -1
    cdef int64_t _spin_ns   # how long a wait polls before it sleeps
    cdef object __weakref__

    cdef int claim(self) except -1
    cdef int ask_for_signal(self) except -1
    cdef int disarm(self) except -1
    cdef int release_role_if_over(self) except -1
    cdef int begin_wait(self) except -1
    cdef int end_wait(self) except -1
    cdef int sleep(self, int64_t limit) except -1


cdef bint sleep_on(Ring** rings, size_t count, int epoll, int64_t limit, int64_t spin_ns) except -1


cdef inline int check_block(ConsumerBase end) except -1:
    """Raises CorruptRingError once the shared block has been found not to be a ring."""
    if unlikely(end._ring.local.consumer.corrupt != SOUND):
        end.ring.check_consumer()
    return 0


cdef inline int found_nothing(ConsumerBase end) except -1:
    """What every call does that found nothing to take: asks why, and asks for the next signal if somebody watches."""
    check_block(end)
    if end._is_watched:
        end.ask_for_signal()
    return 0
