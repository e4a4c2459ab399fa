# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
"""The consumer's end of a ring: ``EventConsumer``, and the ``Lease`` that it hands out."""

import logging
import os

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy
from posix.unistd cimport close

from ..core.atomic cimport load_acquire, load_relaxed, store_relaxed, unlikely
from ..batch._row_block cimport BufferPool, RowBlock, new_block
from ..batch._event_rows cimport event_from_row
from .fork_snapshot cimport (
    SnapshotArena,
    fork_snapshot_add,
    fork_snapshot_hold,
    fork_snapshot_hold_nothing,
    fork_snapshot_lock,
    fork_snapshot_remove,
    fork_snapshot_unlock,
)
from .._ring cimport (
    CLAIM_FORKED,
    CLAIM_OTHER_THREAD,
    CORRUPT_ROW,
    SOUND,
    WAIT_READY,
    Claim,
    ConsumerSide,
    EventRing,
    EventRow,
    Ring,
    RingHeader,
    RingLease,
    WaitResult,
    monotonic,
    ring_advance,
    ring_arm,
    ring_available,
    ring_claim,
    ring_close_consumer,
    ring_consumer_corrupt,
    ring_copy_out,
    ring_disarm,
    ring_measure,
    ring_peek_copy,
    ring_producer_gone,
    ring_producer_lost,
    ring_release,
    ring_signal,
    ring_take,
    ring_wait,
    row_lap,
    shift_checked,
    span_lies_in,
    thread_token,
)
from .timeout cimport DEFAULT_SPIN_NS, LONGEST_SLEEP_NS, limit_ns

from ..batch.arrow._export import drop_released
from ..batch.arrow._export_stream import StreamClaim, export_stream
from ..batch.arrow._schema import EVERY_COLUMN, export_schema
from .asynchronous import drain_when_ready, next_batch
from ..batch.event_batch import EventBatch
from ..errors import ArgumentError, BusyError, ClosedError, OwnershipError
from .limits import event_count, limit_seconds
from .logger import tell
from .ownership import forked, owned_elsewhere
from ..batch.projection import PlainStream
from .stats import ConsumerStats

__all__ = ["EventConsumer", "Lease", "consumer_stats"]

cdef enum:
    DEFAULT_BATCH = 1024
    # Importers take some microseconds an array, however few its rows.
    ARROW_BATCH = 16384
    LONGEST_SPIN_NS = 10000000

cdef extern from "Python.h":
    Py_ssize_t PyLong_AsSsize_t(object)
    void PyErr_Clear()

cdef object _EMPTY = EventBatch.from_events([])


def consumer_stats(EventRing ring not None):
    """The accounts of a ring's consumer, whoever holds that end: a ``ConsumerStats``."""
    cdef RingHeader* header = ring.ring.header
    cdef uint64_t released = load_acquire(&header.released)
    cdef uint64_t taken = load_acquire(&header.taken)
    return ConsumerStats(
        received=taken,
        batches=load_relaxed(&header.batches),
        held=min(taken - released, ring.ring.capacity),
        redelivered=load_relaxed(&header.redelivered),
    )


