# The consumer's end. Code that is compiled against this package needs no more of it than its Python attribute `ring`.

from libc.stdint cimport int64_t, uint64_t

from ..batch._row_block cimport BufferPool
from ._consumer_base cimport ConsumerBase
from ._lease cimport LeasedArena


cdef class EventConsumer(ConsumerBase):
    cdef BufferPool _pool
    cdef LeasedArena _leased    # what leases are over, of a shared ring; else None
    cdef object _stream_claim   # a StreamClaim

    cdef int64_t begin_take(self, object max_events, object timeout, Py_ssize_t* most) except? -2
    cdef bint wait_for_one(self, int64_t limit) except -1
    cdef object take(self, uint64_t most)
