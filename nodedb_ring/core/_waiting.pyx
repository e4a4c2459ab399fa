# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""Waiting for events and for room: polling while that pays, and sleeping in the kernel."""

from libc.errno cimport EINTR, ENOSYS, EPERM, ETIMEDOUT, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ._claims cimport ring_mark_dead_consumer, ring_mark_dead_producer
from ._room cimport ring_make_room
from .atomic cimport (
    fence,
    fetch_and_u32,
    fetch_or_u32,
    load_acquire,
    load_acquire_u32,
    load_relaxed_u32,
    pause,
    prefetch,
    prefetch_to_write,
    store_relaxed,
    store_relaxed_u32,
)
from .kernel cimport (
    clear_signal,
    close_fd,
    coarse_ns,
    copy_fd,
    epoll_add,
    epoll_wait,
    futex_wait,
    futex_waitv,
    membarrier,
    membarrier_global,
    monotonic_ns,
    new_epoll,
    new_eventfd,
    new_timer,
    set_timer,
    signal_fd,
)
from .layout cimport (
    GONE,
    PEER_CHECK_NS,
    SLEEPS_OFTEN,
    SOUND,
    WAITING_FD,
    WAITING_GATE,
    WAITING_THREAD,
    WAIT_INTERRUPTED,
    WAIT_READY,
    WAIT_REFUSED,
    WAIT_TIMEOUT,
    WAKER_FENCES,
    ConsumerSide,
    ProducerSide,
    Ring,
    RingHeader,
    Spin,
    WaitResult,
)
from .polling cimport poll_pays, polled

import os

__all__ = []  # C functions alone

cdef enum:
    # Pauses between two polls of a spinning end: each poll takes the cache line away from the other end.
    PAUSES = 4
    # A sleeping producer lets room gather for so long: a wake per row would cost the consumer a system call per row.
    GATHER_NS = 1000000
    # The longest sleep on a shared ring: a process that dies wakes no waiter.
    SHARED_SLEEP_NS = 80000000
    # With many rings the sleep is at least this long a ring. One check of a ring takes 1 to 2.5 microseconds, and so all
    # of them take 1 % of a core at most, however many there are.
    SLEEP_NS_PER_RING = 250000
    # A reader sleeps often if so many sleeps, one after the other, each came after so few events at most.
    OFTEN = 2
    FEW_EVENTS = 64


cdef bint ring_is_ready(Ring* ring) noexcept nogil:
    """Whether a wait for events is over: there is one, or an end has gone."""
    return (
        load_acquire(&ring.header.published) != ring.local.consumer.taken
        or load_acquire_u32(&ring.header.producer_claim) & GONE
        or load_acquire_u32(&ring.header.consumer_claim) & GONE
    )


cdef inline bint _is_any_ready(Ring** rings, size_t count) noexcept nogil:
    cdef size_t i
    for i in range(count):
        if ring_is_ready(rings[i]):
            return True
    return False


cdef inline bint _has_room(Ring* ring, uint64_t slots, uint64_t payload) noexcept nogil:
    """Whether a wait for room is over: there is some, an end has gone, or the block is not a ring any more."""
    return (
        ring_make_room(ring, slots, payload)
        or load_acquire_u32(&ring.header.consumer_claim) & GONE
        or load_acquire_u32(&ring.header.producer_claim) & GONE
        or ring.local.producer.corrupt != SOUND
    )


cdef inline bint _spin(
    Ring** rings, size_t count, bint for_room, uint64_t slots, uint64_t payload, int64_t until
) noexcept nogil:
    """Polls until a wait for room in the first ring, or for events in any, is over; whether that was before `until`."""
    cdef int i
    while True:
        if _has_room(rings[0], slots, payload) if for_room else _is_any_ready(rings, count):
            return True
        for i in range(PAUSES):
            pause()
        if monotonic_ns() >= until:
            return False


cdef inline int64_t _shorter(int64_t sleep_ns, int64_t limit_ns) noexcept nogil:
    """The shorter of two times to sleep, of which the first may be without limit: negative."""
    return limit_ns if sleep_ns < 0 else min(sleep_ns, limit_ns)


