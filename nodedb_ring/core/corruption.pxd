# What an end does when the block that it shares with other processes turns out to be no ring.

from libc.stdint cimport uint64_t

from .layout cimport LOG_CORRUPT, ConsumerSide, Corruption, ProducerSide, Ring


cdef inline void ring_producer_corrupt(Ring* ring, Corruption what, uint64_t value) noexcept nogil:
    """Ends the producer's trust in the block for good: without an owner, every later call is refused."""
    cdef ProducerSide* side = &ring.local.producer
    side.corrupt = what
    side.corrupt_value = value
    side.owner = 0
    side.pending_log |= LOG_CORRUPT


cdef inline void ring_consumer_corrupt(Ring* ring, Corruption what, uint64_t value) noexcept nogil:
    """The same for the consumer."""
    cdef ConsumerSide* side = &ring.local.consumer
    side.corrupt = what
    side.corrupt_value = value
    side.owner = 0
