# The producer's end. Code that is compiled against this package needs no more of it than its Python attribute `ring`.

from libc.stdint cimport int64_t, uint8_t, uint64_t

from ..batch._row_block cimport RowBlock
from ..core.layout cimport EventRow
from ._producer_base cimport ProducerBase


cdef class EventProducer(ProducerBase):
    cdef bint _is_waiting  # a call waits for room: the role is kept until it is back

    cdef uint64_t emit_block(self, RowBlock block, int64_t limit, int64_t deadline) except? 0xFFFFFFFFFFFFFFFF
    cdef uint64_t emit_row(self, const EventRow* row, const uint8_t* payload, uint64_t need) except? 0xFFFFFFFFFFFFFFFF
    cdef bint wait_until(self, uint64_t slots, uint64_t payload, uint64_t gather, int64_t deadline) except -1
    # emit_batch for packed rows of a block, from `start` up to `stop`, each of which the arena could hold; does not wait.
    # `done` is how many went in, also when it raises after that.
    cdef int emit_rows(self, RowBlock block, uint64_t start, uint64_t stop, uint64_t* done) except -1