# Not a GC object: it takes part in no cycle, and the collector would take the ring away before __dealloc__ closes it.
@cython.final
@cython.no_gc
cdef class EventConsumer:
    """The end of a ring that the Event Plane drains. ``create_event_bus`` and ``EventBus.consumer`` make it.

    Iterating, ``for`` or ``async for``, yields batches as ``drain`` returns them, and ends once the producer has gone
    and the ring is empty.

    Thread safety
    -------------
    It belongs to the first thread that takes an event; ``bind()`` hands it on. Properties, ``stats()`` and ``close()``
    may be called from any thread. Asynchronous methods stay on their loop's thread.
    """

    def __cinit__(self, EventRing ring not None):
        self._loop_fd = -1
        if ring.has_consumer:
            raise OwnershipError(f"consumer of core {ring.core_id}: was handed out already; a ring has one reader")
        ring.has_consumer = True
        self.ring = ring
        self._ring = &ring.ring
        self._pool = BufferPool.__new__(BufferPool)
        self._stream_claim = StreamClaim()
        if ring.ring.shared:
            self._leased = _LeasedArena(ring)
        self._spin_ns = DEFAULT_SPIN_NS

    def __dealloc__(self):
        # A collected consumer has gone as a closed one has. Nothing is logged, and a forked child touches nothing.
        if self._ring == NULL:
            return
        if self._loop_fd >= 0:
            close(self._loop_fd)
        if not self._closed and self._ring.local.alive:
            self.ring.is_over = True
            ring_close_consumer(self._ring)

    def __reduce__(self):
        raise TypeError(
            "an EventConsumer is a claim of this process, and cannot be pickled: pass the EventBus, and call its "
            "consumer() in the other process"
        )

    def __enter__(self):
        return self

    def __exit__(self, exc_type, exc_value, traceback):
        self.close()

    cdef int admit(self) except -1:
        """Turns away callers that may not take events now; claims the end for its first one."""
        cdef Claim claim
        if self._closed:
            raise ClosedError(f"consumer of core {self.core_id}: is closed")
        self.check_block()
        claim = ring_claim(self._ring, &self._ring.local.consumer.owner)
        if claim == CLAIM_OTHER_THREAD:
            raise owned_elsewhere("consumer", self.core_id)
        if claim == CLAIM_FORKED:
            raise forked("consumer", self.core_id)
        return 0

    cdef int check_block(self) except -1:
        """Turns away whoever would go on with a block that was found corrupt."""
        cdef ConsumerSide* side = &self._ring.local.consumer
        if unlikely(side.corrupt != SOUND):
            raise self.ring.corruption(side.corrupt, side.corrupt_value)
        return 0

    def try_recv(self):
        """The next event, or None when the ring is empty. Never blocks.

        Raises
        ------
        OwnershipError, ClosedError
            The end is another thread's, or closed.
        CorruptRingError
            Something else has written to the shared block.
        """
        cdef EventRow row
        if unlikely(self._ring.local.consumer.owner != thread_token() or self._closed):
            self.admit()
        if not ring_peek_copy(self._ring, &row):
            self.found_nothing()
            return None
        # Made before the row goes back: no memory for it, and the event is still there.
        event = event_from_row(&row, self._ring.arena)
        ring_advance(self._ring)
        return event

    cdef int found_nothing(self) except -1:
        """What every call does that found nothing to take: asks why, and asks for the next signal if somebody watches."""
        self.check_block()
        if self._is_watched:
            self.ask_for_signal()
        return 0

    cdef int ask_for_signal(self) except -1:
        if ring_arm(self._ring):
            # It came meanwhile: the descriptor is to show it.
            ring_signal(self._ring)
        return 0

    def drain(self, max_events=DEFAULT_BATCH, timeout=0.0):
        """Takes what waits, at most `max_events`, as an ``EventBatch`` that owns its memory; empty when nothing does.

        Parameters
        ----------
        max_events : int, default 1024
        timeout : float or None, default 0.0
            Seconds to wait for the first event, not for the `max_events`-th; None waits until something comes or the
            producer has gone. The wait releases the GIL and answers signals.

        Raises
        ------
        ArgumentError
            A `timeout` that is negative or NaN; `max_events` below 1 or above 2**63 - 1.
        OwnershipError, ClosedError
            The end is another thread's, or closed. Closing it meanwhile ends a wait with an empty batch.
        BusyError
            Another call waits on this consumer.
        CorruptRingError
            Something else has written to the shared block.
        """
        cdef Py_ssize_t most
        cdef int64_t limit = self.begin_take(max_events, timeout, &most)
        if ring_available(self._ring, 1) == 0 and not self.wait_for_one(limit):
            return _EMPTY
        return self.take(most)

    cdef int64_t begin_take(self, max_events, timeout, Py_ssize_t* most) except? -2:
        """What a call that may wait looks at first: whether it may take, how much, and for how long it waits, in ns.

        -1 is no limit.
        """
        if unlikely(self._ring.local.consumer.owner != thread_token() or self._closed):
            self.admit()
        most[0] = PyLong_AsSsize_t(max_events)
        if unlikely(most[0] < 1):
            # Not that, or no int, or one too large: then there is an error set.
            PyErr_Clear()
            most[0] = event_count(max_events)
        return limit_ns(timeout)

    cdef bint wait_for_one(self, int64_t limit) except -1:
        """Whether an event came in time, to an end that is still open."""
        self.check_block()
        if limit != 0:
            self.sleep(limit)
        if self._closed or ring_available(self._ring, 1) == 0:
            self.found_nothing()
            return False
        return True

    cdef object take(self, uint64_t most):
        """A batch of what waits. Every object is made before the first event is taken, and none after the last look."""
        cdef object batch = EventBatch.__new__(EventBatch)
        cdef RowBlock block
        cdef uint64_t count, payload
        batch._records = None
        batch._payload = None
        count = ring_measure(self._ring, most, &payload)
        block = new_block(count, payload, self._pool)
        block.payload_bytes = ring_copy_out(self._ring, count, block.rows, block.bytes, payload)
        self.check_block()
        if count != 0:
            block.is_run = self._ring.local.consumer.is_plain_run
            store_relaxed(&self._ring.header.batches, self._ring.header.batches + 1)
        batch._block = block
        return batch

    cdef int sleep(self, int64_t limit) except -1:
        """Waits, without the GIL, until an event or a closed end; answers signals; a negative timeout is no limit."""
        cdef int64_t deadline = monotonic() + limit if limit >= 0 else -1
        cdef int64_t left = limit, nap
        cdef WaitResult result
        self._begin_wait()
        try:
            while True:
                nap = LONGEST_SLEEP_NS if deadline < 0 else min(left, <int64_t>LONGEST_SLEEP_NS)
                with nogil:
                    result = ring_wait(self._ring, nap, self._spin_ns)
                if result == WAIT_READY:
                    return 0
                PyErr_CheckSignals()
                if self._ring.local.alive == 0:
                    # The handler has forked, and this is the child.
                    raise forked("consumer", self.core_id)
                if deadline >= 0:
                    left = deadline - monotonic()
                    if left <= 0:
                        return 0
        finally:
            self._end_wait()

    cdef int _end_wait(self) except -1:
        self._is_waiting = False
        self.let_go_if_over()
        return 0

    cdef int let_go_if_over(self) except -1:
        """Frees the role once the end is closed, no call waits and no lease is out: until then a successor must not come."""
        if self._closed and not self._is_waiting:
            self.ring.is_over = True
            if self._ring.local.consumer.oldest == NULL:
                self.ring.let_go()
        return 0

    def _begin_wait(self):
        if self._is_waiting:
            raise BusyError(f"consumer of core {self.core_id}: another call waits on it already; one at a time")
        self._is_waiting = True

    def lease(self, max_events=DEFAULT_BATCH, timeout=0.0):
        """Takes one contiguous run of what waits, at most `max_events`, to be read where it lies: a ``Lease``.

        It waits as ``drain`` does. The lease is of nothing when nothing came, or the producer has gone, or the consumer
        was closed meanwhile.

        Parameters
        ----------
        max_events : int, default 1024
        timeout : float or None, default 0.0
            Seconds to wait for the first event; None waits until something comes or the producer has gone.

        Raises
        ------
        ArgumentError, OwnershipError, ClosedError, BusyError, CorruptRingError
            As for ``drain``.
        """
        # Made first: between the last look and the taking there is no Python code, in which a signal handler could close.
        cdef _LeasedBlock block = _LeasedBlock.__new__(_LeasedBlock)
        lease = Lease(block, EventBatch._over(block))
        cdef Py_ssize_t most
        cdef int64_t limit = self.begin_take(max_events, timeout, &most)
        if ring_available(self._ring, 1) != 0 or self.wait_for_one(limit):
            block.take(self, most)
            store_relaxed(&self._ring.header.batches, self._ring.header.batches + 1)
        return lease

    def __iter__(self):
        self.admit()
        return self

    def __next__(self):
        if self._closed:
            # Closed from another thread between two batches, as well as during a wait.
            raise StopIteration
        batch = self.drain(DEFAULT_BATCH, None)
        if len(batch) == 0:
            raise StopIteration
        return batch

    def __aiter__(self):
        self.admit()
        return self

    def __anext__(self):
        return next_batch(self, DEFAULT_BATCH)

    def drain_async(self, max_events=DEFAULT_BATCH, timeout=None):
        """As ``drain``, for an event loop of asyncio's: ``await`` it. A cancelled wait takes nothing.

        Unlike ``drain`` it waits without limit unless told otherwise: a coroutine that returns at once would spin.

        Raises
        ------
        EventLoopError
            It is awaited on another loop, trio's say: there ``fileno()`` is what to wait for.
        """
        return drain_when_ready(self, event_count(max_events), limit_seconds(timeout))

    def __arrow_c_schema__(self):
        """The schema of every batch: the capsule of an ``ArrowSchema``."""
        return export_schema()

    def __arrow_c_stream__(self, requested_schema=None):
        """All that comes, as a stream of Arrow arrays: the capsule of an ``ArrowArrayStream``.

        Each array is what waits, at most 16,384 events; the importer waits where nothing does, and comes to the end as
        an iteration does. The stream takes the consumer over: whatever thread the importer asks from becomes the owner,
        and ``bind()`` takes it back. What an importer was handed is not in the ring any more, should it fail later;
        ``follow`` delivers again what was not committed. `requested_schema` is as for a batch.

        An exception of a signal handler, and another call that waits, are errors of the stream, and take nothing.

        Raises
        ------
        BusyError
            Another stream of this consumer is there: its importer has not let go of it, be it at its end or not.
        BatchError, TypeError
            As for a batch: of `requested_schema`.
        ClosedError
            The consumer is closed. Or another stream was handed its events, none are left and the producer has gone.
        ForkError
            As for ``drain``.
        """
        return self._export(EVERY_COLUMN, requested_schema)

    def plain(self):
        """The same stream for Arrow importers that know no view types: strings as utf8, values as binary."""
        return PlainStream(f"consumer of core {self.core_id}", self._export)

    def _export(self, selection, requested_schema):
        if self._closed:
            raise ClosedError(f"consumer of core {self.core_id}: is closed")
        if self._ring.local.alive == 0:
            raise forked("consumer", self.core_id)
        return export_stream(
            self._bind_and_drain, selection, requested_schema, claim=self._stream_claim,
            owner=f"consumer of core {self.core_id}", is_over=lambda: self.is_producer_disconnected,
        )

    def _bind_and_drain(self):
        """What a stream asks for: the next batch, on the thread that asks, or None at the end."""
        if self._closed:
            return None
        self.bind()
        batch = self.drain(ARROW_BATCH, None)
        return batch if len(batch) else None

    def _arm(self):
        """Starts an asynchronous wait: the file descriptor to watch, or None when there is no need to.

        Not the one of ``fileno()``: a loop has one reader a descriptor, and that one's is the user's.
        """
        self._begin_wait()
        try:
            if self._loop_fd < 0:
                self._loop_fd = self.ring.copy_watch_fd()
        except OSError:
            self._end_wait()
            raise
        if ring_arm(self._ring):
            self._disarm()
            return None
        return self._loop_fd

    def _disarm(self):
        ring_disarm(self._ring)
        if self._is_watched:
            # Somebody has the descriptor of fileno(), and waits on.
            self.ask_for_signal()
        self._end_wait()

    def fileno(self):
        """A file descriptor for ``select``, ``epoll`` and event loops: readable when there may be something to take.

        Readable, too, when the producer has gone; and on a shared bus some 12 times a second, to look whether its process
        lives and whether an event came without a signal. Once it was readable, take until a call returns nothing, and only
        then wait for it again. It is the consumer's: do not read or close it.

        Raises
        ------
        OwnershipError, ClosedError
            As for ``drain``.
        OSError
            No descriptor is left.
        """
        if self._ring.local.consumer.owner != thread_token() or self._closed:
            self.admit()
        if not self._is_watched:
            self.ring.open_watch_fd()
            self._is_watched = True
            self.ask_for_signal()
        return self._ring.watch_fd

    @property
    def spin(self):
        """Seconds that a wait looks before it sleeps in the kernel, by default 10e-6; settable, up to 0.01.

        0 sleeps at once. What comes while it looks is seen in well under a microsecond; a wake takes some 25.
        """
        return self._spin_ns / 1e9

    @spin.setter
    def spin(self, value):
        seconds = limit_seconds(value, "spin")
        if seconds is None or seconds > LONGEST_SPIN_NS / 1e9:
            raise ArgumentError(
                f"spin {value}: must be at most {LONGEST_SPIN_NS / 1e9} seconds, since signals wait for its end; to poll "
                "for longer call drain() again and again"
            )
        cdef int64_t spin_ns = <int64_t>(<double>seconds * 1e9)
        self._spin_ns = spin_ns

    @property
    def _is_inherited(self):
        """Whether this is a forked child: what the kernel keeps for the wait is the parent's still."""
        return self._ring.local.alive == 0

    @property
    def _is_due(self):
        """Whether a wait would end: events, or an end that has gone."""
        self.check_block()
        return self._closed or ring_available(self._ring, 1) != 0 or ring_producer_gone(self._ring)

    def bind(self):
        """Makes the calling thread the owner.

        Raises
        ------
        OwnershipError
            A call waits on this consumer, or this process inherited the end by fork.
        """
        if self._ring.local.alive == 0:
            raise forked("consumer", self.core_id)
        if self._closed:
            raise ClosedError(f"consumer of core {self.core_id}: is closed")
        if self._is_waiting:
            raise BusyError(f"consumer of core {self.core_id}: a call waits on it; bind when it has returned")
        self.check_block()
        self._ring.local.consumer.owner = thread_token()

    def close(self):
        """Ends the consumer, a waiting call of it included. The producer sees the disconnect. May be repeated.

        Leases stay readable until they end; what was not taken is not delivered.
        """
        if self._closed:
            return
        self._closed = True
        if self._ring.local.alive:
            ring_close_consumer(self._ring)
            self.let_go_if_over()

    def stats(self):
        """The accounts of this consumer as a ``ConsumerStats``."""
        return consumer_stats(self.ring)

    @property
    def core_id(self):
        """The Data Plane core whose events this end receives."""
        return self.ring.core_id

    @property
    def emitted_sequence(self):
        """The highest number that the producer has tried, enqueued or not; None before its first attempt.

        Read it, then drain until nothing comes: what is missing up to that number was dropped. The other order would
        take an event for dropped that came in between.
        """
        return self.ring.emitted_sequence

    @property
    def pressure_state(self):
        """The ring's ``PressureState``, computed afresh; only the producer stores it."""
        return self.ring.pressure_state

    @property
    def is_producer_disconnected(self):
        """Whether the producer has closed, was collected or has died, and everything that it emitted was taken.

        On a shared bus until a successor claims that end; there it costs two system calls while there is nothing to take.
        """
        return ring_producer_lost(self._ring) and ring_producer_gone(self._ring)


