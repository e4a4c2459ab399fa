# The highest sequence number that the producer has tried, and the one that it is about to try.

from libc.stdint cimport uint64_t

from .atomic cimport store_relaxed, store_release, store_release_u32, unlikely
from .layout cimport Ring, RingHeader


cdef inline void ring_intend(Ring* ring, uint64_t sequence) noexcept nogil:
    """Says which number is about to be tried, so that a successor never uses it again."""
    cdef RingHeader* header = ring.header
    if unlikely(header.intended == 0):
        store_relaxed(&header.intent, sequence)
        store_release_u32(&header.intended, 1)
    elif sequence > header.intent:
        store_relaxed(&header.intent, sequence)


cdef inline void ring_attempted(Ring* ring, uint64_t sequence) noexcept nogil:
    """Publishes the highest number tried. Pairs with the acquire in EventRing.emitted_sequence."""
    cdef RingHeader* header = ring.header
    if unlikely(header.attempted == 0):
        store_release(&header.emitted_sequence, sequence)
        store_release_u32(&header.attempted, 1)
    elif sequence > header.emitted_sequence:
        store_release(&header.emitted_sequence, sequence)
