# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
# distutils: extra_compile_args = -O3
"""The producer's end of a ring: ``EventProducer``."""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from .._ring cimport EventRing
from ..batch._event_batch cimport EventBatch, block_of
from ..batch._event cimport WriteEvent
from ..batch._event_rows cimport push_event
from ..batch._row_block cimport RowBlock, root_of
from ..core._bulk cimport ring_drop_rows, ring_fit_packed, ring_fit_rows, ring_too_large
from ..core._claims cimport ring_mark_dead_consumer, ring_release_role, thread_token
from ..core._room cimport ring_make_room, ring_observe, ring_occupancy, ring_percent
from ..core._waiting cimport ring_wait_room
from ..core._waking cimport ring_close_producer
from ..core.atomic cimport load_acquire, load_relaxed, store_relaxed, unlikely
from ..core.kernel cimport monotonic_ns
from ..core.layout cimport (
    LOG_OVERFLOW_ENDED,
    LOG_PRESSURE,
    PRESSURE_NORMAL,
    PRESSURE_SUSPENDED,
    PRESSURE_THROTTLED,
    PUSH_DONE,
    PUSH_FULL,
    PUSH_TOO_LARGE,
    SOUND,
    WAIT_READY,
    WAIT_TIMEOUT,
    EventRow,
    ProducerSide,
    PushResult,
    Ring,
    RingHeader,
    WaitResult,
)
from ..core.push cimport ring_push_span
from ..core.row cimport row_is_packed
from ._producer_base cimport END_CLOSED, END_RESERVED, ProducerBase
from ._reservation cimport Reservation
from .timeout cimport DEFAULT_SPIN_NS, LONGEST_SLEEP_NS, limit_ns

from ..core.backpressure import PressureState
from ..errors import BusyError, ClosedError, EventTooLargeError
from .ownership import forked
from .pending import run_pending
from .stats import ProducerStats

__all__ = ["EventProducer", "producer_stats"]

cdef enum:
    # A batch that waits for room first asks for one part of the ring in so many.
    GATHER = 8

cdef tuple _STATES = tuple(PressureState)


def producer_stats(EventRing ring not None):
    """The counters of a ring's producer, whichever process holds that end: a ``ProducerStats``."""
    cdef RingHeader* header = ring.ring.header
    cdef uint64_t slots, payload
    cdef uint64_t full = load_relaxed(&header.dropped_full)
    cdef uint64_t disconnected = load_relaxed(&header.dropped_disconnected)
    cdef uint64_t slots_high = load_relaxed(&header.slots_high_water)
    cdef uint64_t bytes_high = load_relaxed(&header.bytes_high_water)
    ring_occupancy(&ring.ring, &slots, &payload)
    return ProducerStats(
        emitted=load_acquire(&header.published),
        dropped=full + disconnected,
        dropped_full=full,
        dropped_disconnected=disconnected,
        first_dropped_sequence=load_relaxed(&header.first_dropped) if full + disconnected else None,
        last_dropped_sequence=load_relaxed(&header.last_dropped) if full + disconnected else None,
        emitted_sequence=ring.emitted_sequence,
        normal_transitions=load_relaxed(&header.transitions[<int>PRESSURE_NORMAL]),
        throttle_transitions=load_relaxed(&header.transitions[<int>PRESSURE_THROTTLED]),
        suspend_transitions=load_relaxed(&header.transitions[<int>PRESSURE_SUSPENDED]),
        slots_in_use=slots,
        bytes_in_use=payload,
        slots_high_water=slots_high,
        bytes_high_water=bytes_high,
        high_water_mark=ring_percent(&ring.ring, slots_high, bytes_high),
    )