@cython.final
@cython.no_gc
cdef class _LeasedArena:
    """The arena of a shared ring, as its leases see it, and in a forked child what these showed at the fork.

    Every lease of the ring keeps it. Of a private ring's arena the kernel makes that copy.
    """

    cdef SnapshotArena snapshot
    cdef EventRing ring
    cdef uint64_t end  # arena position after the newest lease
    cdef bint is_registered

    def __cinit__(self, EventRing ring not None):
        cdef int wrong = fork_snapshot_add(
            &self.snapshot, ring.ring.arena, ring.ring.arena_bytes, &ring.ring.local.alive
        )
        if wrong != 0:
            raise OSError(wrong, f"cannot register what a fork does: {os.strerror(wrong)}")
        self.ring = ring
        self.is_registered = True

    def __dealloc__(self):
        if self.is_registered:
            fork_snapshot_remove(&self.snapshot)

    cdef void hold(self) noexcept:
        """Under the lock, after a lease came or went: which bytes the leases are over, those between two included."""
        cdef RingLease* oldest = self.ring.ring.local.consumer.oldest
        if oldest == NULL:
            fork_snapshot_hold_nothing(&self.snapshot)
        else:
            fork_snapshot_hold(&self.snapshot, oldest.rows.span_offset, self.end - oldest.arena_start)


