# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""The ends that one thread waits on together: ``WaitSet``."""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint64_t

from ..core._claims cimport thread_token
from ..core._waiting cimport (
    AT_GATE,
    IN_FUTEXES,
    MOST_FUTEXES,
    ring_is_ready,
    ring_open_watch_fd,
    rings_arm,
    rings_check_producers,
    rings_disarm,
    rings_have_gate,
    rings_slice_ns,
)
from ..core.atomic cimport fetch_add, load_relaxed, store_relaxed
from ..core.kernel cimport close_fd, epoll_add, monotonic_ns, new_epoll
from ..core.layout cimport SOUND, ConsumerSide, Ring
from ..ends._consumer cimport EventConsumer
from ..ends._consumer_base cimport ConsumerBase, sleep_on
from ..ends.timeout cimport limit_ns

import os
import time

from ..errors import ArgumentError
from ..recovery.follower import Follower

__all__ = ["WaitSet"]

most_futexes = MOST_FUTEXES
"""The most rings to sleep on in a futex each; 1 once the kernel has refused ``futex_waitv``."""
cdef uint64_t _last_number = 0
uses_gates = True
"""Whether rings of one bus are slept on in one futex. The tests of the other ways say no."""

cdef enum:
    # How often followers are asked whether a number was dropped, or the log has more, of which no ring wakes anybody. As
    # seldom as their own waits do; and seldom enough for so many that all of them take 1 % of a core at most.
    ASK_NS = 100000000
    ASK_NS_PER_FOLLOWER = 1000000
    # The same where there is no ring: the log alone says that there is more.
    ASK_LOG_NS = 20000000
    ASK_NS_PER_LOG = 4000000


