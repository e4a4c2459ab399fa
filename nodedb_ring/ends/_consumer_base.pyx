# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""What every call of a consumer's end checks before it takes, and how it waits: ``ConsumerBase``."""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t

from .._ring cimport EventRing
from ..core._claims cimport ring_producer_gone, ring_release_role, ring_take_ownership
from ..core._waiting cimport IN_FUTEXES, ring_arm, ring_copy_watch_fd, ring_disarm, ring_signal, rings_wait
from ..core.kernel cimport monotonic_ns
from ..core.layout cimport OWNED_BY_PARENT, OWNED_ELSEWHERE, WAIT_READY, WAIT_REFUSED, Ownership, Ring, WaitResult
from ..core.take cimport ring_available
from .timeout cimport DEFAULT_SPIN_NS, LONGEST_SLEEP_NS

from ..errors import BusyError, ClosedError, OwnershipError
from .ownership import forked, owned_elsewhere
from .pending import run_pending

__all__ = ["ConsumerBase"]


cdef bint sleep_on(Ring** rings, size_t count, int epoll, int64_t limit, int64_t spin_ns) except -1:
    """``rings_wait`` without the GIL, which answers signals. False where the kernel refuses it, in futexes.

    It returns early or late: its caller looks at what the rings have. After a fork in a signal handler the child gets a
    ForkError. A negative limit means none.
    """
    cdef int64_t deadline = monotonic_ns() + limit if limit >= 0 else -1
    cdef int64_t left = limit, sleep_ns
    cdef WaitResult result
    while True:
        sleep_ns = LONGEST_SLEEP_NS if deadline < 0 else min(left, <int64_t>LONGEST_SLEEP_NS)
        with nogil:
            result = rings_wait(rings, count, epoll, sleep_ns, spin_ns)
        if result == WAIT_READY or result == WAIT_REFUSED:
            return result == WAIT_READY
        PyErr_CheckSignals()
        run_pending()
        if rings[0].local.alive == 0:
            # The handler has forked, and this is the child.
            raise forked("consumer", rings[0].core_id)
        if deadline >= 0:
            left = deadline - monotonic_ns()
            if left <= 0:
                return True


# Not a GC object: it takes part in no cycle, and the collector would take the ring away before __dealloc__ closes it.
@cython.no_gc
cdef class ConsumerBase:
    """Who may take events now, and the one call that may wait for them.

    Whatever its methods read and write is guarded by the GIL, and without one by a critical section of the ring, which the
    leases use too and the producer never does: C methods are called in one.
    """

    def __cinit__(self, EventRing ring not None):
        self._loop_fd = -1
        with cython.critical_section(ring):
            if ring.has_consumer:
                raise OwnershipError(f"core {ring.core_id}: its EventConsumer exists already; a ring has one reader")
            ring.has_consumer = True
        self.ring = ring
        self._ring = &ring.ring
        self._spin_ns = DEFAULT_SPIN_NS

    cdef int claim(self) except -1:
        """Claims the end for its first caller; refuses callers that may not take events now."""
        cdef Ownership ownership
        if self._closed:
            raise ClosedError(f"consumer of core {self.ring.core_id}: is closed")
        self.ring.check_consumer()
        ownership = ring_take_ownership(self._ring, &self._ring.local.consumer.owner)
        if ownership == OWNED_ELSEWHERE:
            raise owned_elsewhere("consumer", self.ring.core_id)
        if ownership == OWNED_BY_PARENT:
            raise forked("consumer", self.ring.core_id)
        return 0

    cdef int ask_for_signal(self) except -1:
        if ring_arm(self._ring):
            # It came meanwhile: the descriptor is to show it.
            ring_signal(self._ring)
        return 0

    cdef int sleep(self, int64_t limit) except -1:
        """Waits, without the GIL, for an event or a closed end; answers signals; a negative timeout means no limit."""
        self.begin_wait()
        try:
            sleep_on(&self._ring, 1, IN_FUTEXES, limit, self._spin_ns)
        finally:
            self.end_wait()
        return 0

    cdef int begin_wait(self) except -1:
        if self._is_waiting:
            raise BusyError(f"consumer of core {self.ring.core_id}: another call waits on it already; one at a time")
        self._is_waiting = True
        return 0

    cdef int end_wait(self) except -1:
        self._is_waiting = False
        self.release_role_if_over()
        return 0

    cdef int release_role_if_over(self) except -1:
        """Frees the role once the end is closed, no call waits and no lease is out: until then a successor must not come."""
        if self._closed and not self._is_waiting:
            self.ring.is_over = True
            if self._ring.local.consumer.oldest == NULL:
                ring_release_role(self._ring)
        return 0

    def _arm(self):
        """Starts an asynchronous wait: the file descriptor to watch, or None when there is no need to.

        Not the one of ``fileno()``: a loop has one reader a descriptor, and that one's is the user's.
        """
        with cython.critical_section(self.ring):
            self.begin_wait()
            try:
                if self._loop_fd < 0:
                    self._loop_fd = ring_copy_watch_fd(self._ring)
            except OSError:
                self.end_wait()
                raise
            if ring_arm(self._ring):
                self.disarm()
                return None
            return self._loop_fd

    def _disarm(self):
        with cython.critical_section(self.ring):
            self.disarm()

    cdef int disarm(self) except -1:
        ring_disarm(self._ring)
        if self._is_watched:
            # Somebody has the descriptor of fileno(), and waits on.
            self.ask_for_signal()
        return self.end_wait()

    @property
    def _is_inherited(self):
        """Whether this is a forked child: what the kernel keeps for the wait is the parent's still."""
        return self._ring.local.alive == 0

    @property
    def _is_ready(self):
        """Whether a wait would end: events, or an end that has gone."""
        with cython.critical_section(self.ring):
            self.ring.check_consumer()
            return self._closed or ring_available(self._ring, 1) != 0 or ring_producer_gone(self._ring)