@cython.final
@cython.no_gc_clear  # __dealloc__ needs the ring
cdef class _LeasedBlock(RowBlock):
    """A run of a ring's own rows over its whole arena. The rows go back when it is over and the last view has gone.

    The rows of a shared ring are copied and checked, since whoever shares it could change their offsets after the check;
    their payload is read where it lies.
    """

    cdef EventRing ring
    cdef RingLease lease
    cdef bint is_out
    cdef bint ended_by_exception
    cdef _LeasedArena arena  # of a shared ring; else None

    def __dealloc__(self):
        self.give_back()

    cdef int take(self, EventConsumer consumer, uint64_t most) except -1:
        cdef Ring* ring = consumer._ring
        cdef EventRow* last
        most = min(most, ring_available(ring, most), <uint64_t>0xFFFFFFFF)
        if most == 0:
            return 0
        if ring.shared:
            # Before anything is taken: no memory for the copy, and the events are still there.
            self.memory = consumer._pool.take(most * sizeof(EventRow), &self.memory_bytes)
            if self.memory == NULL:
                raise MemoryError(f"no memory for the rows of a lease of {most} events")
            self.pool = consumer._pool
        self.ring = consumer.ring
        if ring.shared:
            self.arena = consumer._leased
            fork_snapshot_lock()
            if ring_take(ring, <uint32_t>most, &self.lease) != 0:
                self.is_out = True
                self.arena.end = ring.local.consumer.arena_taken
                self.arena.hold()
            fork_snapshot_unlock()
        else:
            self.is_out = ring_take(ring, <uint32_t>most, &self.lease) != 0
        if not self.is_out:
            return consumer.check_block()
        self.rows = self.lease.rows
        if ring.shared:
            self.rows = <EventRow*>self.memory
            memcpy(self.rows, self.lease.rows, self.lease.count * sizeof(EventRow))
            last = self.rows + (self.lease.count - 1)
            if not shift_checked(self.rows, last + 1, 0, ring.arena_bytes, self.rows) or not span_lies_in(ring, last):
                ring_consumer_corrupt(ring, CORRUPT_ROW, self.rows.position)
                consumer.check_block()
        self.is_leased = True
        self.count = self.lease.count
        self.bytes = ring.arena
        last = self.rows + (self.count - 1)
        self.payload_bytes = last.span_offset + last.span_length
        if row_lap(last) != row_lap(self.rows):
            # The run goes on in the next lap of the arena: its bytes are at both ends.
            self.payload_bytes = ring.arena_bytes
        return 0

    cdef void unviewed(self) noexcept:
        if self.ended:
            self.give_back()

    cdef void unpinned(self) noexcept:
        if self.ended_by_exception:
            self.give_back()

    cdef bint is_torn(self) noexcept:
        return self.arena is not None and self.ring.ring.local.alive == 0 and not self.arena.snapshot.is_kept

    cdef void give_back(self) noexcept:
        if self.is_out:
            self.is_out = False
            # The GIL keeps every other Python call of the consumer away, whichever thread lets go of the last view.
            if self.ring.ring.local.alive:
                if self.arena is None:
                    ring_release(&self.ring.ring, &self.lease)
                else:
                    fork_snapshot_lock()
                    ring_release(&self.ring.ring, &self.lease)
                    self.arena.hold()
                    fork_snapshot_unlock()
                if self.ring.is_over and self.ring.ring.local.consumer.oldest == NULL:
                    self.ring.let_go()

    cdef void end(self, bint by_exception) noexcept:
        """Ends the lease. After an exception, whose traceback may keep what it will, slices hold nothing: they cannot be
        read any more."""
        self.ended = True
        self.ended_by_exception = by_exception
        if self.views == 0 or (by_exception and self.pins == 0):
            self.give_back()


