# Waiting for events and for room.

from libc.stdint cimport int64_t, uint64_t

from .layout cimport Ring, WaitResult

cdef enum:
    MOST_FUTEXES = 128  # as NODEDB_MOST_FUTEXES: the most rings that rings_wait sleeps on IN_FUTEXES

cdef enum:  # where rings_wait sleeps, if not in an epoll
    IN_FUTEXES = -1  # one of each ring
    AT_GATE = -2     # one of all, which rings_have_gate says whether they have

# Until there is something to take, or an end has gone, which counts as ready. A negative timeout means no limit.
cdef WaitResult ring_wait(Ring* ring, int64_t timeout_ns, int64_t spin_ns) noexcept nogil
# Until one of the rings is ready. `epoll` has the watch_fd of each in it, or is one of the two above. IN_FUTEXES may be
# WAIT_REFUSED: there are too many for that, or this kernel lacks the system call.
cdef WaitResult rings_wait(
    Ring** rings, size_t count, int epoll, int64_t timeout_ns, int64_t spin_ns
) noexcept nogil
cdef bint rings_have_gate(Ring** rings, size_t count) noexcept nogil
cdef bint ring_is_ready(Ring* ring) noexcept nogil
# What a waiter does now and then, and how seldom it may.
cdef bint rings_check_producers(Ring** rings, size_t count) noexcept nogil
cdef int64_t rings_slice_ns(size_t count) noexcept nogil
# The producer's: until `slots` rows and a span of `payload` bytes are free, or an end has gone.
# Once it sleeps it lets `gather` slots come free, for a millisecond at most: at least `slots`, and as many to hurry.
cdef WaitResult ring_wait_room(
    Ring* ring, uint64_t slots, uint64_t payload, uint64_t gather, int64_t timeout_ns, int64_t spin_ns
) noexcept nogil

# For event loops: a descriptor to watch, asking for one signal on it, ending that, and signalling it oneself.
cdef int ring_open_watch_fd(Ring* ring) except -1
cdef int ring_copy_watch_fd(Ring* ring) except -1
cdef bint ring_arm(Ring* ring) noexcept nogil
cdef void ring_disarm(Ring* ring) noexcept nogil
cdef bint rings_arm(Ring** rings, size_t count, int64_t again_ns) noexcept nogil
cdef void rings_disarm(Ring** rings, size_t count) noexcept nogil
cdef void ring_signal(Ring* ring) noexcept nogil
