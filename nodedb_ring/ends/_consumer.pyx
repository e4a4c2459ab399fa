# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""The consumer's end of a ring: ``EventConsumer``."""

cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t
from posix.unistd cimport close

from .._ring cimport EventRing
from ..batch._event_batch cimport EventBatch, batch_over
from ..batch._event_rows cimport event_from_row
from ..batch._row_block cimport BufferPool, RowBlock, new_block
from ..core._bulk cimport ring_copy_out, ring_measure
from ..core._claims cimport ring_mark_dead_producer, ring_producer_gone, thread_token
from ..core._waiting cimport ring_open_watch_fd
from ..core._waking cimport ring_close_consumer
from ..core.atomic cimport load_acquire, load_relaxed, load_relaxed_u32, store_relaxed, store_relaxed_u32, unlikely
from ..core.layout cimport EventRow, RingHeader
from ..core.take cimport ring_advance, ring_available, ring_peek_copy
from ._consumer_base cimport ConsumerBase, check_block, found_nothing
from ._lease cimport Lease, LeasedArena, LeasedBlock
from .timeout cimport limit_ns

from ..batch.arrow._export_stream import StreamClaim, export_stream
from ..batch.arrow._schema import EVERY_COLUMN, export_schema
from ..batch.projection import PlainStream
from ..errors import ArgumentError, BusyError, ClosedError
from .asynchronous import drain_when_ready, next_batch, recv_when_ready
from .limits import event_count, limit_seconds
from .ownership import forked
from .stats import ConsumerStats

__all__ = ["EventConsumer", "consumer_stats"]

cdef enum:
    DEFAULT_BATCH = 1024
    # Events per batch of an Arrow stream: importers need some microseconds per array, however few its rows.
    ARROW_BATCH = 16384
    # The longest spin that a consumer accepts.
    LONGEST_SPIN_NS = 10000000

cdef extern from "Python.h":
    Py_ssize_t PyLong_AsSsize_t(object)
    void PyErr_Clear()

cdef object _EMPTY = EventBatch.from_events([])


def consumer_stats(EventRing ring not None):
    """The counters of a ring's consumer, whichever process holds that end: a ``ConsumerStats``."""
    cdef RingHeader* header = ring.ring.header
    cdef uint64_t released = load_acquire(&header.released)
    cdef uint64_t taken = load_acquire(&header.taken)
    return ConsumerStats(
        received=taken,
        batches=load_relaxed(&header.batches),
        held=min(taken - released, ring.ring.capacity),
        redelivered=load_relaxed(&header.redelivered),
    )


cdef inline bint _is_closed(EventConsumer self):
    """Asked outside of the section, by calls that look again in it."""
    return load_relaxed_u32(<uint32_t*>&self._closed)


cdef inline object _take_one(EventConsumer self):
    """The next event, or None."""
    cdef EventRow row
    if not ring_peek_copy(self._ring, &row):
        found_nothing(self)
        return None
    # Made before the row goes back: no memory for it, and the event is still there.
    event = event_from_row(&row, self._ring.arena)
    ring_advance(self._ring)
    return event


