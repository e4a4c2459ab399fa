# Waiting for events and for room, and waking waiters.

from libc.stdint cimport int64_t, uint64_t

from .layout cimport Ring, WaitResult

# Until there is something to take, or an end has gone, which counts as ready. A negative timeout means no limit.
cdef WaitResult ring_wait(Ring* ring, int64_t timeout_ns, int64_t spin_ns) noexcept nogil
# The producer's: until `slots` rows and a span of `payload` bytes are free, or an end has gone.
# Once it sleeps it lets `gather` slots come free, for a millisecond at most: at least `slots`, and as many to hurry.
cdef WaitResult ring_wait_room(
    Ring* ring, uint64_t slots, uint64_t payload, uint64_t gather, int64_t timeout_ns, int64_t spin_ns
) noexcept nogil

# What the other end calls once it has published, or released, and finds that somebody waits.
cdef void ring_wake(Ring* ring) noexcept nogil
cdef void ring_wake_producer(Ring* ring) noexcept nogil

# For event loops: a descriptor to watch, asking for one signal on it, ending that, and signalling it oneself.
cdef int ring_open_watch_fd(Ring* ring) except -1
cdef int ring_copy_watch_fd(Ring* ring) except -1
cdef bint ring_arm(Ring* ring) noexcept nogil
cdef void ring_disarm(Ring* ring) noexcept nogil
cdef void ring_signal(Ring* ring) noexcept nogil

# Ends an end for good, and wakes whoever waits at either.
cdef void ring_close_producer(Ring* ring) noexcept nogil
cdef void ring_close_consumer(Ring* ring) noexcept nogil
