# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
"""The producer's end of a ring: ``EventProducer``, and the ``Reservation`` that it hands out."""

import logging

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from ..core.atomic cimport load_acquire, load_acquire_u32, load_relaxed, load_relaxed_u32, unlikely
from ..batch._row_block cimport BufferPool, RowBlock, new_block
from ..batch._row_checks cimport check_rows
from ..batch._event cimport WriteEvent
from ..batch._event_rows cimport push_event
from .._ring cimport (
    CLAIM_FORKED,
    CLAIM_OTHER_THREAD,
    FIELD_COUNT,
    GONE,
    NO_TIME,
    NOTED_DISCONNECT,
    NOTED_OVERFLOW_BEGAN,
    NOTED_OVERFLOW_ENDED,
    NOTED_PRESSURE,
    NULL_LENGTH,
    PRESSURE_NORMAL,
    PRESSURE_SUSPENDED,
    PRESSURE_THROTTLED,
    PUSH_DISCONNECTED,
    PUSH_DONE,
    PUSH_FULL,
    PUSH_TOO_LARGE,
    SOUND,
    WAIT_READY,
    WAIT_TIMEOUT,
    Claim,
    EventRing,
    EventRow,
    ProducerSide,
    PushResult,
    Ring,
    RingHeader,
    WaitResult,
    clear_reserved,
    monotonic,
    ring_claim,
    ring_close_producer,
    ring_consumer_lost,
    ring_drop_rows,
    ring_fit_packed,
    ring_fit_rows,
    ring_index_names_a_row,
    ring_intend,
    ring_make_room,
    ring_observe,
    ring_occupancy,
    ring_percent,
    ring_publish_stamped,
    ring_row,
    ring_stamp,
    ring_too_large,
    ring_wait_room,
    row_is_packed,
    shift_fields,
    thread_token,
)
from .timeout cimport DEFAULT_SPIN_NS, LONGEST_SLEEP_NS, limit_ns

from ..core.backpressure import PressureState
from ..batch.event_batch import EventBatch
from ..batch.columns import fixed_column
from ..errors import BatchError, BusyError, ClosedError, EventTooLargeError, OwnershipError
from .logger import tell
from .ownership import forked, owned_elsewhere
from .stats import ProducerStats

__all__ = ["EventProducer", "Reservation", "producer_stats"]

cdef extern from "Python.h":
    bint PyBool_Check(object value)
    bint PyLong_Check(object value)
    long long PyLong_AsLongLongAndOverflow(object value, int* overflow) except? -1

cdef enum:
    BARRED_CLOSED = 1
    BARRED_RESERVED = 2
    SECOND_NS = 1000000000
    # A batch that waits for room waits for this part of the ring, but not for long.
    GATHER = 8

cdef tuple _STATES = tuple(PressureState)


def producer_stats(EventRing ring not None):
    """The accounts of a ring's producer, whoever holds that end: a ``ProducerStats``."""
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


