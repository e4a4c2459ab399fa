# Rows of the ring that a producer fills in place of making events.

from libc.stdint cimport uint64_t

from ..batch._row_block cimport RowBlock
from ._producer_base cimport ProducerBase


cdef class Reservation:
    cdef ProducerBase _producer
    cdef RowBlock _block
    cdef uint64_t _wanted
    cdef uint64_t _payload_bytes
    cdef bint _is_open
    cdef dict _arrays
    cdef readonly object published
