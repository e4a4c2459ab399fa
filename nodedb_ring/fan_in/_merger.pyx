# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""The batches of many ends, in turn: ``Merger``.

It is compiled, ``async for`` included, so that no signal handler runs between the taking of a batch and the caller: one
that raised would lose the batch. So nothing of Python's is called in between, not even a property of a follower.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint64_t

from ..core._claims cimport thread_token
from ..core.atomic cimport load_acquire_u32
from ..core.layout cimport GONE
from ..core.take cimport ring_available
from ..ends._consumer cimport EventConsumer
from ..ends._consumer_base cimport found_nothing
from ._wait_set cimport WaitSet

from ..ends.event_loop import check_event_loop
from ..errors import CorruptRingError
from ..recovery.state import NOTHING
from ..recovery.thread_call import yield_to_loop
from .asynchronous import until_ready

__all__ = ["Merger"]


@cython.final
cdef class Merger:
    """What ``merge`` makes: an iterator of ``(core_id, batch)``, ``for`` or ``async for``.

    It ends when all ends have ended: a consumer when its producer has gone and the ring is empty, or when it is closed; a
    follower as its own iteration does. The ends stay the caller's, open, and so does ``commit()`` of a follower, which
    covers the batches that were yielded.

    Raises
    ------
    GapError, LogError
        From a call for the next batch: a follower cannot go on. The next call asks the other ends first, and this one
        again in its turn.
    CorruptRingError
        The same for a consumer, which has ended by that.
    OwnershipError, BusyError, ForkError
        As for ``wait``.

    Thread safety
    -------------
    One thread at a time. ``close()`` of an end from any thread.
    """

    # Those that have not ended.
    cdef WaitSet _ends
    cdef uint64_t _most
    # The ends that were ready when this round began, and how many of them have had their turn.
    cdef list _round
    cdef Py_ssize_t _turns
    cdef object __weakref__

    def __cinit__(self, WaitSet ends not None, uint64_t max_events):
        self._ends = ends
        self._most = max_events
        self._round = []

    def __iter__(self):
        return self

    def __next__(self):
        cdef WaitSet ends
        while True:
            end = self._next_turn()
            if end is None:
                ends = self._of()
                if not ends.ends:
                    raise StopIteration
                # Nothing is held that a handler which raises could lose.
                PyErr_CheckSignals()
                ends.claim()
                self._begin_round(ends.until_ready(-1))
            elif type(end) is EventConsumer:
                taken = self._take(end)
                if taken is not None:
                    return taken
            else:
                core_id = end.core_id
                batch = end._take(0.0)
                if batch is not NOTHING:
                    return core_id, batch
                self._drop_ended(end)

    def __aiter__(self):
        return self

    async def __anext__(self):
        check_event_loop("merge()")
        while True:
            end = self._next_turn()
            if end is None:
                ends = self._of()
                if not ends.ends:
                    raise StopAsyncIteration
                # Also where all cores always have something: the loop's other tasks run once a round.
                await yield_to_loop()
                self._begin_round(await until_ready(ends, None))
            elif type(end) is EventConsumer:
                taken = self._take(end)
                if taken is not None:
                    return taken
            else:
                core_id = end.core_id
                batch = await end._take_async(0.0)
                if batch is not NOTHING:
                    return core_id, batch
                self._drop_ended(end)

    @cython.critical_section
    cdef WaitSet _of(self):
        """The ends that have not ended, held by the caller: another one may leave one out meanwhile."""
        return self._ends

    @cython.critical_section
    cdef object _next_turn(self):
        """The end whose turn it is, or None when all of this round had theirs."""
        if self._turns == len(self._round):
            return None
        self._turns += 1
        return self._round[self._turns - 1]

    @cython.critical_section
    cdef int _begin_round(self, list ready) except -1:
        """Gives each of these ends a turn."""
        self._round = ready
        self._turns = 0
        return 0

    cdef object _take(self, EventConsumer consumer):
        """What a consumer has: ``(core_id, batch)``, or None, and if it has ended it is left out from now on."""
        with cython.critical_section(consumer.ring):
            if consumer._closed:
                self._drop(consumer)
                return None
            try:
                if consumer._ring.local.consumer.owner != thread_token():
                    consumer.claim()
                if ring_available(consumer._ring, 1) != 0:
                    core_id = consumer._ring.core_id
                    return core_id, consumer.take(self._most)
                found_nothing(consumer)
            except CorruptRingError:
                self._drop(consumer)
                raise
            # The second: another process took this one for dead, and no wait of this end ends otherwise any more.
            if consumer.is_producer_disconnected or load_acquire_u32(&consumer._ring.header.consumer_claim) & GONE:
                self._drop(consumer)
            return None

    cdef int _drop_ended(self, follower) except -1:
        """Leaves a follower out if it has ended."""
        if follower.ended:
            self._drop(follower)
        return 0

    @cython.critical_section
    cdef int _drop(self, ended) except -1:
        self._ends = WaitSet([end for end in self._ends.ends if end is not ended])
        return 0