# Not a GC object: it takes part in no cycle, and the collector would take the ring away before __dealloc__ closes it.
@cython.final
@cython.no_gc
cdef class EventProducer:
    """The end of a ring that a Data Plane core emits into. ``create_event_bus`` and ``EventBus.producer`` make it.

    Thread safety
    -------------
    It belongs to the first thread that emits; ``bind()`` hands it on. Properties, ``stats()`` and ``close()`` may be
    called from any thread.
    """

    def __cinit__(self, EventRing ring not None):
        if ring.has_producer:
            raise OwnershipError(f"producer of core {ring.core_id}: was handed out already; a ring has one writer")
        ring.has_producer = True
        self.ring = ring
        self._ring = &ring.ring
        self._pool = BufferPool.__new__(BufferPool)

    def __dealloc__(self):
        # A collected producer has gone as a closed one has. Nothing is logged, and a forked child touches nothing.
        if self._ring != NULL and not self._barred & BARRED_CLOSED and self._ring.local.alive:
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

    cdef int admit(self) except -1:
        """Turns away callers that may not emit now; claims the end for its first one."""
        cdef Claim claim
        if self._barred & BARRED_CLOSED:
            raise ClosedError(f"producer of core {self.core_id}: is closed")
        self.check_block()
        claim = ring_claim(self._ring, &self._ring.local.producer.owner)
        if claim == CLAIM_OTHER_THREAD:
            raise owned_elsewhere("producer", self.core_id)
        if claim == CLAIM_FORKED:
            raise forked("producer", self.core_id)
        if self._barred & BARRED_RESERVED:
            raise BusyError(f"producer of core {self.core_id}: has an open reservation; leave its with block first")
        return 0

    cdef int check_block(self) except -1:
        """Turns away whoever would go on with a block that was found corrupt."""
        cdef ProducerSide* side = &self._ring.local.producer
        if side.corrupt != SOUND:
            raise self.ring.corruption(side.corrupt, side.corrupt_value)
        return 0

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
        if unlikely(self._ring.local.producer.owner != thread_token() or self._barred != 0):
            self.admit()
        if unlikely(event.row.op == 0):
            raise TypeError("a WriteEvent that __init__ never made has no fields")
        result = push_event(self._ring, event)
        if unlikely(self._ring.local.producer.noted != 0):
            self.log_noted()
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
        counted, and ``emitted_sequence`` tells them apart.

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
        cdef PushResult why
        cdef int64_t limit = limit_ns(timeout)
        cdef int64_t deadline = monotonic() + limit if limit > 0 else limit
        cdef uint64_t done = 0, need, end
        cdef bint packed, may_wait = limit != 0
        cdef ProducerSide* side = &self._ring.local.producer
        cdef uint32_t untold
        if unlikely(self._ring.local.producer.owner != thread_token() or self._barred != 0):
            self.admit()
        if type(batch) is not EventBatch:
            raise TypeError(f"{batch!r}: must be an EventBatch; EventBatch.from_events makes one of events")
        block = batch._block
        block.check_open()
        need = ring_too_large(self._ring, block.rows, block.count, block.payload_bytes)
        if need != 0:
            raise self._too_large(need)
        packed = block.is_packed(&end)
        untold = side.noted & NOTED_PRESSURE
        while True:
            if packed:
                done += ring_fit_packed(self._ring, block.rows + done, block.count - done, block.bytes, end, &why)
            else:
                done += ring_fit_rows(self._ring, block.rows + done, block.count - done, block.bytes, &why)
            if limit != 0:
                # Who waits for room keeps the ring full by intent: that is counted, and would be logged at every turn.
                side.noted &= ~<uint32_t>NOTED_PRESSURE
            if done == block.count or why != PUSH_FULL or limit == 0:
                break
            if unlikely(side.noted != 0):
                self.log_noted()
                block.check_open()
            row_is_packed(block.rows + done, &need)
            if (
                not self.wait_until(1, need, min(block.count - done, self._ring.capacity // GATHER), deadline)
                or 0 < deadline <= monotonic()
            ):
                limit = 0
            if unlikely(self._barred != 0):
                if self._barred & BARRED_CLOSED:
                    return done
                self.admit()
            # Whoever had the GIL meanwhile may have ended the lease that the batch is of.
            block.check_open()
        if done < block.count and side.corrupt == SOUND:
            ring_drop_rows(self._ring, block.rows, done, block.count, why)
        side.noted |= untold
        if may_wait:
            # But where it ends, the log has to know: it may have said SUSPENDED before.
            self.note_pressure()
        if unlikely(side.noted != 0):
            self.log_noted()
        return done

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
        self.admit()
        return self.wait_until(n, payload_bytes, n, monotonic() + limit if limit > 0 else limit)

    cdef bint wait_until(self, uint64_t slots, uint64_t payload, uint64_t gather, int64_t deadline) except -1:
        """Waits, without the GIL, until there is room; whether there is. Answers signals; a negative deadline is none."""
        cdef int64_t left = deadline, nap
        cdef WaitResult result
        if self._is_waiting:
            raise BusyError(f"producer of core {self.core_id}: another call waits for room already; one at a time")
        if self._barred & BARRED_CLOSED:
            # By a handler of the log, say: then the role is perhaps a successor's.
            return False
        if unlikely(self._ring.local.producer.owner != thread_token()):
            # Bound to another thread meanwhile, or this is a forked child, by such a handler too.
            self.admit()
        self._is_waiting = True
        try:
            while deadline != 0:
                if deadline > 0:
                    left = max(deadline - monotonic(), <int64_t>0)
                nap = <int64_t>LONGEST_SLEEP_NS if left < 0 else min(left, <int64_t>LONGEST_SLEEP_NS)
                with nogil:
                    result = ring_wait_room(self._ring, slots, payload, gather, nap, DEFAULT_SPIN_NS)
                if result == WAIT_READY:
                    break
                PyErr_CheckSignals()
                if unlikely(self._ring.local.alive == 0):
                    # The handler has forked, and this is the child.
                    raise forked("producer", self.core_id)
                if self._barred & BARRED_CLOSED or (result == WAIT_TIMEOUT and left == nap):
                    break
        finally:
            self._is_waiting = False
            if self._barred & BARRED_CLOSED and self._ring.local.alive:
                self.ring.let_go()
        if self._barred & BARRED_CLOSED:
            return False
        self.check_block()
        return ring_make_room(self._ring, slots, payload) and not ring_consumer_lost(self._ring)

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

    def bind(self):
        """Makes the calling thread the owner.

        Raises
        ------
        OwnershipError
            A reservation is open, or this process inherited the end by fork.
        """
        if self._ring.local.alive == 0:
            raise forked("producer", self.core_id)
        if self._barred & BARRED_CLOSED:
            raise ClosedError(f"producer of core {self.core_id}: is closed")
        if self._barred & BARRED_RESERVED:
            raise BusyError(f"producer of core {self.core_id}: has an open reservation; leave its with block first")
        if self._is_waiting:
            raise BusyError(f"producer of core {self.core_id}: a call waits for room on it; bind when it has returned")
        self.check_block()
        self._ring.local.producer.owner = thread_token()

    def close(self):
        """Says that nothing follows. The consumer drains what there is, and then sees the disconnect. May be repeated."""
        if self._barred & BARRED_CLOSED:
            return
        self._barred |= BARRED_CLOSED
        if self._ring.local.alive == 0:
            return
        ring_close_producer(self._ring)
        if not self._is_waiting:
            self.ring.let_go()
        # An overflow that the log has seen begin ends here at the latest.
        if self._ring.local.producer.overflowing:
            self._ring.local.producer.overflowing = 0
            self._ring.local.producer.noted |= NOTED_OVERFLOW_ENDED
        # And what was held back to keep to a pair a second is told now or never.
        self._overflow_logged_ns = 0
        if self._pressure_held:
            self._pressure_told_ns[:] = [0, 0, 0]
            self.note_pressure()
        # That the block is corrupt has been told, or no longer matters.
        if self._ring.local.producer.noted != 0 and self._ring.local.producer.corrupt == SOUND:
            self.log_noted()

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
        """The ring's ``PressureState``. Read by the owner it is evaluated anew, so that a pausing producer resumes."""
        cdef Ring* ring = self._ring
        if ring.local.producer.owner == thread_token():
            ring_observe(ring)
            if self._pressure_held:
                self.note_pressure()
            if ring.local.producer.noted != 0:
                self.log_noted()
            return _STATES[ring.local.producer.pressure]
        return self.ring.pressure_state

    @property
    def is_consumer_disconnected(self):
        """Whether the consumer has closed, was collected or has died.

        On a private bus for good. On a shared one until a successor claims that end; there it costs two system calls.
        """
        if not ring_consumer_lost(self._ring):
            return False
        self.log_disconnect()
        return True

    cdef int log_disconnect(self) except -1:
        # Once a consumer: on a shared ring each claim of that end is another.
        cdef uint32_t claim = load_relaxed_u32(&self._ring.header.consumer_claim)
        if self._disconnect_logged != claim and self._ring.local.alive:
            self._disconnect_logged = claim
            tell(
                logging.WARNING, "core %d: the consumer has gone; events are dropped from here on", self.core_id,
                extra=self._fields(),
            )
        return 0

    def _fields(self):
        cdef RingHeader* header = self._ring.header
        return {
            "core": self.core_id,
            "utilization": self.utilization,
            "dropped": header.dropped_full + header.dropped_disconnected,
        }

    cdef int note_pressure(self) except -1:
        """Has the state logged if the log has another: each at most once a second, but for the return to NORMAL."""
        cdef ProducerSide* side = &self._ring.local.producer
        cdef int64_t now
        self._pressure_held = False
        if side.pressure == self._pressure_told:
            return 0
        if side.pressure != PRESSURE_NORMAL:
            now = monotonic()
            if 0 < self._pressure_told_ns[side.pressure] and now - self._pressure_told_ns[side.pressure] < SECOND_NS:
                # Told by the next call that waits, or that reads the state, or by close().
                self._pressure_held = True
                return 0
        side.noted |= <uint32_t>1 << side.pressure
        return 0

    cdef int log_noted(self) except -1:
        """Logs what emitting has noted, the ring being consistent by now: a handler may emit in its turn."""
        cdef ProducerSide* side = &self._ring.local.producer
        cdef uint32_t noted = side.noted
        cdef uint64_t count, first, last
        cdef int64_t now
        side.noted = 0
        self.check_block()
        if noted & (NOTED_OVERFLOW_BEGAN | NOTED_OVERFLOW_ENDED):
            now = monotonic()
            if not self._overflow_open:
                if self._overflow_logged_ns != 0 and now - self._overflow_logged_ns < SECOND_NS:
                    # Too soon after the last: told with the next, in one sum.
                    side.noted |= noted & (NOTED_OVERFLOW_BEGAN | NOTED_OVERFLOW_ENDED)
                else:
                    self._overflow_open = True
                    self._overflow_logged_ns = now
                    tell(
                        logging.WARNING, "core %d: the ring overflows; events are dropped from sequence %d on",
                        self.core_id, side.overflow_first, extra=self._fields(),
                    )
            if self._overflow_open and side.overflowing == 0:
                count, first, last = side.overflow_count, side.overflow_first, side.overflow_last
                side.overflow_count = 0
                self._overflow_open = False
                # Not all of them: the sum of several, and that of a producer that tries again, has some between that went in.
                tell(
                    logging.WARNING,
                    "core %d: the overflow is over; %d of the events from sequence %d to %d were dropped",
                    self.core_id, count, first, last, extra=self._fields(),
                )
        if noted & 1 << <int>PRESSURE_THROTTLED:
            self._log_state(PressureState.THROTTLED)
        if noted & 1 << <int>PRESSURE_SUSPENDED:
            self._log_state(PressureState.SUSPENDED)
        if noted & 1 << <int>PRESSURE_NORMAL:
            self._log_state(PressureState.NORMAL)
        if noted & NOTED_DISCONNECT:
            self.log_disconnect()
        return 0

    def _log_state(self, state):
        level = logging.WARNING if state is PressureState.SUSPENDED else logging.INFO
        self._pressure_told = _STATES.index(state)
        self._pressure_told_ns[self._pressure_told] = monotonic()
        tell(
            level, "core %d: the ring is %s at %d %%", self.core_id, str(state).lower(), self.utilization,
            extra=self._fields(),
        )


@cython.final
@cython.no_gc_clear  # __dealloc__ needs the producer
cdef class Reservation:
    """Rows of the future, as writable columns: ``with producer.reserve(1000, payload_bytes=64) as rows: ...``.

    Inside the block ``rows["sequence"]`` and every other column of ``EVENT_DTYPE`` is a writable array of shape (n,), and
    ``rows.payload`` is the block of bytes that the offsets are into; events may share bytes of it. ``len(rows)`` is n:
    fewer than asked when the ring is short of slots, and 0 when it is full or the arena has no such block free, which
    drops and counts nothing. Rows begin with ``sequence`` counting on from ``producer.next_sequence``, the defaults of
    ``WriteEvent``, empty strings, and no op: that must be set. What is assigned to a column, ``rows["lsn"] = values``, is
    taken exactly or refused with a ``BatchError``, as ``EventBatch.from_columns`` does; what is assigned to a part of the
    array, ``rows["lsn"][2:] = values``, NumPy converts.

    A clean exit checks all of the rows and publishes them at once; an exception publishes nothing. The arrays are
    memory beside the ring and are copied in at the exit: an array cannot be taken back from whoever holds it, and so
    none may look into rows that will hold other events. After the block they are read-only.

    Raises
    ------
    BatchError
        At the exit, for a row that is no event: unknown op or source, an offset outside the block, a string that is not UTF-8.

    Thread safety
    -------------
    The owner of the producer. While it is open the producer refuses every other call that emits, with a ``BusyError``.
    """

    cdef EventProducer _producer
    cdef RowBlock _block
    cdef uint64_t _wanted
    cdef uint64_t _payload_bytes
    cdef bint _is_open
    cdef dict _arrays
    cdef readonly object published

    def __cinit__(self, EventProducer producer not None, uint64_t wanted, uint64_t payload_bytes):
        self._producer = producer
        self._wanted = wanted
        self._payload_bytes = payload_bytes
        self._arrays = {}
        self.published = 0

    def __dealloc__(self):
        # Entered and dropped without an exit, by a generator that was never resumed say.
        if self._is_open:
            self._producer._barred &= ~BARRED_RESERVED

    def __enter__(self):
        cdef Ring* ring = self._producer._ring
        cdef uint64_t free, count, sequence, i
        cdef EventRow blank
        if self._block is not None:
            raise ClosedError("a reservation serves one with block: reserve again")
        self._producer.admit()
        # Numbers are any u64, and so the last one is followed by the first.
        sequence = self._producer.next_sequence & 0xFFFFFFFFFFFFFFFF
        count = 0
        if ring_make_room(ring, 1, self._payload_bytes):
            free = ring.capacity - (ring.local.producer.published - ring.local.producer.seen_released)
            count = min(self._wanted, free)
        for i in range(count):
            if not ring_index_names_a_row(ring, ring.local.producer.published + i):
                break
        self._producer.check_block()
        # The block of payload is there without rows too, so that code which fills it needs no case for a full ring.
        self._block = new_block(count, self._payload_bytes, self._producer._pool)
        # Payload that nobody writes is copied into the ring all the same: it must not be what the heap held before.
        if self._payload_bytes:
            memset(self._block.bytes, 0, self._payload_bytes)
        self._block.writable = True
        _blank_row(&blank)
        for i in range(count):
            self._block.rows[i] = blank
            self._block.rows[i].sequence = sequence + i
        self._producer._barred |= BARRED_RESERVED
        self._is_open = True
        return self

    def __exit__(self, exc_type, exc_value, traceback):
        if not self._is_open:
            raise ClosedError("this reservation is not open")
        self._is_open = False
        self._producer._barred &= ~BARRED_RESERVED
        self._block.ended = True
        # Whoever asks the memory itself for leave to write is refused from here on, too.
        self._block.writable = False
        for array in self._arrays.values():
            array.flags.writeable = False
        if exc_type is None and self._block.count != 0:
            self._producer.admit()
            self.published = _publish_block(self._producer._ring, self._block)
            if self._producer._ring.local.producer.noted != 0:
                self._producer.log_noted()

    def __len__(self):
        return 0 if self._block is None else self._block.count

    @property
    def records(self):
        """The rows as a writable array of ``EVENT_DTYPE``, shape (n,)."""
        return self._array("records", None)

    @property
    def payload(self):
        """The block of payload as a writable array of uint8, shape (payload_bytes,)."""
        return self._array("payload", None)

    def __getitem__(self, str column):
        return self._array("column", column)

    def __setitem__(self, str column, value):
        cdef object array = self[column]
        cdef int beyond = 0
        if PyLong_Check(value) and not PyBool_Check(value) and 0 <= PyLong_AsLongLongAndOverflow(value, &beyond) <= 255:
            # One small number for all rows, which every column holds: the case of code that fills a few rows at a time.
            array[...] = value
            return
        checked = fixed_column(column, value, check_members=False)
        if checked.ndim != 0 and len(checked) not in (1, len(array)):
            raise BatchError(f"{column} of {len(checked)} values: must be one, or one for each of the {len(array)} rows")
        array[...] = checked

    def _array(self, str kind, column):
        """The one array of its kind: the reservation must know all that it hands out, to end their writing."""
        if not self._is_open:
            raise ClosedError("a reservation's rows are there inside its with block only")
        array = self._arrays.get((kind, column))
        if array is None:
            if kind == "column":
                array = self.records[column]
            elif kind == "records":
                array = self._block.records()
            else:
                array = self._block.payload()
            self._arrays[kind, column] = array
        return array


cdef void _blank_row(EventRow* row) noexcept:
    cdef int k
    memset(row, 0, sizeof(EventRow))
    row.system_time_ms = row.valid_time_ms = NO_TIME
    row.count = 1
    for k in range(FIELD_COUNT):
        row.field[k].length = 0 if k < 2 else NULL_LENGTH


cdef uint64_t _publish_block(Ring* ring, RowBlock block) except? 0:
    """Copies rows and their shared payload into the ring, checks the copies, and publishes them together.

    Each row's span is the stretch of the block from the lowest byte that it or a later row uses to the highest that it
    or an earlier one does. So spans neither start nor end before those of earlier rows, as the arena's tail needs.
    """
    cdef ProducerSide* side = &ring.local.producer
    cdef uint64_t count = block.count, size = block.payload_bytes
    cdef uint64_t published = side.published, start, offset, end, i
    cdef uint64_t highest = 0
    cdef uint32_t low, high
    cdef EventRow checked
    cdef EventRow* row
    cdef int k
    if load_acquire_u32(&ring.header.consumer_claim) & GONE:
        ring_drop_rows(ring, block.rows, 0, count, PUSH_DISCONNECTED)
        return 0
    # Only this thread takes room, so what was free when the reservation began still is.
    if not ring_make_room(ring, count, size):
        # Or the block is corrupt by now, as is noted.
        return 0
    start = side.arena_head
    offset = start - side.arena_lap
    if size != 0:
        memcpy(ring.arena + offset, block.bytes, size)
    high = 0
    for i in range(count):
        # Checked in a copy that nobody else can write to, and so used as it was checked.
        memcpy(&checked, block.rows + i, sizeof(EventRow))
        clear_reserved(&checked)
        check_rows(&checked, 1, ring.arena + offset, size, i)
        highest = max(highest, checked.sequence)
        low = NULL_LENGTH
        for k in range(FIELD_COUNT):
            if checked.field[k].length != 0 and checked.field[k].length != NULL_LENGTH:
                low = min(low, checked.field[k].offset)
                high = max(high, checked.field[k].offset + checked.field[k].length)
        checked.span_offset = low
        checked.span_length = high
        memcpy(ring_row(ring, published + i), &checked, sizeof(EventRow))
    low = high
    for i in range(count, 0, -1):
        row = ring_row(ring, published + i - 1)
        low = min(low, row.span_offset)
        end = max(row.span_length, low)
        for k in range(FIELD_COUNT):
            if row.field[k].length == 0 or row.field[k].length == NULL_LENGTH:
                row.field[k].offset = low
        shift_fields(row, <uint32_t>offset)
        ring_stamp(row, published + i - 1, start + low, offset + low, end - low)
    ring_intend(ring, highest)
    ring_publish_stamped(ring, count, start + high, highest)
    return count