@cython.final
cdef class WaitSet:
    """Consumers and followers, each once: which of them are ready, and one sleep on all of them.

    Parameters
    ----------
    ends : iterable of EventConsumer or Follower

    Raises
    ------
    TypeError
        It is an end itself, or something in it is none.
    ArgumentError
        An end is in it twice, or a follower and its own consumer are.
    """

    def __cinit__(self, ends):
        self._epoll = -1
        self._slice_ns = -1
        self._spin_ns = -1
        if isinstance(ends, (EventConsumer, Follower)):
            raise TypeError(f"ends: must be a list of consumers and followers, not one {type(ends).__name__}: pass [end]")
        self.ends = list(ends)
        self._consumers = []
        self._rings = <Ring**>PyMem_Malloc(max(<size_t>len(self.ends), <size_t>1) * sizeof(Ring*))
        if self._rings == NULL:
            raise MemoryError("no memory for the rings of a wait")
        self._list()

    def __dealloc__(self):
        if self._epoll >= 0:
            close_fd(self._epoll)
        PyMem_Free(self._rings)

    cdef int _list(self) except -1:
        """Finds the ring of each end.

        Each consumer is marked with a number of this set's own. A set that another thread makes of the same ends at this
        moment may take the mark away, and then an end that is here twice is a BusyError of the wait.
        """
        cdef ConsumerBase consumer
        cdef uint64_t number = fetch_add(&_last_number, 1) + 1
        cdef Py_ssize_t place, with_ring = 0
        cdef set logs = set()
        for place in range(len(self.ends)):
            end = self.ends[place]
            if type(end) is EventConsumer:
                consumer = <ConsumerBase>end
            elif isinstance(end, Follower):
                if end._consumer is None:
                    if end in logs:
                        raise ArgumentError(f"ends[{place}]: the follower of core {end.core_id} is in the list twice")
                    logs.add(end)
                    continue
                consumer = <ConsumerBase?>end._consumer
                with_ring += 1
            else:
                raise TypeError(
                    f"ends[{place}]: must be an EventConsumer or a Follower, not {type(end).__name__}; those of a bus are"
                    " its consumers()"
                )
            if load_relaxed(&consumer._listed_in) == number:
                raise ArgumentError(
                    f"ends[{place}]: the consumer of core {consumer.ring.core_id} is in the list twice, itself or as a"
                    " follower's; pass each once"
                )
            self._consumers.append(consumer)
            store_relaxed(&consumer._listed_in, number)
            self._rings[self._count] = consumer._ring
            self._count += 1
            self._is_any_shared |= consumer._ring.shared != 0
            if self._spin_ns < 0 or consumer._spin_ns < self._spin_ns:
                self._spin_ns = consumer._spin_ns
        self._has_gate = uses_gates and rings_have_gate(self._rings, self._count)
        if with_ring or logs:
            self._slice_ns = max(
                <int64_t>(ASK_LOG_NS if logs else ASK_NS),
                <int64_t>with_ring * ASK_NS_PER_FOLLOWER + <int64_t>len(logs) * ASK_NS_PER_LOG,
            )
        return 0

    # ---- who may wait ----------------------------------------------------------------------------------------------

    cdef int claim(self) except -1:
        """Makes this thread the owner of all ends that have none; refuses another thread's before it claims any.

        What is closed or corrupt is not refused: it is ready, and its next call says so.
        """
        cdef uint64_t token = thread_token()
        cdef list claimed = None
        cdef ConsumerBase consumer
        cdef ConsumerSide* side
        for consumer in self._consumers:
            side = &consumer._ring.local.consumer
            if load_relaxed(&side.owner) == token:
                continue
            try:
                with cython.critical_section(consumer.ring):
                    if consumer._closed or side.corrupt != SOUND:
                        continue
                    if side.owner == 0 and consumer._ring.local.alive:
                        claimed = [] if claimed is None else claimed
                        claimed.append(consumer)
                    consumer.claim()
            except BaseException:
                self._disclaim(claimed)
                raise
        return 0

    cdef int _disclaim(self, list claimed) except -1:
        """Leaves the ends that this thread has just claimed to whoever uses them next."""
        cdef uint64_t token = thread_token()
        cdef ConsumerBase consumer
        for consumer in claimed or ():
            with cython.critical_section(consumer.ring):
                if consumer._ring.local.consumer.owner == token and not consumer._is_waiting:
                    store_relaxed(&consumer._ring.local.consumer.owner, 0)
        return 0

    # ---- which are ready -------------------------------------------------------------------------------------------

    cdef list candidates(self):
        """The ends that are ready, and all followers, which have to be asked; in the order in which they were given."""
        cdef list found = []
        cdef Ring* ring
        rings_check_producers(self._rings, self._count)
        for end in self.ends:
            if type(end) is EventConsumer:
                ring = (<ConsumerBase>end)._ring
                if not ring_is_ready(ring) and ring.local.consumer.corrupt == SOUND:
                    continue
            found.append(end)
        return found

    cdef list ready(self):
        """The ends that have something to hand out or have ended."""
        cdef list found = self.candidates()
        if self._slice_ns < 0:
            return found
        return [end for end in found if type(end) is EventConsumer or end._has_more()]

    cdef list until_ready(self, int64_t limit):
        """The same, once there is one or `limit` ns have passed, of which a negative number means no limit."""
        cdef int64_t deadline = -1, left = limit
        cdef list found = self.ready()
        if found or limit == 0 or not self.ends:
            return found
        if limit > 0:
            deadline = monotonic_ns() + limit
        while True:
            # Once more: a signal handler, or another thread, may have handed an end on.
            self.claim()
            self._sleep(left if self._slice_ns < 0 or 0 <= left < self._slice_ns else self._slice_ns)
            found = self.ready()
            if found:
                return found
            if deadline >= 0:
                left = deadline - monotonic_ns()
                if left <= 0:
                    return found

    def wait(self, timeout):
        """``wait``."""
        cdef int64_t limit = limit_ns(timeout)
        self.claim()
        return self.until_ready(limit)

    # ---- one sleep on all ------------------------------------------------------------------------------------------

    cdef int _sleep(self, int64_t limit) except -1:
        """Sleeps, without the GIL, until a ring is ready, or about that long; answers signals."""
        global most_futexes
        cdef size_t begun
        cdef bint is_done = False
        if self._count == 0:
            time.sleep(limit / 1e9)
            return 0
        begun = self._begin()
        try:
            if self._has_gate:
                is_done = sleep_on(self._rings, self._count, AT_GATE, limit, self._spin_ns)
            elif self._count == 1 or <Py_ssize_t>self._count <= <Py_ssize_t>most_futexes:
                is_done = sleep_on(self._rings, self._count, IN_FUTEXES, limit, self._spin_ns)
                if not is_done:
                    most_futexes = 1
            if not is_done:
                self._open_epoll()
                sleep_on(self._rings, self._count, self._epoll, limit, self._spin_ns)
        finally:
            self._end(begun)
        return 0

    cdef int _begin(self) except -1:
        """Marks all consumers as waited on, so that each is one call's alone and its role is kept; all, or none."""
        cdef size_t begun = 0
        cdef ConsumerBase consumer
        try:
            for consumer in self._consumers:
                with cython.critical_section(consumer.ring):
                    consumer.begin_wait()
                begun += 1
        except BaseException:
            self._end(begun)
            raise
        return begun

    cdef int _end(self, size_t begun) except -1:
        cdef ConsumerBase consumer
        cdef size_t i
        for i in range(begun):
            consumer = <ConsumerBase>self._consumers[i]
            with cython.critical_section(consumer.ring):
                if self._epoll >= 0 and consumer._is_watched and consumer._ring.local.alive:
                    # Somebody has the descriptor of fileno(), and waits on.
                    consumer.ask_for_signal()
                consumer.end_wait()
        return 0

    cdef int _open_epoll(self) except -1:
        cdef ConsumerBase consumer
        cdef int epoll, wrong
        if self._epoll >= 0:
            return 0
        for consumer in self._consumers:
            with cython.critical_section(consumer.ring):
                ring_open_watch_fd(consumer._ring)
        epoll = new_epoll()
        wrong = errno
        for consumer in self._consumers:
            if epoll >= 0 and epoll_add(epoll, consumer._ring.watch_fd) < 0:
                wrong = errno
                close_fd(epoll)
                epoll = -1
        if epoll < 0:
            raise OSError(wrong, f"cannot make a descriptor to watch: {os.strerror(wrong)}")
        self._epoll = epoll
        return 0

    # ---- on an event loop ------------------------------------------------------------------------------------------

    def to_ask(self):
        """``candidates``, of which the caller asks the followers, for the loop's own thread."""
        self.claim()
        return self.candidates()

    def arm(self):
        """Starts an asynchronous wait. The descriptor to watch, -1 if there is no ring; None if a ring is ready."""
        cdef size_t begun
        if self._count == 0:
            return -1
        begun = self._begin()
        try:
            self._open_epoll()
        except OSError:
            self._end(begun)
            raise
        if rings_arm(self._rings, self._count, 0):
            self.disarm()
            return None
        return self._epoll

    def disarm(self):
        """Ends it."""
        if self._count:
            rings_disarm(self._rings, self._count)
            self._end(self._count)

    @property
    def longest_sleep(self):
        """Seconds after which an asynchronous wait looks at the ends again; None: the rings wake it in any case."""
        cdef int64_t longest = self._slice_ns
        if self._is_any_shared and (longest < 0 or rings_slice_ns(self._count) < longest):
            longest = rings_slice_ns(self._count)
        return None if longest < 0 else longest / 1e9

    @property
    def is_inherited(self):
        """Whether this is a forked child: what the kernel keeps for the wait is the parent's still."""
        return self._count != 0 and self._rings[0].local.alive == 0