@cython.final
@cython.no_gc
cdef class EventConsumer(ConsumerBase):
    """The end of a ring that the Event Plane drains. ``create_event_bus`` and ``EventBus.consumer`` make it.

    Iterating, ``for`` or ``async for``, yields batches as ``drain`` returns them, and ends once the producer has gone
    and the ring is empty.

    Thread safety
    -------------
    It belongs to the first thread that takes an event; ``bind()`` hands it on. Properties, ``stats()`` and ``close()``
    may be called from any thread. Asynchronous methods stay on their loop's thread.
    """

    def __cinit__(self, EventRing ring not None):
        self._pool = BufferPool.__new__(BufferPool)
        self._stream_claim = StreamClaim()
        if ring.ring.shared:
            self._leased = LeasedArena(ring)

    def __dealloc__(self):
        # A collected consumer has gone as a closed one has. Nothing is logged, and a forked child touches nothing.
        if self._ring == NULL:
            return
        if self._loop_fd >= 0:
            close(self._loop_fd)
        if not self._closed and self._ring.local.alive:
            # Its leases live on, perhaps in other threads.
            with cython.critical_section(self.ring):
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

    def try_recv(self):
        """The next event, or None when the ring is empty. Never blocks.

        Raises
        ------
        OwnershipError, ClosedError
            The end is another thread's, or closed.
        CorruptRingError
            Something else has written to the shared block.
        """
        with cython.critical_section(self.ring):
            if unlikely(self._ring.local.consumer.owner != thread_token() or self._closed):
                self.claim()
            return _take_one(self)

    def recv(self, timeout=None):
        """The next event; where none waits, the one that comes. None when the time is over, and at the end.

        Parameters
        ----------
        timeout : float or None, default None
            Seconds to wait; None waits until there is an event or the producer has gone, which
            ``is_producer_disconnected`` tells. The wait releases the GIL and answers signals.

        Raises
        ------
        ArgumentError
            A `timeout` that is negative or NaN.
        OwnershipError, ClosedError
            The end is another thread's, or closed. Closing it meanwhile ends a wait with None.
        BusyError
            Another call waits on this consumer.
        CorruptRingError
            Something else has written to the shared block.
        """
        cdef int64_t limit = limit_ns(timeout)
        with cython.critical_section(self.ring):
            if unlikely(self._ring.local.consumer.owner != thread_token() or self._closed):
                self.claim()
            if ring_available(self._ring, 1) == 0 and not self.wait_for_one(limit):
                return None
            return _take_one(self)

    def drain(self, max_events=DEFAULT_BATCH, timeout=0.0):
        """Takes what waits, at most `max_events`, as an ``EventBatch`` that owns its memory; empty when nothing does.

        Parameters
        ----------
        max_events : int, default 1024
        timeout : float or None, default 0.0
            Seconds to wait for the first event, not for the `max_events`-th; None waits until there is one or the
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
        cdef int64_t limit
        with cython.critical_section(self.ring):
            limit = self.begin_take(max_events, timeout, &most)
            if ring_available(self._ring, 1) == 0 and not self.wait_for_one(limit):
                return _EMPTY
            return self.take(most)

    cdef int64_t begin_take(self, max_events, timeout, Py_ssize_t* most) except? -2:
        """What a call that may wait checks first: whether it may take, how much, and for how long it waits, in ns.

        -1 means no limit.
        """
        cdef int64_t limit
        most[0] = PyLong_AsSsize_t(max_events)
        if unlikely(most[0] < 1):
            # Not that, or no int, or one too large: then there is an error set.
            PyErr_Clear()
            most[0] = event_count(max_events)
        limit = limit_ns(timeout)
        # Last: the arguments' own methods may have closed the end, or handed it on.
        if unlikely(self._ring.local.consumer.owner != thread_token() or self._closed):
            self.claim()
        return limit

    cdef bint wait_for_one(self, int64_t limit) except -1:
        """Whether an event came in time, to an end that is still open."""
        check_block(self)
        if limit != 0:
            self.sleep(limit)
        if self._closed or ring_available(self._ring, 1) == 0:
            found_nothing(self)
            return False
        return True

    cdef object take(self, uint64_t most):
        """A batch of what waits. Every object is made before the first event is taken, and none after the last load."""
        cdef uint64_t payload
        cdef uint64_t count = ring_measure(self._ring, most, &payload)
        cdef RowBlock block = new_block(count, payload, self._pool)
        cdef EventBatch batch = batch_over(block)
        block.payload_bytes = ring_copy_out(self._ring, count, block.rows, block.bytes, payload)
        check_block(self)
        if count != 0:
            block.is_run = self._ring.local.consumer.is_plain_run
            store_relaxed(&self._ring.header.batches, self._ring.header.batches + 1)
        return batch

    def lease(self, max_events=DEFAULT_BATCH, timeout=0.0):
        """Takes one contiguous run of waiting events, at most `max_events`, to be read in place: a ``Lease``.

        It waits as ``drain`` does. The lease is of nothing when nothing came, or the producer has gone, or the consumer
        was closed meanwhile.

        Parameters
        ----------
        max_events : int, default 1024
        timeout : float or None, default 0.0
            Seconds to wait for the first event; None waits until there is one or the producer has gone.

        Raises
        ------
        ArgumentError, OwnershipError, ClosedError, BusyError, CorruptRingError
            As for ``drain``.
        """
        # Made first: between the last check and the taking there is no Python code, in which a signal handler could close.
        cdef LeasedBlock block = LeasedBlock.__new__(LeasedBlock)
        lease = Lease(block, batch_over(block))
        cdef Py_ssize_t most
        cdef int64_t limit
        with cython.critical_section(self.ring):
            limit = self.begin_take(max_events, timeout, &most)
            if ring_available(self._ring, 1) != 0 or self.wait_for_one(limit):
                block.take(self.ring, self._pool, self._leased, most)
                store_relaxed(&self._ring.header.batches, self._ring.header.batches + 1)
            return lease

    def __iter__(self):
        with cython.critical_section(self.ring):
            self.claim()
        return self

    def __next__(self):
        if _is_closed(self):
            # Closed from another thread between two batches, as well as during a wait.
            raise StopIteration
        batch = self.drain(DEFAULT_BATCH, None)
        if len(batch) == 0:
            raise StopIteration
        return batch

    def __aiter__(self):
        with cython.critical_section(self.ring):
            self.claim()
        return self

    def __anext__(self):
        return next_batch(self, DEFAULT_BATCH)

    def drain_async(self, max_events=DEFAULT_BATCH, timeout=None):
        """As ``drain``, for an event loop of asyncio's: ``await`` it. A cancelled wait takes nothing.

        Unlike ``drain`` it waits without limit by default: a coroutine that returns at once would spin.

        Raises
        ------
        EventLoopError
            It is awaited on another loop, trio's say: there ``fileno()`` is what to wait for.
        """
        return drain_when_ready(self, event_count(max_events), limit_seconds(timeout))

    def recv_async(self, timeout=None):
        """As ``recv``, for an event loop of asyncio's: ``await`` it. A cancelled wait takes nothing.

        Raises
        ------
        EventLoopError
            It is awaited on another loop, trio's say: there ``fileno()`` is what to wait for.
        """
        return recv_when_ready(self, limit_seconds(timeout))

    async def _drain_now(self, max_events):
        """``drain`` for coroutines, which returns None for nothing.

        Compiled, and so ``await`` runs no signal handler between the taking and what awaits it. After a call of ``drain``
        one may run, and if it raises, the batch is lost.
        """
        cdef object batch = self.drain(max_events)
        return None if batch is _EMPTY else batch

    async def _recv_now(self):
        """``try_recv`` for coroutines, as ``_drain_now``."""
        return self.try_recv()

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
            Another stream of this consumer is there: its importer has not released it, be it at its end or not.
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
        if _is_closed(self):
            raise ClosedError(f"consumer of core {self.core_id}: is closed")
        if self._ring.local.alive == 0:
            raise forked("consumer", self.core_id)
        return export_stream(
            self._bind_and_drain, selection, requested_schema, claim=self._stream_claim,
            owner=f"consumer of core {self.core_id}", is_over=lambda: self.is_producer_disconnected,
        )

    def _bind_and_drain(self):
        """What a stream asks for: the next batch, on the thread that asks, or None at the end."""
        if _is_closed(self):
            return None
        with cython.critical_section(self.ring):
            self.bind()
            batch = self.drain(ARROW_BATCH, None)
        return batch if len(batch) else None

    def fileno(self):
        """A file descriptor for ``select``, ``epoll`` and event loops: readable when there may be something to take.

        Readable, too, when the producer has gone; and on a shared bus some 12 times a second, to check whether its process
        lives and whether an event came without a signal. Once it was readable, take until a call returns nothing, and only
        then wait for it again. It is the consumer's: do not read or close it.

        Raises
        ------
        OwnershipError, ClosedError
            As for ``drain``.
        OSError
            No descriptor is left.
        """
        with cython.critical_section(self.ring):
            if self._ring.local.consumer.owner != thread_token() or self._closed:
                self.claim()
            if not self._is_watched:
                ring_open_watch_fd(self._ring)
                self._is_watched = True
                self.ask_for_signal()
            return self._ring.watch_fd

    @property
    def spin(self):
        """Seconds that a wait polls before it sleeps in the kernel, by default 10e-6; settable, up to 0.01.

        0 sleeps at once. An event that comes during a poll is seen in well under a microsecond; a wake takes 5 to 50 µs.
        Polls in vain take an eighth of a processor at most; after that a wait sleeps at once, until some time has passed.
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

    def bind(self):
        """Makes the calling thread the owner.

        Raises
        ------
        OwnershipError
            A call waits on this consumer, or this process inherited the end by fork.
        """
        with cython.critical_section(self.ring):
            if self._ring.local.alive == 0:
                raise forked("consumer", self.core_id)
            if self._closed:
                raise ClosedError(f"consumer of core {self.core_id}: is closed")
            if self._is_waiting:
                raise BusyError(f"consumer of core {self.core_id}: a call waits on it; bind when it has returned")
            check_block(self)
            store_relaxed(&self._ring.local.consumer.owner, thread_token())

    def close(self):
        """Ends the consumer, a waiting call of it included. The producer sees the disconnect. May be repeated.

        Leases stay readable until they end; what was not taken is not delivered.
        """
        with cython.critical_section(self.ring):
            if self._closed:
                return
            store_relaxed_u32(<uint32_t*>&self._closed, True)
            if self._ring.local.alive:
                ring_close_consumer(self._ring)
                self.release_role_if_over()

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
        with cython.critical_section(self.ring):
            return ring_mark_dead_producer(self._ring) and ring_producer_gone(self._ring)