@cython.final
cdef class Lease:
    """A run of events read where they lie: ``with consumer.lease() as batch: ...``.

    The batch is over read-only views of the ring's own memory, its payload the arena. At the end of the block the rows go
    back to the producer, and the batch is no longer readable. Several leases may be out, and end in any order. A lease
    that is dropped with its batch gives the rows back too; arena space comes back in order of publication, so one that
    is forgotten in the end stops the producer.

    In a forked child the lease shows what it showed at the fork.

    Raises
    ------
    BufferError
        At the end of the block, if an array still looks into the lease: copy what outlives it. The rows go back when
        the last such array dies. It is not raised while another exception passes; then a WARNING is logged, once a
        consumer. Mostly it is that exception's traceback which keeps the array, for as long as somebody keeps it.

    Thread safety
    -------------
    Ends on any thread that holds the GIL. Native code that takes from the same ring must not run at that moment.
    """

    cdef _LeasedBlock _block
    cdef object _batch

    def __cinit__(self, _LeasedBlock block not None, batch):
        self._block = block
        self._batch = batch

    @property
    def batch(self):
        """The events of this lease, an ``EventBatch``."""
        if self._batch is None:
            raise ClosedError("this lease has ended")
        return self._batch

    def __enter__(self):
        return self.batch

    def __exit__(self, exc_type, exc_value, traceback):
        self._end(exc_type is not None)

    def release(self):
        """Ends the lease, as leaving its block does. May be repeated."""
        self._end(False)

    cdef int _end(self, bint by_exception) except -1:
        if self._batch is None:
            return 0
        # The batch's own arrays are not somebody else's views.
        self._batch._records = None
        self._batch._payload = None
        self._batch = None
        self._block.end(by_exception)
        if self._block.is_out:
            # Importers may have let go of it without the GIL, and the main thread not have come by since.
            drop_released()
        if not self._block.is_out:
            return 0
        if not by_exception:
            raise BufferError(
                f"{self._block.views} arrays or batches still look into a lease of {self._block.count} events that has "
                "ended: copy what outlives it; its rows go back when the last of them dies"
            )
        if not self._block.ring.is_pin_logged and self._block.ring.ring.local.alive:
            self._block.ring.is_pin_logged = True
            tell(
                logging.WARNING,
                "core %d: an exception ended a lease of %d events, and %d arrays still look into it: its rows go back when"
                " the last of them dies; the traceback keeps those of its frames",
                self._block.ring.core_id, self._block.count, self._block.pins,
                extra={
                    "core": self._block.ring.core_id,
                    "utilization": self._block.ring.utilization,
                    "dropped": load_relaxed(&self._block.ring.ring.header.dropped_full)
                    + load_relaxed(&self._block.ring.ring.header.dropped_disconnected),
                },
            )