cdef inline bint _fence_other(Ring* ring, uint32_t* word) noexcept nogil:
    """Has every thread of the other end's process pass a fence, or asks it to by a bit of `word`.

    Whether it was by membarrier: that reached the other ends of all rings of this kind, shared or not.
    """
    if ring.fenced == 0:
        if membarrier_global() if ring.shared else membarrier():
            return True
        # Refused from now on, by a filter that this process has put on since.
        store_relaxed_u32(&ring.fenced, 1)
        fetch_or_u32(word, WAKER_FENCES)
    return False


cdef inline uint32_t _often(Ring* ring) noexcept nogil:
    """SLEEPS_OFTEN if this sleep and the last ones come with few events between, else 0."""
    cdef ConsumerSide* side = &ring.local.consumer
    if ring.fenced != 0:
        # The producer fences at all times.
        return 0
    if side.taken - side.taken_before > FEW_EVENTS:
        side.short_runs = 0
    elif side.short_runs < OFTEN:
        side.short_runs += 1
    side.taken_before = side.taken
    return SLEEPS_OFTEN if side.short_runs == OFTEN else 0


cdef inline bint _announce(Ring** rings, size_t count, uint32_t how) noexcept nogil:
    """Says that the consumer is about to sleep; whether it must not, since something came meanwhile.

    What a producer published before is seen by the last line, and what it publishes after sees `waiting`; pairs with
    ring_notify. A membarrier takes 10 us where the producer runs, and stops it for some of them. A fence of the producer's
    takes 6 ns, at each publication: so a reader that sleeps after a few events asks for that, by a bit that stays. The
    first time it has its membarrier, too: from then on whatever the producer publishes finds the bit.
    """
    # Whether a membarrier is due, and was: of private rings, and of shared ones.
    cdef bint reached[2]
    cdef bint is_fenced
    cdef size_t i
    reached[0] = reached[1] = False
    if how == WAITING_GATE:
        # Published by what follows; pairs with the acquire in ring_wake.
        for i in range(count):
            store_relaxed_u32(&rings[i].header.gate_core, rings[0].core_id)
    for i in range(count):
        is_fenced = fetch_or_u32(&rings[i].header.waiting, how | _often(rings[i])) & SLEEPS_OFTEN != 0
        rings[i].local.consumer.is_fenced = is_fenced
    for i in range(count):
        if not rings[i].local.consumer.is_fenced and (rings[i].fenced != 0 or not reached[rings[i].shared != 0]):
            reached[rings[i].shared != 0] = _fence_other(rings[i], &rings[i].header.waiting)
    fence()
    return _is_any_ready(rings, count)


cdef inline void _withdraw(Ring** rings, size_t count, uint32_t how) noexcept nogil:
    """Ends what `_announce` said."""
    cdef size_t i
    if count > 1:
        # After a sleep they are in no near cache, and one after the other they would take as long as a wake.
        for i in range(count):
            prefetch_to_write(&rings[i].header.waiting)
            prefetch(&rings[i].header.published)
            prefetch(&rings[i].local.consumer)
    for i in range(count):
        fetch_and_u32(&rings[i].header.waiting, ~how)


cdef inline bint _announce_room(Ring* ring, uint64_t slots, uint64_t payload) noexcept nogil:
    """Says that the producer is about to sleep, and until when; whether it must not, since room came meanwhile.

    Where a span of `payload` bytes fits depends on how far the arena is released, or on all being released.
    """
    cdef RingHeader* header = ring.header
    cdef ProducerSide* side = &ring.local.producer
    cdef uint64_t tail = side.arena_head + payload - ring.arena_bytes
    if side.arena_head - side.arena_lap + payload > ring.arena_bytes:
        # It starts the next lap, of which the consumer has to have left the beginning of this one.
        tail = side.arena_lap + payload
    store_relaxed(&header.room_released, side.published + slots - ring.capacity)
    store_relaxed(&header.room_tail, tail)
    # Publishes the two; pairs with the acquire in ring_wake_producer.
    fetch_or_u32(&header.room_waiting, WAITING_THREAD)
    # What the consumer released before is seen by the last line, and what it releases after sees `room_waiting`. Pairs
    # with ring_release_run. It lets room gather, and so sleeps seldom: the membarrier is its own.
    _fence_other(ring, &header.room_waiting)
    fence()
    return _has_room(ring, slots, payload)


