# cython: language_level=3, auto_pickle=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""What two processes need to be measured: a meeting point, the round trip of a cache line, and the bare futex.

Everything works on a shared page that both have mapped. The futexes' words lie 512 bytes apart behind the ping-pong's.
"""

import numpy as np

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "ping_pong.h" nogil:
    ctypedef struct PingPong "ping_pong":
        pass
    int64_t now "ping_pong_now"()
    int meet_at "ping_pong_meet"(PingPong* ping_pong, int64_t patience_ns)
    int64_t ping_at "ping_pong_ping"(PingPong* ping_pong, uint32_t trips)
    void pong_at "ping_pong_pong"(PingPong* ping_pong, uint32_t trips)
    uint32_t load_acquire "__atomic_load_n"(uint32_t* word, int order)
    void store_release "__atomic_store_n"(uint32_t* word, uint32_t value, int order)
    int ACQUIRE "__ATOMIC_ACQUIRE"
    int RELEASE "__ATOMIC_RELEASE"

cdef extern from *:
    """
    #include <linux/futex.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    static void futex_wait(uint32_t *word, uint32_t seen) { syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0); }
    static void futex_wake(uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0); }
    """
    void futex_wait(uint32_t* word, uint32_t seen) nogil
    void futex_wake(uint32_t* word) nogil

cdef enum:
    THERE = 512
    BACK = 1024
    LEAST_BYTES = 2048
    PATIENCE_S = 60


cdef uint8_t* page_of(uint8_t[::1] shared) except NULL:
    if shared.shape[0] < LEAST_BYTES:
        raise ValueError(f"a shared page of {shared.shape[0]} bytes: must have at least {LEAST_BYTES}")
    return &shared[0]


def meet(uint8_t[::1] shared):
    """Returns when both processes have called it."""
    cdef PingPong* ping_pong = <PingPong*>page_of(shared)
    cdef int met
    with nogil:
        met = meet_at(ping_pong, <int64_t>PATIENCE_S * 1000000000)
    if not met:
        raise TimeoutError(f"the other process did not come within {PATIENCE_S} s")


def ping(uint8_t[::1] shared, uint32_t trips):
    """Nanoseconds that a line takes to the other process and back, while that runs ``pong``."""
    cdef PingPong* ping_pong = <PingPong*>page_of(shared)
    cdef int64_t best
    if trips == 0 or trips % 100:
        raise ValueError(f"trips {trips}: must be a multiple of 100")
    with nogil:
        best = ping_at(ping_pong, trips)
    return best / 100.0


def pong(uint8_t[::1] shared, uint32_t trips):
    """The other side of ``ping``."""
    cdef PingPong* ping_pong = <PingPong*>page_of(shared)
    with nogil:
        pong_at(ping_pong, trips)


cdef void wait_for(uint32_t* word, uint32_t value) noexcept nogil:
    cdef uint32_t seen = load_acquire(word, ACQUIRE)
    while seen != value:
        futex_wait(word, seen)
        seen = load_acquire(word, ACQUIRE)


cdef void store_and_wake(uint32_t* word, uint32_t value) noexcept nogil:
    store_release(word, value, RELEASE)
    futex_wake(word)


def futex_ping(uint8_t[::1] shared, uint32_t trips):
    """Nanoseconds of each of `trips` from futex to futex and back, with no poll before a sleep."""
    cdef uint8_t* page = page_of(shared)
    cdef uint32_t* there = <uint32_t*>(page + THERE)
    cdef uint32_t* back = <uint32_t*>(page + BACK)
    cdef uint32_t base = there[0], i
    cdef int64_t start
    took = np.empty(trips, np.int64)
    cdef int64_t[::1] each = took
    with nogil:
        for i in range(1, trips + 1):
            start = now()
            store_and_wake(there, base + i)
            wait_for(back, base + i)
            each[i - 1] = now() - start
    return took


def futex_pong(uint8_t[::1] shared, uint32_t trips):
    """The other side of ``futex_ping``. Both must have met before, and meet after."""
    cdef uint8_t* page = page_of(shared)
    cdef uint32_t* there = <uint32_t*>(page + THERE)
    cdef uint32_t* back = <uint32_t*>(page + BACK)
    cdef uint32_t base = back[0], i
    with nogil:
        for i in range(1, trips + 1):
            wait_for(there, base + i)
            store_and_wake(back, base + i)