@cython.final
@cython.no_gc
cdef class EventProducer(ProducerBase):
    """The end of a ring that a Data Plane core emits into. ``create_event_bus`` and ``EventBus.producer`` make it.

    Thread safety
    -------------
    It belongs to the first thread that emits; ``bind()`` hands it on. Properties, ``stats()`` and ``close()`` may be
    called from any thread.
    """

    def __dealloc__(self):
        # A collected producer has gone as a closed one has. Nothing is logged, and a forked child touches nothing.
        if self._ring != NULL and not self._status & END_CLOSED and self._ring.local.alive:
            ring_close_producer(self._ring)

    def __reduce__(self):
        raise TypeError(
            "an EventProducer is a claim of this process, and cannot be pickled: pass the EventBus, and call its "
            "producer() in the other process"
        )

    def __enter__(self):
        return self

    def __exit__(self, exc_type, exc_value, traceback):
        self.close()

    @cython.critical_section
    def emit(self, WriteEvent event not None):
        """Enqueues one event: True, or False if it was dropped and counted. Never blocks.

        Raises
        ------
        EventTooLargeError
            Its payload is larger than the whole arena.
        OwnershipError, ClosedError
            The end is another thread's, or closed. Nothing was tried.
        CorruptRingError
            Something else has written to the shared block.
        """
        cdef PushResult result
        if unlikely(self._ring.local.producer.owner != thread_token() or self._status != 0):
            self.claim()
        if unlikely(event.row.op == 0):
            raise TypeError("a WriteEvent that __init__ never made has no fields")
        result = push_event(self._ring, event)
        if unlikely(self._ring.local.producer.pending_log != 0):
            self.write_pending_log()
        if unlikely(result == PUSH_TOO_LARGE):
            raise self._too_large(event.row.span_length)
        return result == PUSH_DONE

    def emit_batch(self, batch, timeout=0.0):
        """Enqueues the events of an ``EventBatch`` in order; returns how many, a prefix. Never blocks unless asked to.

        The prefix ends at the first event that lacks a slot or payload room; the rest is dropped and counted.

        Parameters
        ----------
        batch : EventBatch
        timeout : float or None, default 0.0
            Seconds in all to wait for room before the rest is dropped; None waits until all is enqueued or the consumer
            has gone. The batch may be larger than the ring.

        What one that may wait does to the pressure is counted; of that only the state that it ends in is logged, and that
        at most once a second, with the return from it. A wait releases the GIL. A signal handler that raises
        ends it, and so does ``close()`` from another thread: what was enqueued is, the rest was neither tried nor
        counted, and ``emitted_sequence`` distinguishes the two.

        Raises
        ------
        EventTooLargeError
            The payload of one of the events is larger than the whole arena: nothing was enqueued.
        OwnershipError, ClosedError
            As for ``emit``; ClosedError, too, if the batch is a lease's that ends meanwhile.
        BusyError
            It would wait, and another call waits for room already, whose signal handler this is.
        """
        cdef RowBlock block
        cdef int64_t limit = limit_ns(timeout)
        cdef int64_t deadline = monotonic_ns() + limit if limit > 0 else limit
        if unlikely(type(batch) is not EventBatch):
            # Another's end is refused first, as by the other calls.
            with cython.critical_section(self):
                if self._ring.local.producer.owner != thread_token() or self._status != 0:
                    self.claim()
            raise TypeError(f"{batch!r}: must be an EventBatch; EventBatch.from_events makes one of events")
        block = block_of(batch)
        # Of both: without the GIL another thread could end the lease that the batch is of.
        with cython.critical_section(self, root_of(block)):
            return self.emit_block(block, limit, deadline)

    cdef uint64_t emit_block(self, RowBlock block, int64_t limit, int64_t deadline) except? 0xFFFFFFFFFFFFFFFF:
        """``emit_batch``, in a critical section of the producer and of the block."""
        cdef PushResult why
        cdef uint64_t done = 0, need, end
        cdef bint packed, may_wait = limit != 0
        cdef ProducerSide* side = &self._ring.local.producer
        cdef uint32_t pending_before
        if unlikely(side.owner != thread_token() or self._status != 0):
            self.claim()
        block.check_open()
        if block.count == 1 and limit == 0 and row_is_packed(block.rows, &need):
            # Goes in as one event does: what prepares for many takes longer than the event.
            return self.emit_row(block.rows, block.bytes, need)
        need = ring_too_large(self._ring, block.rows, block.count, block.payload_bytes)
        if need != 0:
            raise self._too_large(need)
        packed = block.is_packed(&end)
        pending_before = side.pending_log & LOG_PRESSURE
        while True:
            if packed:
                done += ring_fit_packed(self._ring, block.rows + done, block.count - done, block.bytes, end, &why)
            else:
                done += ring_fit_rows(self._ring, block.rows + done, block.count - done, block.bytes, &why)
            if limit != 0:
                # A batch that waits for room keeps the ring full by intent. That is counted, and not logged at every turn.
                side.pending_log &= ~<uint32_t>LOG_PRESSURE
            if done == block.count or why != PUSH_FULL or limit == 0:
                break
            if unlikely(side.pending_log != 0):
                self.write_pending_log()
                block.check_open()
            row_is_packed(block.rows + done, &need)
            if (
                not self.wait_until(1, need, min(block.count - done, self._ring.capacity // GATHER), deadline)
                or 0 < deadline <= monotonic_ns()
            ):
                limit = 0
            if unlikely(self._status != 0):
                if self._status & END_CLOSED:
                    return done
                self.claim()
            # Whoever ran meanwhile may have ended the lease that the batch is of.
            block.check_open()
        if done < block.count and side.corrupt == SOUND:
            ring_drop_rows(self._ring, block.rows, done, block.count, why)
        side.pending_log |= pending_before
        if may_wait:
            # The state that it ends in is logged, if the last one logged is another.
            self.queue_pressure_log()
        if unlikely(side.pending_log != 0):
            self.write_pending_log()
        return done

    cdef uint64_t emit_row(self, const EventRow* row, const uint8_t* payload, uint64_t need) except? 0xFFFFFFFFFFFFFFFF:
        """One row whose fields lie back to back, `need` bytes of them; how many went in."""
        cdef PushResult result = ring_push_span(self._ring, row, payload, row.field[0].offset, need)
        if unlikely(self._ring.local.producer.pending_log != 0):
            self.write_pending_log()
        if unlikely(result == PUSH_TOO_LARGE):
            raise self._too_large(need)
        return result == PUSH_DONE

    @cython.critical_section
    cdef int emit_rows(self, RowBlock block, uint64_t start, uint64_t stop, uint64_t* done) except -1:
        cdef PushResult why
        cdef uint64_t end, count = stop - start
        cdef ProducerSide* side = &self._ring.local.producer
        done[0] = 0
        if unlikely(side.owner != thread_token() or self._status != 0):
            self.claim()
        end = block.payload_bytes if stop == block.count else block.rows[stop].field[0].offset
        done[0] = ring_fit_packed(self._ring, block.rows + start, count, block.bytes, end, &why)
        if done[0] < count and side.corrupt == SOUND:
            ring_drop_rows(self._ring, block.rows + start, done[0], count, why)
        if unlikely(side.pending_log != 0):
            self.write_pending_log()
        return 0

    @cython.critical_section
    def wait_for_room(self, n=1, timeout=None, *, payload_bytes=0):
        """Waits until the ring has room for `n` events; whether it has. What it has, it keeps: only this end takes room.

        Parameters
        ----------
        n : int, 1 to ``capacity``
        timeout : float or None, default None
            Seconds to wait; None waits until there is room or the consumer has gone.
        payload_bytes : int, default 0
            Of all of the events together: bytes of arena, in one piece.

        False, too, once the consumer has gone, or when ``close()`` is called meanwhile from another thread. It releases
        the GIL to wait, and answers signals.

        Raises
        ------
        ValueError, EventTooLargeError
            More than the ring could ever have.
        OwnershipError, ClosedError
            As for ``emit``.
        BusyError
            Another call waits for room already, whose signal handler this is.
        """
        cdef int64_t limit = limit_ns(timeout)
        if not 1 <= n <= self.ring.capacity:
            raise ValueError(f"n {n}: must be in 1 .. {self.ring.capacity}, the ring's capacity")
        if payload_bytes < 0:
            raise ValueError(f"payload_bytes {payload_bytes}: must not be negative")
        if payload_bytes > self.ring.arena_bytes:
            raise self._too_large(payload_bytes)
        self.claim()
        return self.wait_until(n, payload_bytes, n, monotonic_ns() + limit if limit > 0 else limit)

    cdef bint wait_until(self, uint64_t slots, uint64_t payload, uint64_t gather, int64_t deadline) except -1:
        """Waits for room without the GIL; returns whether there is. Answers signals; a negative deadline means none."""
        cdef int64_t left = deadline, sleep_ns
        cdef WaitResult result
        if self._is_waiting:
            raise BusyError(f"producer of core {self.core_id}: another call waits for room already; one at a time")
        if self._status & END_CLOSED:
            # By a handler of the log, say: then the role is perhaps a successor's.
            return False
        if unlikely(self._ring.local.producer.owner != thread_token()):
            # Bound to another thread meanwhile, or this is a forked child, by such a handler too.
            self.claim()
        self._is_waiting = True
        try:
            while deadline != 0:
                if deadline > 0:
                    left = max(deadline - monotonic_ns(), <int64_t>0)
                sleep_ns = <int64_t>LONGEST_SLEEP_NS if left < 0 else min(left, <int64_t>LONGEST_SLEEP_NS)
                with nogil:
                    result = ring_wait_room(self._ring, slots, payload, gather, sleep_ns, DEFAULT_SPIN_NS)
                if result == WAIT_READY:
                    break
                PyErr_CheckSignals()
                run_pending()
                if unlikely(self._ring.local.alive == 0):
                    # The handler has forked, and this is the child.
                    raise forked("producer", self.core_id)
                if self._status & END_CLOSED or (result == WAIT_TIMEOUT and left == sleep_ns):
                    break
        finally:
            self._is_waiting = False
            if self._status & END_CLOSED and self._ring.local.alive:
                ring_release_role(self._ring)
        if self._status & END_CLOSED:
            return False
        self.ring.check_producer()
        return ring_make_room(self._ring, slots, payload) and not ring_mark_dead_consumer(self._ring)

    def reserve(self, n, payload_bytes=0):
        """Room for up to `n` events, to fill in place of making them: a context manager, see ``Reservation``.

        Parameters
        ----------
        n : int, at least 1
        payload_bytes : int, default 0
            Size of the one block of payload that all of the rows' offsets are relative to.

        Raises
        ------
        EventTooLargeError
            `payload_bytes` is more than the whole arena.
        """
        if n < 1:
            raise ValueError(f"n {n}: must be at least 1")
        if payload_bytes < 0:
            raise ValueError(f"payload_bytes {payload_bytes}: must not be negative")
        if payload_bytes > self.ring.arena_bytes:
            raise self._too_large(payload_bytes)
        return Reservation(self, min(n, self.ring.capacity), payload_bytes)

    def _too_large(self, size):
        return EventTooLargeError(
            f"payload of {size} bytes: the arena of core {self.core_id} has {self.ring.arena_bytes}; "
            "make the bus with a larger arena_bytes"
        )

    @cython.critical_section
    def bind(self):
        """Makes the calling thread the owner.

        Raises
        ------
        OwnershipError
            A reservation is open, or this process inherited the end by fork.
        """
        if self._ring.local.alive == 0:
            raise forked("producer", self.core_id)
        if self._status & END_CLOSED:
            raise ClosedError(f"producer of core {self.core_id}: is closed")
        if self._status & END_RESERVED:
            raise BusyError(f"producer of core {self.core_id}: has an open reservation; leave its with block first")
        if self._is_waiting:
            raise BusyError(f"producer of core {self.core_id}: a call waits for room on it; bind when it has returned")
        self.ring.check_producer()
        store_relaxed(&self._ring.local.producer.owner, thread_token())

    @cython.critical_section
    def close(self):
        """Says that nothing follows. The consumer drains what there is, and then sees the disconnect. May be repeated."""
        if self._status & END_CLOSED:
            return
        self._status |= END_CLOSED
        if self._ring.local.alive == 0:
            return
        ring_close_producer(self._ring)
        if not self._is_waiting:
            ring_release_role(self._ring)
        # An overflow that the log has seen begin ends here at the latest.
        if self._ring.local.producer.overflowing:
            self._ring.local.producer.overflowing = 0
            self._ring.local.producer.pending_log |= LOG_OVERFLOW_ENDED
        # And what was held back to keep to a pair a second is logged now or never.
        self._overflow_logged_ns = 0
        if self._pressure_log_due:
            self._logged_pressure_ns[:] = [0, 0, 0]
            self.queue_pressure_log()
        # That the block is corrupt has been raised, or no longer matters.
        if self._ring.local.producer.pending_log != 0 and self._ring.local.producer.corrupt == SOUND:
            self.write_pending_log()

    def stats(self):
        """The accounts of this producer as a ``ProducerStats``."""
        return producer_stats(self.ring)

    @property
    def core_id(self):
        """The Data Plane core that this end belongs to."""
        return self.ring.core_id

    @property
    def capacity(self):
        """Events that the ring holds, each slot usable: a power of two."""
        return self.ring.capacity

    @property
    def utilization(self):
        """Whole percent in use, 0 to 100, the fuller of slots and arena: a snapshot."""
        return self.ring.utilization

    @property
    def emitted_sequence(self):
        """The highest sequence number tried, enqueued or not; None while nothing was tried."""
        return self.ring.emitted_sequence

    @property
    def next_sequence(self):
        """The number after the highest tried; 1 while nothing was tried."""
        highest = self.ring.emitted_sequence
        return 1 if highest is None else highest + 1

    @property
    def pressure_state(self):
        """The ring's ``PressureState``. Read by the owner it is evaluated again, so that a pausing producer resumes."""
        cdef Ring* ring = self._ring
        with cython.critical_section(self):
            if ring.local.producer.owner == thread_token():
                ring_observe(ring)
                if self._pressure_log_due:
                    self.queue_pressure_log()
                if ring.local.producer.pending_log != 0:
                    self.write_pending_log()
                return _STATES[ring.local.producer.pressure]
        return self.ring.pressure_state

    @property
    def is_consumer_disconnected(self):
        """Whether the consumer has closed, was collected or has died.

        On a private bus it stays True. On a shared one it is True until a successor claims that end; there each read
        takes two system calls.
        """
        with cython.critical_section(self):
            if not ring_mark_dead_consumer(self._ring):
                return False
            self.log_disconnect()
            return True