cdef bint rings_check_producers(Ring** rings, size_t count) noexcept nogil:
    """Finds the producers of shared rings that have died since the last check, some 40 ms ago; whether a ring is shared."""
    cdef int64_t now = coarse_ns()
    cdef bint is_any_shared = False
    cdef size_t i
    for i in range(count):
        if rings[i].shared:
            is_any_shared = True
            if now - rings[i].local.consumer.peer_checked_ns >= PEER_CHECK_NS:
                rings[i].local.consumer.peer_checked_ns = now
                ring_mark_dead_producer(rings[i])
    return is_any_shared


cdef bint rings_have_gate(Ring** rings, size_t count) noexcept nogil:
    """Whether one futex can wake a sleep on these rings: they are several of one bus between processes."""
    cdef size_t i
    for i in range(count):
        if rings[i].blocks == NULL or rings[i].blocks != rings[0].blocks:
            return False
    return count > 1


cdef inline int _sleep(Ring** rings, size_t count, int64_t sleep_ns, uint32_t* woken) noexcept nogil:
    """Sleeps in the futexes of announced rings: 0, or the errno that ended it. `woken` is the ring, if that is known."""
    cdef uint32_t* words[MOST_FUTEXES]
    cdef uint32_t expected[MOST_FUTEXES]
    cdef Ring* ring = rings[0]
    cdef uint32_t word
    cdef size_t i
    if count == 1:
        # An asynchronous waiter may have a bit of its own in it, which is taken with this one.
        word = load_relaxed_u32(&ring.header.waiting)
        return futex_wait(&ring.header.waiting, word, sleep_ns) if word & WAITING_THREAD else 0
    for i in range(count):
        words[i] = &rings[i].header.waiting
        expected[i] = load_relaxed_u32(words[i])
        if expected[i] & WAITING_THREAD == 0:
            return 0
    return futex_waitv(words, expected, <uint32_t>count, sleep_ns, woken)


cdef WaitResult rings_wait(
    Ring** rings, size_t count, int epoll, int64_t timeout_ns, int64_t spin_ns
) noexcept nogil:
    """Waits until one of the rings has something to take, or an end has gone; a negative timeout means no limit.

    While that pays it polls for `spin_ns` first: a wake through the kernel takes tens of microseconds. One thread at a
    time.
    """
    cdef Spin* spin = &rings[0].local.consumer.spin
    cdef uint32_t waker_cpu = load_relaxed_u32(&rings[0].header.waker_cpu) if count == 1 else 0
    cdef int64_t deadline = -1, began
    cdef bint is_over
    if count > MOST_FUTEXES and epoll == IN_FUTEXES:
        return WAIT_REFUSED
    began = monotonic_ns()
    if timeout_ns >= 0:
        deadline = began + timeout_ns
    spin_ns = _shorter(timeout_ns, spin_ns)
    if poll_pays(spin, waker_cpu, began, spin_ns):
        is_over = _spin(rings, count, False, 0, 0, began + spin_ns)
        polled(spin, is_over, spin_ns)
        if is_over:
            return WAIT_READY
    return _sleep_for_events(rings, count, epoll, deadline)


