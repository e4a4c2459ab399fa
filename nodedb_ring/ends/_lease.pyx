# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""Events read where they lie: ``Lease``, the block of rows that it is of, and what a forked child has of it."""

import logging
import os

cimport cython
from libc.stdint cimport uint32_t, uint64_t

from .._ring cimport EventRing
from ..batch._event_batch cimport EventBatch
from ..batch._row_block cimport BufferPool, RowBlock
from ..core._claims cimport ring_consumer_corrupt, ring_release_role
from ..core.atomic cimport load_relaxed
from ..core.copy cimport nodedb_copy
from ..core.layout cimport CORRUPT_ROW, EventRow, Ring, RingLease, shift_checked
from ..core.row cimport row_lap
from ..core.take cimport ring_available, ring_release, ring_take, span_lies_in
from .fork_snapshot cimport (
    fork_snapshot_add,
    fork_snapshot_hold,
    fork_snapshot_hold_nothing,
    fork_snapshot_lock,
    fork_snapshot_remove,
    fork_snapshot_unlock,
)

from ..batch.arrow._export import drop_released
from ..errors import ClosedError
from .logger import log_safely

__all__ = ["Lease"]


@cython.final
@cython.no_gc
cdef class LeasedArena:
    """The arena of a shared ring, as its leases see it, and in a forked child what these showed at the fork.

    Every lease of the ring keeps it. Of a private ring's arena the kernel makes that copy.
    """

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
cdef class LeasedBlock(RowBlock):
    """A run of a ring's own rows over its whole arena. They are released when it is over and the last view has gone.

    The rows of a shared ring are copied and checked, since whoever shares it could change their offsets after the check;
    their payload is read where it lies.
    """

    def __dealloc__(self):
        self.give_back()

    cdef int take(self, EventRing owner, BufferPool pool, LeasedArena arena, uint64_t most) except -1:
        """Takes what waits, at most `most` events. `arena` is the ring's if it is shared, and else None."""
        cdef Ring* ring = &owner.ring
        cdef EventRow* last
        most = min(most, ring_available(ring, most), <uint64_t>0xFFFFFFFF)
        if most == 0:
            return 0
        if ring.shared:
            # Before anything is taken: no memory for the copy, and the events are still there.
            self.memory = pool.take(most * sizeof(EventRow), &self.memory_bytes)
            if self.memory == NULL:
                raise MemoryError(f"no memory for the rows of a lease of {most} events")
            self.pool = pool
        self.ring = owner
        if ring.shared:
            self.arena = arena
            fork_snapshot_lock()
            if ring_take(ring, <uint32_t>most, &self.lease) != 0:
                self.is_out = True
                self.arena.end = ring.local.consumer.arena_taken
                self.arena.hold()
            fork_snapshot_unlock()
        else:
            self.is_out = ring_take(ring, <uint32_t>most, &self.lease) != 0
        if not self.is_out:
            return owner.check_consumer()
        self.rows = self.lease.rows
        if ring.shared:
            self.rows = <EventRow*>self.memory
            nodedb_copy(self.rows, self.lease.rows, self.lease.count * sizeof(EventRow))
            last = self.rows + (self.lease.count - 1)
            if not shift_checked(self.rows, last + 1, 0, ring.arena_bytes, self.rows) or not span_lies_in(ring, last):
                ring_consumer_corrupt(ring, CORRUPT_ROW, self.rows.position)
                owner.check_consumer()
        self.is_leased = True
        self.count = self.lease.count
        self.bytes = ring.arena
        last = self.rows + (self.count - 1)
        self.payload_bytes = last.span_offset + last.span_length
        if row_lap(last) != row_lap(self.rows):
            # The run continues in the next lap of the arena: its bytes are at both ends.
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
        """Releases the rows, once. In a critical section of this block."""
        if self.is_out:
            self.is_out = False
            # Every other call of the consumer is kept away, whichever thread drops the last view.
            with cython.critical_section(self.ring):
                if self.ring.ring.local.alive:
                    if self.arena is None:
                        ring_release(&self.ring.ring, &self.lease)
                    else:
                        fork_snapshot_lock()
                        ring_release(&self.ring.ring, &self.lease)
                        self.arena.hold()
                        fork_snapshot_unlock()
                    if self.ring.is_over and self.ring.ring.local.consumer.oldest == NULL:
                        ring_release_role(&self.ring.ring)

    cdef Py_ssize_t holders(self) noexcept:
        """How many arrays and batches keep the rows of a lease that has ended; 0 when they have gone back."""
        with cython.critical_section(self):
            if not self.is_out:
                return 0
            return self.pins if self.ended_by_exception else self.views

    cdef void end(self, bint by_exception) noexcept:
        """Ends the lease. After an exception, whose traceback may keep what it will, slices hold nothing: they cannot be
        read any more."""
        with cython.critical_section(self):
            self.ended = True
            self.ended_by_exception = by_exception
            if self.views == 0 or (by_exception and self.pins == 0):
                self.give_back()


@cython.final
@cython.no_gc
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
        At the end of the block, if an array still refers to the lease: copy what outlives it. Rows are released when
        the last such array dies. It is not raised while another exception passes; then a WARNING is logged, once a
        consumer. Usually that exception's traceback keeps the array, as long as it exists itself.

    Thread safety
    -------------
    Ends on any thread that has an interpreter's state. Native code that takes from the same ring must not run at that
    moment.
    """

    def __cinit__(self, LeasedBlock block not None, EventBatch batch not None):
        self._block = block
        self._batch = batch

    @property
    def batch(self):
        """The events of this lease, an ``EventBatch``."""
        return _batch_of(self)

    def __enter__(self):
        return _batch_of(self)

    def __exit__(self, exc_type, exc_value, traceback):
        self._end(exc_type is not None)

    def release(self):
        """Ends the lease, as leaving its block does. May be repeated."""
        self._end(False)

    cdef int _end(self, bint by_exception) except -1:
        cdef EventBatch batch
        cdef Py_ssize_t holders
        cdef bint is_due
        with cython.critical_section(self):
            batch = self._batch
            self._batch = None
        if batch is None:
            return 0
        self._block.end(by_exception)
        # The batch's own arrays are not somebody else's views. After the end: whoever stores one looks then whether the
        # lease is over, and takes it out again.
        batch.drop_arrays()
        del batch
        holders = self._block.holders()
        if holders != 0:
            # Importers may have dropped it without the GIL, and the main thread not have come by since.
            drop_released()
            holders = self._block.holders()
        if holders == 0:
            return 0
        if not by_exception:
            raise BufferError(
                f"{holders} arrays or batches still refer to a lease of {self._block.count} events that has "
                "ended: copy what outlives it; its rows are released when the last of them dies"
            )
        with cython.critical_section(self._block.ring):
            is_due = not self._block.ring.is_pin_logged and self._block.ring.ring.local.alive
            if is_due:
                self._block.ring.is_pin_logged = True
        if is_due:
            log_safely(
                logging.WARNING,
                "core %d: an exception ended a lease of %d events, and %d arrays still refer to it: its rows are"
                " released when the last of them dies; the traceback keeps those of its frames",
                self._block.ring.core_id, self._block.count, holders,
                extra={
                    "core": self._block.ring.core_id,
                    "utilization": self._block.ring.utilization,
                    "dropped": load_relaxed(&self._block.ring.ring.header.dropped_full)
                    + load_relaxed(&self._block.ring.ring.header.dropped_disconnected),
                },
            )


cdef inline EventBatch _batch_of(Lease lease):
    with cython.critical_section(lease):
        if lease._batch is None:
            raise ClosedError("this lease has ended")
        return lease._batch
