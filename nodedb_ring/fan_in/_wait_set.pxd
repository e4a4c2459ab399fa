# The ends that one thread waits on together.

from libc.stdint cimport int64_t

from ..core.layout cimport Ring


cdef class WaitSet:
    cdef readonly list ends
    cdef list _consumers        # of the ends that have a ring
    cdef Ring** _rings          # of those consumers
    cdef size_t _count
    cdef bint _is_any_shared
    cdef bint _has_gate         # one futex wakes a sleep on all of them
    cdef int64_t _spin_ns       # the shortest of theirs
    cdef int64_t _slice_ns      # the longest sleep until the followers are asked again; -1: there is none
    cdef int _epoll             # over the watch_fd of each ring, or -1
    cdef object __weakref__

    cdef int _list(self) except -1
    cdef int claim(self) except -1
    cdef int _disclaim(self, list claimed) except -1
    cdef list candidates(self)
    cdef list ready(self)
    cdef list until_ready(self, int64_t limit)
    cdef int _sleep(self, int64_t limit) except -1
    cdef int _open_epoll(self) except -1
    cdef int _begin(self) except -1
    cdef int _end(self, size_t begun) except -1
