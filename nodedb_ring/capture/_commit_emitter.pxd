# Emits the changes of a commit, once it is done.

from libc.stdint cimport int64_t, uint64_t

from ._change_block cimport ChangeBlock


cdef class CommitEmitter:
    cdef object producer         # an EventProducer, or what has its emit(), core_id and next_sequence
    cdef uint64_t arena_bytes    # of its ring: a larger change cannot be emitted
    # Changes that the ring has taken, and those that it has not.
    cdef uint64_t emitted
    cdef uint64_t dropped

    # Emits the first `standing` changes of blocks that have their numbers, and the HEARTBEAT behind them if the ring did
    # not see the last one.
    cdef int emit(self, list blocks, int64_t standing, lsn) except -1
    # Counts changes that were committed and cannot be emitted.
    cdef void drop(self, int64_t count) noexcept
    cdef int emit_rows(self, ChangeBlock block, uint64_t start, uint64_t stop, int64_t* accepted) except -1
