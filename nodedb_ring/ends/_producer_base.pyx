# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
# distutils: extra_compile_args = -O3
"""What every call of a producer's end checks before it emits, and logs after it."""

import logging

cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from .._ring cimport EventRing
from ..batch._row_block cimport BufferPool
from ..core._claims cimport ring_take_ownership
from ..core.atomic cimport load_relaxed, load_relaxed_u32
from ..core.kernel cimport monotonic_ns
from ..core.layout cimport (
    LOG_DISCONNECT,
    LOG_OVERFLOW_BEGAN,
    LOG_OVERFLOW_ENDED,
    OWNED_BY_PARENT,
    OWNED_ELSEWHERE,
    PRESSURE_NORMAL,
    PRESSURE_SUSPENDED,
    PRESSURE_THROTTLED,
    Ownership,
    ProducerSide,
    RingHeader,
)

from ..core.backpressure import PressureState
from ..errors import BusyError, ClosedError, OwnershipError
from .logger import log_safely
from .ownership import forked, owned_elsewhere

__all__ = ["ProducerBase"]

cdef enum:
    SECOND_NS = 1000000000

cdef tuple _STATES = tuple(PressureState)


# Not a GC object: it takes part in no cycle, and the collector would take the ring away before __dealloc__ closes it.
@cython.no_gc
cdef class ProducerBase:
    """Who may emit now, and what has been logged: what ``EventProducer`` and ``Reservation`` share.

    Whatever its methods read and write is guarded by the GIL, and without one by a critical section of this object: C
    methods are called in one.
    """

    def __cinit__(self, EventRing ring not None):
        with cython.critical_section(ring):
            if ring.has_producer:
                raise OwnershipError(f"core {ring.core_id}: its EventProducer exists already; a ring has one writer")
            ring.has_producer = True
        self.ring = ring
        self._ring = &ring.ring
        self._pool = BufferPool.__new__(BufferPool)

    cdef int claim(self) except -1:
        """Claims the end for its first caller; refuses callers that may not emit now."""
        cdef Ownership ownership
        if self._status & END_CLOSED:
            raise ClosedError(f"producer of core {self.ring.core_id}: is closed")
        self.ring.check_producer()
        ownership = ring_take_ownership(self._ring, &self._ring.local.producer.owner)
        if ownership == OWNED_ELSEWHERE:
            raise owned_elsewhere("producer", self.ring.core_id)
        if ownership == OWNED_BY_PARENT:
            raise forked("producer", self.ring.core_id)
        if self._status & END_RESERVED:
            raise BusyError(f"producer of core {self.ring.core_id}: has an open reservation; leave its with block first")
        return 0

    cdef int log_disconnect(self) except -1:
        """Logs that the consumer has gone, once a consumer: on a shared ring each claim of that end is another."""
        cdef uint32_t claim = load_relaxed_u32(&self._ring.header.consumer_claim)
        if self._disconnect_logged != claim and self._ring.local.alive:
            self._disconnect_logged = claim
            log_safely(
                logging.WARNING, "core %d: the consumer has gone; events are dropped from here on", self.ring.core_id,
                extra=self._fields(),
            )
        return 0

    def _fields(self):
        cdef RingHeader* header = self._ring.header
        return {
            "core": self.ring.core_id,
            "utilization": self.ring.utilization,
            "dropped": load_relaxed(&header.dropped_full) + load_relaxed(&header.dropped_disconnected),
        }

    cdef int queue_pressure_log(self) except -1:
        """Has the state logged if the log's last is another one: each at most once a second, but for the return to NORMAL."""
        cdef ProducerSide* side = &self._ring.local.producer
        cdef int64_t now
        self._pressure_log_due = False
        if side.pressure == self._logged_pressure:
            return 0
        if side.pressure != PRESSURE_NORMAL:
            now = monotonic_ns()
            if 0 < self._logged_pressure_ns[side.pressure] and now - self._logged_pressure_ns[side.pressure] < SECOND_NS:
                # The next call that waits or reads the state logs it, or close().
                self._pressure_log_due = True
                return 0
        side.pending_log |= <uint32_t>1 << side.pressure
        return 0

    cdef int write_pending_log(self) except -1:
        """Logs what emitting has left to log. The ring is consistent by now: a handler of the log may emit in its turn."""
        cdef ProducerSide* side = &self._ring.local.producer
        cdef uint32_t pending = side.pending_log
        cdef uint64_t count, first, last
        cdef int64_t now
        side.pending_log = 0
        self.ring.check_producer()
        if pending & (LOG_OVERFLOW_BEGAN | LOG_OVERFLOW_ENDED):
            now = monotonic_ns()
            if not self._overflow_open:
                if self._overflow_logged_ns != 0 and now - self._overflow_logged_ns < SECOND_NS:
                    # Too soon after the last: logged with the next, in one sum.
                    side.pending_log |= pending & (LOG_OVERFLOW_BEGAN | LOG_OVERFLOW_ENDED)
                else:
                    self._overflow_open = True
                    self._overflow_logged_ns = now
                    log_safely(
                        logging.WARNING, "core %d: the ring overflows; events are dropped from sequence %d on",
                        self.ring.core_id, side.overflow_first, extra=self._fields(),
                    )
            if self._overflow_open and side.overflowing == 0:
                count, first, last = side.overflow_count, side.overflow_first, side.overflow_last
                side.overflow_count = 0
                self._overflow_open = False
                # Not all from the first to the last: between them some may have been enqueued.
                log_safely(
                    logging.WARNING,
                    "core %d: the overflow is over; %d of the events from sequence %d to %d were dropped",
                    self.ring.core_id, count, first, last, extra=self._fields(),
                )
        if pending & 1 << <int>PRESSURE_THROTTLED:
            self._log_state(PressureState.THROTTLED)
        if pending & 1 << <int>PRESSURE_SUSPENDED:
            self._log_state(PressureState.SUSPENDED)
        if pending & 1 << <int>PRESSURE_NORMAL:
            self._log_state(PressureState.NORMAL)
        if pending & LOG_DISCONNECT:
            self.log_disconnect()
        return 0

    def _log_state(self, state):
        level = logging.WARNING if state is PressureState.SUSPENDED else logging.INFO
        self._logged_pressure = _STATES.index(state)
        self._logged_pressure_ns[self._logged_pressure] = monotonic_ns()
        log_safely(
            level, "core %d: the ring is %s at %d %%", self.ring.core_id, str(state).lower(), self.ring.utilization,
            extra=self._fields(),
        )