cdef inline WaitResult _sleep_for_events(Ring** rings, size_t count, int epoll, int64_t deadline) noexcept nogil:
    """A producer that dies wakes no waiter, so on shared rings it sleeps for some time only before it checks for that."""
    cdef uint32_t how = WAITING_FD if epoll >= 0 else WAITING_GATE if epoll == AT_GATE else WAITING_THREAD
    cdef int64_t left = -1, sleep_ns
    cdef WaitResult result = WAIT_READY
    cdef bint is_any_shared, is_armed = epoll < 0
    cdef uint32_t woken = 0, wakes = 0
    cdef int rc
    while True:
        is_any_shared = rings_check_producers(rings, count)
        if how == WAITING_GATE:
            # Before it announces: a wake from then on is another number, and the sleep does not begin.
            wakes = load_acquire_u32(&rings[0].header.gate)
        if _announce(rings, count, how) if is_armed else rings_arm(rings, count, 0):
            break
        if deadline >= 0:
            left = deadline - monotonic_ns()
            if left <= 0:
                result = WAIT_TIMEOUT
                break
        sleep_ns = _shorter(left, rings_slice_ns(count)) if is_any_shared else left
        if how == WAITING_GATE:
            rc = futex_wait(&rings[0].header.gate, wakes, sleep_ns)
        elif epoll < 0:
            rc = _sleep(rings, count, sleep_ns, &woken)
        else:
            rc = epoll_wait(epoll, sleep_ns)
            # What made it readable has to be cleared.
            is_armed = rc == ETIMEDOUT
        _withdraw(rings, count, how)
        if ring_is_ready(rings[woken]) or _is_any_ready(rings, count):
            return WAIT_READY
        if rc == EINTR:
            return WAIT_INTERRUPTED
        if rc == ENOSYS or rc == EPERM:
            return WAIT_REFUSED
        if rc == ETIMEDOUT and sleep_ns == left:
            return WAIT_TIMEOUT
    _withdraw(rings, count, how)
    return result


cdef WaitResult ring_wait(Ring* ring, int64_t timeout_ns, int64_t spin_ns) noexcept nogil:
    """As rings_wait, of one ring."""
    return rings_wait(&ring, 1, IN_FUTEXES, timeout_ns, spin_ns)


cdef int64_t rings_slice_ns(size_t count) noexcept nogil:
    """The longest sleep on so many shared rings."""
    return max(<int64_t>SHARED_SLEEP_NS, <int64_t>count * SLEEP_NS_PER_RING)


cdef WaitResult ring_wait_room(
    Ring* ring, uint64_t slots, uint64_t payload, uint64_t gather, int64_t timeout_ns, int64_t spin_ns
) noexcept nogil:
    """As ring_wait, on the producer's side."""
    cdef Spin* spin = &ring.local.producer.spin
    cdef uint32_t waker_cpu = load_relaxed_u32(&ring.header.room_waker_cpu)
    cdef int64_t began = monotonic_ns()
    cdef int64_t deadline = -1 if timeout_ns < 0 else began + timeout_ns
    cdef bint is_over
    spin_ns = _shorter(timeout_ns, spin_ns)
    if poll_pays(spin, waker_cpu, began, spin_ns):
        is_over = _spin(&ring, 1, True, slots, payload, began + spin_ns)
        polled(spin, is_over, spin_ns)
        if is_over:
            return WAIT_READY
    return _sleep_for_room(ring, slots, payload, gather, deadline)


cdef inline WaitResult _sleep_for_room(
    Ring* ring, uint64_t slots, uint64_t payload, uint64_t gather, int64_t deadline
) noexcept nogil:
    """A consumer that dies wakes no waiter either."""
    cdef ProducerSide* side = &ring.local.producer
    # Where it is payload that is lacking, that is left to gather, too.
    cdef uint64_t piece = min(payload + (ring.arena_bytes >> 3), ring.arena_bytes) if gather > slots else payload
    cdef int64_t left = -1, now, gather_until, sleep_ns
    cdef WaitResult result = WAIT_READY
    cdef uint32_t word
    cdef int rc
    gather_until = monotonic_ns() + GATHER_NS
    while True:
        if ring.shared and coarse_ns() - side.peer_checked_ns >= PEER_CHECK_NS:
            side.peer_checked_ns = coarse_ns()
            ring_mark_dead_consumer(ring)
        now = monotonic_ns()
        if deadline >= 0:
            left = max(deadline - now, <int64_t>0)
        if now >= gather_until or left == 0 or gather < slots:
            gather, piece = slots, payload
        if _announce_room(ring, gather, piece):
            break
        if left == 0:
            result = WAIT_TIMEOUT
            break
        sleep_ns = _shorter(left, gather_until - now) if gather > slots else left
        if ring.shared:
            sleep_ns = _shorter(sleep_ns, SHARED_SLEEP_NS)
        word = load_relaxed_u32(&ring.header.room_waiting)
        rc = futex_wait(&ring.header.room_waiting, word, sleep_ns) if word & WAITING_THREAD else 0
        fetch_and_u32(&ring.header.room_waiting, ~<uint32_t>WAITING_THREAD)
        if _has_room(ring, gather, piece):
            return WAIT_READY
        if rc == EINTR:
            return WAIT_INTERRUPTED
    fetch_and_u32(&ring.header.room_waiting, ~<uint32_t>WAITING_THREAD)
    return result


