# A run of a ring's own rows, handed out to be read where it lies.

cimport cython

from libc.stdint cimport uint64_t

from .._ring cimport EventRing
from ..batch._event_batch cimport EventBatch
from ..batch._row_block cimport BufferPool, RowBlock
from ..core.layout cimport RingLease
from .fork_snapshot cimport SnapshotArena


cdef class LeasedArena:
    cdef SnapshotArena snapshot
    cdef EventRing ring
    cdef uint64_t end  # arena position after the newest lease
    cdef bint is_registered

    cdef void hold(self) noexcept


cdef class LeasedBlock(RowBlock):
    cdef EventRing ring
    cdef RingLease lease
    cdef bint is_out
    cdef bint ended_by_exception
    cdef LeasedArena arena  # of a shared ring; else None

    cdef int take(self, EventRing owner, BufferPool pool, LeasedArena arena, uint64_t most) except -1
    cdef void give_back(self) noexcept
    cdef Py_ssize_t holders(self) noexcept
    cdef void end(self, bint by_exception) noexcept


@cython.no_gc
cdef class Lease:
    cdef LeasedBlock _block
    cdef EventBatch _batch

    cdef int _end(self, bint by_exception) except -1
