# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""Waking whoever sleeps at the other end: for an event, for room, or for the end of the stream."""

from libc.stdint cimport uint32_t, uint64_t

from .atomic cimport (
    fence,
    fetch_add_u32,
    fetch_and_u32,
    fetch_or_u32,
    load_acquire,
    load_acquire_u32,
    load_relaxed,
    load_relaxed_u32,
    store_relaxed_u32,
)
from .kernel cimport futex_wake, signal_fd, this_cpu
from .layout cimport (
    GONE,
    SLEEPS_OFTEN,
    WAITING_FD,
    WAITING_GATE,
    WAITING_THREAD,
    WAKER_FENCES,
    ProducerSide,
    Ring,
    RingHeader,
    is_after,
)

__all__ = []  # C functions alone

cdef enum:
    # Publications that fence for a reader which has slept often, and does not any more, before that ends.
    MOST_FENCES = 256


cdef bint ring_wake(Ring* ring) noexcept nogil:
    """Wakes the waiter; whether there is one. Taking the bits makes one wake a sleep, however many events follow.

    A bit is taken by whoever can signal what it asks for: without a FIFO it is the waiter's timer that ends its wait.
    """
    cdef uint32_t* word = &ring.header.waiting
    cdef uint32_t taken
    if load_relaxed_u32(word) & (WAKER_FENCES | SLEEPS_OFTEN):
        fence()
    # Acquires `wake_fd`, which a waiter of this process opens before it asks; pairs with _announce.
    taken = load_acquire_u32(word) & (WAITING_THREAD | WAITING_GATE | WAITING_FD)
    if ring.wake_fd < 0:
        taken &= WAITING_THREAD | WAITING_GATE
    if taken == 0:
        return False
    taken &= fetch_and_u32(word, ~taken)
    store_relaxed_u32(&ring.header.waker_cpu, this_cpu())
    if taken & WAITING_THREAD:
        futex_wake(word)
    if taken & WAITING_GATE:
        _open_gate(ring, load_relaxed_u32(&ring.header.gate_core))
    if taken & WAITING_FD:
        signal_fd(ring.wake_fd)
    return True


cdef void ring_answer(Ring* ring) noexcept nogil:
    """What a publication does that finds a bit in `waiting`: wakes the waiter, or counts that there was none.

    After MOST_FENCES in vain the fence is the waiter's again. A waiter that comes after the exchange finds the bit gone,
    and has its membarrier; one that came before it finds what was published, and the next publication finds the waiter.
    """
    cdef ProducerSide* side = &ring.local.producer
    if ring_wake(ring):
        side.fences_in_vain = 0
    elif load_relaxed_u32(&ring.header.waiting) & SLEEPS_OFTEN:
        side.fences_in_vain += 1
        if side.fences_in_vain >= MOST_FENCES:
            side.fences_in_vain = 0
            fetch_and_u32(&ring.header.waiting, ~<uint32_t>SLEEPS_OFTEN)


cdef inline void _open_gate(Ring* ring, uint32_t core_id) noexcept nogil:
    cdef uint32_t* gate
    # From a shared block, so any number. A waiter that is not woken looks by itself, some 12 times a second.
    if core_id < ring.num_cores:
        gate = &(<RingHeader*>(ring.blocks + core_id * ring.block_bytes)).gate
        fetch_add_u32(gate, 1)
        futex_wake(gate)


cdef void ring_wake_producer(Ring* ring) noexcept nogil:
    """Wakes the producer that waits for room, if what it waits for is there."""
    cdef RingHeader* header = ring.header
    cdef uint64_t released = ring.local.consumer.released
    if load_relaxed_u32(&header.room_waiting) & WAKER_FENCES:
        fence()
    # What it waits for was written before it said so; pairs with _announce_room. It publishes nothing meanwhile.
    if load_acquire_u32(&header.room_waiting) & WAITING_THREAD == 0 or is_after(load_relaxed(&header.room_released), released):
        return
    if not is_after(load_relaxed(&header.room_tail), load_relaxed(&header.arena_released)) or (
        load_acquire(&header.published) == released
    ):
        _end_room_wait(ring)


cdef inline void _end_room_wait(Ring* ring) noexcept nogil:
    if fetch_and_u32(&ring.header.room_waiting, ~<uint32_t>WAITING_THREAD) & WAITING_THREAD:
        store_relaxed_u32(&ring.header.room_waker_cpu, this_cpu())
        futex_wake(&ring.header.room_waiting)


cdef void ring_close_producer(Ring* ring) noexcept nogil:
    # Publishes that nothing follows; pairs with the acquire in ring_producer_gone.
    fetch_or_u32(&ring.header.producer_claim, GONE)
    fence()
    ring_wake(ring)
    # A thread of its own that waits for room.
    _end_room_wait(ring)


cdef void ring_close_consumer(Ring* ring) noexcept nogil:
    fetch_or_u32(&ring.header.consumer_claim, GONE)
    fence()
    ring_wake(ring)
    _end_room_wait(ring)