cdef bint rings_arm(Ring** rings, size_t count, int64_t again_ns) noexcept nogil:
    """Asks for a signal on each `watch_fd` at the next event; whether there is something already.

    On a shared ring also after `again_ns`, unless it is 0: the producer may die, or be stopped, between two of its
    steps, or have no way to signal.
    """
    cdef Ring* ring
    cdef size_t i
    for i in range(count):
        ring = rings[i]
        # From here on the descriptor shows the death of whoever holds the producer now.
        ring_mark_dead_producer(ring)
        if ring.wake_fd >= 0:
            clear_signal(ring.wake_fd)
        if ring.timer_fd >= 0:
            set_timer(ring.timer_fd, again_ns)
    return _announce(rings, count, WAITING_FD)


cdef bint ring_arm(Ring* ring) noexcept nogil:
    return rings_arm(&ring, 1, SHARED_SLEEP_NS)


cdef void rings_disarm(Ring** rings, size_t count) noexcept nogil:
    """Ends that. A signal that came is left for the next `rings_arm` to clear, or `ring_disarm`."""
    _withdraw(rings, count, WAITING_FD)


cdef void ring_disarm(Ring* ring) noexcept nogil:
    rings_disarm(&ring, 1)
    if ring.wake_fd >= 0:
        clear_signal(ring.wake_fd)
    if ring.timer_fd >= 0:
        set_timer(ring.timer_fd, 0)


cdef void ring_signal(Ring* ring) noexcept nogil:
    """What the consumer asked for, from itself: something is there."""
    fetch_and_u32(&ring.header.waiting, ~<uint32_t>WAITING_FD)
    if ring.timer_fd >= 0:
        set_timer(ring.timer_fd, 1)
    elif ring.wake_fd >= 0:
        signal_fd(ring.wake_fd)


cdef int ring_open_watch_fd(Ring* ring) except -1:
    """What watches for a signal to an asynchronous waiter, made when it is first asked for."""
    cdef int watch, timer
    if ring.watch_fd >= 0:
        return ring.watch_fd
    if not ring.shared:
        ring.wake_fd = ring.watch_fd = new_eventfd()
        if ring.wake_fd < 0:
            raise OSError(errno, f"cannot make an eventfd: {os.strerror(errno)}")
        return ring.watch_fd
    watch = new_epoll()
    timer = new_timer()
    if (
        watch < 0
        or timer < 0
        or epoll_add(watch, timer) < 0
        or (ring.wake_fd >= 0 and epoll_add(watch, ring.wake_fd) < 0)
    ):
        wrong = errno
        for fd in (watch, timer):
            if fd >= 0:
                close_fd(fd)
        raise OSError(wrong, f"cannot make a descriptor to watch: {os.strerror(wrong)}")
    # The pidfd of a producer that was checked before joins it at the next check.
    ring.peer_claim = 0
    ring.timer_fd = timer
    ring.watch_fd = watch
    return watch


cdef int ring_copy_watch_fd(Ring* ring) except -1:
    """Another number for that descriptor, for whoever watches beside the one who has the first."""
    cdef int copy = copy_fd(ring_open_watch_fd(ring))
    if copy < 0:
        raise OSError(errno, f"cannot make a descriptor to watch: {os.strerror(errno)}")
    return copy
