# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""Who may work an end: the thread that owns it, the process that has claimed it, and whether that process still lives."""

from libc.errno cimport EAGAIN, EMFILE, ENFILE, ENOENT, ENOMEM, errno
from libc.stdint cimport uint32_t, uint64_t
from posix.unistd cimport getpid

from .atomic cimport (
    exchange_u32,
    load_acquire,
    load_acquire_u32,
    load_relaxed,
    load_relaxed_u32,
    replace_u32,
    store_relaxed,
    store_relaxed_u32,
    store_release_u32,
)
from .kernel cimport (
    close_fd,
    epoll_add,
    epoll_remove,
    has_ended,
    membarrier_register_global,
    open_fifo,
    open_pidfd,
    pid_namespace,
)
from .layout cimport (
    CONSUMER_ROLE,
    GONE,
    LOG_CORRUPT,
    PRODUCER_ROLE,
    ConsumerSide,
    Corruption,
    ProducerSide,
    Ring,
)

import os

from ..errors import RoleTaken

__all__ = []  # C functions alone

cdef extern from "nodedb_roles.h" nogil:
    uint64_t this_thread "nodedb_thread_token"() noexcept
    bint is_locked "nodedb_is_locked"(int fd, uint64_t byte) noexcept
    int acquire_role "nodedb_acquire_role"(int file, uint64_t byte) noexcept
    void release_role_fd "nodedb_release_role"(int fd) noexcept


cdef uint64_t thread_token() noexcept nogil:
    """A number that this thread has for life and no other thread of the process ever gets."""
    return this_thread()


cdef inline uint32_t* _claim_word(Ring* ring, uint64_t role) noexcept nogil:
    return &ring.header.producer_claim if role == PRODUCER_ROLE else &ring.header.consumer_claim


cdef inline uint32_t* _pid(Ring* ring, uint64_t role) noexcept nogil:
    return &ring.header.producer_pid if role == PRODUCER_ROLE else &ring.header.consumer_pid


cdef inline uint64_t* _namespace(Ring* ring, uint64_t role) noexcept nogil:
    """In which pid namespace that pid is a process."""
    if role == PRODUCER_ROLE:
        return &ring.header.producer_pid_namespace
    return &ring.header.consumer_pid_namespace


cdef bint _mark_dead(Ring* ring, uint64_t role) noexcept nogil:
    """Marks the other end's latest claim GONE if its holder is found dead; whether it is GONE.

    Its lock says so first. A copy of the process that was made by other means than fork(), and that lives on, keeps the
    lock; then the pidfd says so. In another pid namespace the pid is another process's: there the lock alone decides.
    """
    cdef uint32_t* claim_word = _claim_word(ring, role)
    cdef uint32_t claim = load_acquire_u32(claim_word)
    cdef uint64_t here
    cdef bint lost = False
    if claim & GONE:
        return True
    # Nobody has come yet; or the process is one that inherited this end.
    if claim == 0 or ring.shared == 0 or ring.role_fd < 0 or ring.local.alive == 0:
        return False
    if exchange_u32(&ring.peer_busy, 1) != 0:
        return False
    if ring.peer_claim != claim:
        if ring.peer_fd >= 0:
            if ring.watch_fd >= 0:
                epoll_remove(ring.watch_fd, ring.peer_fd)
            close_fd(ring.peer_fd)
        ring.peer_fd = -1
        ring.peer_claim = claim
        here = pid_namespace()
        if here != 0 and here == load_relaxed(_namespace(ring, role)):
            ring.peer_fd = open_pidfd(load_relaxed_u32(_pid(ring, role)))
            if ring.peer_fd < 0 and errno in (EMFILE, ENFILE, ENOMEM):
                ring.peer_claim = 0  # the next check tries again
        if ring.peer_fd >= 0 and ring.watch_fd >= 0:
            epoll_add(ring.watch_fd, ring.peer_fd)
    if not is_locked(ring.role_fd, 2 * <uint64_t>ring.core_id + role) or (ring.peer_fd >= 0 and has_ended(ring.peer_fd)):
        # Another observer may have been first, and so may a successor: its claim is open.
        lost = replace_u32(claim_word, claim, claim | GONE) or load_acquire_u32(claim_word) & GONE
    store_release_u32(&ring.peer_busy, 0)
    return lost


