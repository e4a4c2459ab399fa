# cython: language_level=3, auto_pickle=False, autotestdict=False
# cython: freethreading_compatible=True
"""``CommitEmitter``: what happens to the changes of a transaction once it is committed."""

import logging

cimport cython
from libc.stdint cimport UINT64_MAX, int64_t, uint64_t

from ..core.atomic cimport store_relaxed
from ..ends._producer cimport EventProducer
from ._change_block cimport ChangeBlock

from ..ends.logger import log_safely

__all__ = ["CommitEmitter"]


@cython.final
cdef class CommitEmitter:
    """The thread of the connection emits. The counters may be read from any.

    Parameters
    ----------
    producer : EventProducer
    """

    def __cinit__(self, producer):
        self.producer = producer
        ring = getattr(producer, "ring", None)
        self.arena_bytes = UINT64_MAX if ring is None else ring.arena_bytes

    cdef int emit(self, list blocks, int64_t standing, lsn) except -1:
        cdef int64_t left = standing, accepted = 0, oversize = 0
        cdef uint64_t start, stop = 0, size, i
        cdef ChangeBlock block = None
        cdef bint hidden = False
        try:
            for block in blocks:
                stop = min(<uint64_t>left, block.count)
                left -= stop
                start = 0
                if block.payload_bytes > self.arena_bytes:
                    for i in range(stop):
                        size = block.row_bytes(i)
                        if size > self.arena_bytes:
                            # The row is committed and a reader of the log will find it; here it is one more dropped event.
                            self.emit_rows(block, start, i, &accepted)
                            start = i + 1
                            oversize += 1
                            reason = (
                                f"payload of {size} bytes: the arena of core {self.producer.core_id} has"
                                f" {self.arena_bytes}; make the bus with a larger arena_bytes"
                            )
                    hidden = start == stop
                self.emit_rows(block, start, stop, &accepted)
        finally:
            store_relaxed(&self.emitted, self.emitted + <uint64_t>accepted)
            self.drop(standing - accepted)
        if hidden:
            # The ring never saw the last number, so no consumer could miss it. One number more shows the hole.
            self.emit_rows(block, stop, stop + 1, &accepted)
        if oversize:
            log_safely(logging.WARNING, "commit %d: %d row changes dropped, because %s", lsn, oversize, reason)
        return 0

    cdef void drop(self, int64_t count) noexcept:
        store_relaxed(&self.dropped, self.dropped + <uint64_t>count)

    cdef int emit_rows(self, ChangeBlock block, uint64_t start, uint64_t stop, int64_t* accepted) except -1:
        cdef uint64_t done = 0, i
        if type(self.producer) is EventProducer:
            try:
                (<EventProducer>self.producer).emit_rows(block, start, stop, &done)
            finally:
                accepted[0] += done
        else:
            for i in range(start, stop):
                if self.producer.emit(block.event(i)):
                    accepted[0] += 1
        return 0
