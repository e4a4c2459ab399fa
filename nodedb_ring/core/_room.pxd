# Room for the producer: what the consumer has released, what is in use, the pressure that follows, and drops.

from libc.stdint cimport uint32_t, uint64_t

from .layout cimport PushResult, Ring

# Loads what the consumer has released; whether `slots` rows and a span of `payload` bytes are free.
cdef bint ring_make_room(Ring* ring, uint64_t slots, uint64_t payload) noexcept nogil
# Measures what is in use, and moves the pressure state and the high-water marks.
cdef void ring_observe(Ring* ring) noexcept nogil
cdef void ring_settle(Ring* ring) noexcept nogil
# Counts `count` events as refused, from sequence `first` to sequence `last`.
cdef void ring_drop(Ring* ring, uint64_t first, uint64_t last, uint64_t count, PushResult reason) noexcept nogil

# From any thread: slots and bytes in use, as percent, and the state that follows.
cdef void ring_occupancy(Ring* ring, uint64_t* slots, uint64_t* payload) noexcept nogil
cdef uint32_t ring_percent(Ring* ring, uint64_t slots, uint64_t payload) noexcept nogil
cdef uint32_t ring_next_pressure(Ring* ring, uint32_t state, uint32_t percent) noexcept nogil
