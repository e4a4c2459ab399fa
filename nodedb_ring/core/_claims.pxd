# Who may work an end: the thread that owns it, the process that has claimed it, and whether that process still lives.

from libc.stdint cimport uint64_t

from .atomic cimport store_relaxed
from .layout cimport OWNED, OWNED_BY_PARENT, OWNED_ELSEWHERE, Corruption, Ownership, Ring

# A number that this thread has for life and that no other thread of the process ever gets.
cdef uint64_t thread_token() noexcept nogil

# Whether the other end is GONE. It becomes so here if the process that holds it is found dead, by two system calls.
cdef bint ring_mark_dead_consumer(Ring* ring) noexcept nogil
cdef bint ring_mark_dead_producer(Ring* ring) noexcept nogil
# Whether the producer has gone and everything of it was taken.
cdef bint ring_producer_gone(Ring* ring) noexcept nogil

# Ends the use of a shared block that is not a valid ring: without an owner every later call of this end is refused.
cdef void ring_producer_corrupt(Ring* ring, Corruption what, uint64_t value) noexcept nogil
cdef void ring_consumer_corrupt(Ring* ring, Corruption what, uint64_t value) noexcept nogil

# Claims an end of a shared ring for this process, PRODUCER_ROLE or CONSUMER_ROLE: first its lock, then, once the end is
# taken over, the claim word. RoleTaken where a process that lives holds it.
cdef int ring_claim_role(Ring* ring, int file_fd, bytes wake_path, uint64_t role) except -1
cdef void ring_open_claim(Ring* ring, uint64_t role) noexcept
# Frees it for others to claim; on a private ring nothing.
cdef void ring_release_role(Ring* ring) noexcept
cdef bint is_role_held(int file_fd, uint64_t core_id, uint64_t role) noexcept
# The pid that the latest claim says, None before it has; and whether that is a process of another pid namespace.
cdef tuple ring_holder(Ring* ring, uint64_t role)


cdef inline Ownership ring_take_ownership(Ring* ring, uint64_t* owner) noexcept nogil:
    """Whether this thread owns an end, which is its first user's.

    With the GIL, or in the critical section that guards the end: two may claim at once.
    """
    cdef uint64_t token = thread_token()
    if owner[0] == token:
        return OWNED
    if ring.local.alive == 0:
        return OWNED_BY_PARENT
    if owner[0] != 0:
        return OWNED_ELSEWHERE
    # Atomic, as all stores of it: a set of ends that is waited for looks at it without the section.
    store_relaxed(owner, token)
    return OWNED