cdef bint ring_mark_dead_consumer(Ring* ring) noexcept nogil:
    return _mark_dead(ring, CONSUMER_ROLE)


cdef bint ring_mark_dead_producer(Ring* ring) noexcept nogil:
    return _mark_dead(ring, PRODUCER_ROLE)


cdef bint ring_producer_gone(Ring* ring) noexcept nogil:
    """Whether the producer has gone and nothing of it is left: the claim first, then the ring once more.

    In the other order an event published between the two loads would be lost. Pairs with ring_close_producer.
    """
    return (
        load_acquire_u32(&ring.header.producer_claim) & GONE
        and load_acquire(&ring.header.published) == ring.local.consumer.taken
    )


cdef void ring_open_claim(Ring* ring, uint64_t role) noexcept:
    """Opens the next claim. Under its lock nobody else writes this but an observer who finds the last holder dead."""
    cdef uint32_t* claim_word = _claim_word(ring, role)
    # Publishes the pid, too; pairs with the acquire in _mark_dead.
    store_release_u32(claim_word, ((load_relaxed_u32(claim_word) >> 1) + 1) << 1)


cdef int ring_claim_role(Ring* ring, int file_fd, bytes wake_path, uint64_t role) except -1:
    """Locks the byte of an end in the bus's file, and opens what an asynchronous waiter is signalled by."""
    cdef int role_fd = acquire_role(file_fd, 2 * <uint64_t>ring.core_id + role)
    cdef int wrong
    if role_fd == -EAGAIN:
        holder, is_foreign = ring_holder(ring, role)
        shown = "another process, which has yet to say its pid" if holder is None else f"process {holder}"
        if is_foreign:
            shown = f"process {holder} of another pid namespace, a container's say"
            holder = None
        raise RoleTaken(
            f"{'producer' if role == PRODUCER_ROLE else 'consumer'} of core {ring.core_id}: is claimed by {shown}; "
            "close it there, or wait until that process has ended",
            holder,
        )
    if role_fd < 0:
        raise OSError(-role_fd, os.strerror(-role_fd))
    ring.role_fd = role_fd
    ring.role = <uint32_t>role
    # At once: whoever is refused from here on is shown this process, not the last.
    store_relaxed(_namespace(ring, role), pid_namespace())
    store_relaxed_u32(_pid(ring, role), <uint32_t>getpid())
    ring.fenced = 0 if membarrier_register_global() else 1
    if wake_path:
        # Now, since it may be missing, and no descriptor free, when it is wanted.
        ring.wake_fd = open_fifo(wake_path)
        if ring.wake_fd < 0 and errno != ENOENT:
            wrong = errno
            ring_release_role(ring)
            raise OSError(wrong, os.strerror(wrong), os.fsdecode(wake_path))
    return 0


cdef void ring_release_role(Ring* ring) noexcept:
    # In a forked child the descriptor was closed at the fork, and its number may be another file's.
    if ring.role_fd >= 0 and ring.local.alive:
        # Before the lock goes: after that the word is the next holder's.
        store_relaxed_u32(_pid(ring, ring.role), 0)
        store_relaxed(_namespace(ring, ring.role), 0)
        release_role_fd(ring.role_fd)
    ring.role_fd = -1


cdef bint is_role_held(int file_fd, uint64_t core_id, uint64_t role) noexcept:
    return is_locked(file_fd, 2 * core_id + role)


cdef tuple ring_holder(Ring* ring, uint64_t role):
    holder = load_relaxed_u32(_pid(ring, role)) or None
    return holder, holder is not None and load_relaxed(_namespace(ring, role)) not in (0, pid_namespace())


cdef void ring_producer_corrupt(Ring* ring, Corruption what, uint64_t value) noexcept nogil:
    """Ends the producer's trust in the block for good: without an owner, every later call is refused."""
    cdef ProducerSide* side = &ring.local.producer
    side.corrupt = what
    side.corrupt_value = value
    store_relaxed(&side.owner, 0)
    side.pending_log |= LOG_CORRUPT


cdef void ring_consumer_corrupt(Ring* ring, Corruption what, uint64_t value) noexcept nogil:
    """The same for the consumer."""
    cdef ConsumerSide* side = &ring.local.consumer
    side.corrupt = what
    side.corrupt_value = value
    store_relaxed(&side.owner, 0)
