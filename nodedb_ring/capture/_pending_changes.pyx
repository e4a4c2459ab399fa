# cython: language_level=3, auto_pickle=False, autotestdict=False
# cython: freethreading_compatible=True
"""``PendingChanges``: what a transaction has changed so far, in blocks, each of which fits into a row of a log.

A change that SQLite undoes stays where it is until the next one is written: how many stand is known elsewhere, and this
object is told by `standing`. A change that could not be recorded has a row without use, and its exception beside it; so
what undoes the change takes back the refusal too.
"""

cimport cython
from libc.stdint cimport int64_t, uint64_t
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

from ..core.atomic cimport store_relaxed

from ..errors import FieldError

__all__ = ["PendingChanges"]

cdef object _LARGEST = 2**64 - 1


@cython.final
cdef class PendingChanges:
    """Not safe for two threads at once."""

    def __cinit__(self):
        self.clear()

    cdef ChangeBlock room(self):
        if self.before + <int64_t>self.block.count != self.standing[0]:
            self.drop_undone()
        if self.block.is_full():
            self.full.append(self.block)
            self.before += self.block.count
            self.block = ChangeBlock.__new__(ChangeBlock)
        self.block.discard()  # what was written when an exception came between
        return self.block

    cdef void keep(self) noexcept:
        store_relaxed(<uint64_t*>self.standing, <uint64_t>(self.standing[0] + self.block.written))
        self.block.keep()

    cdef int refuse(self, error) except -1:
        self.room().write_heartbeat()
        self.refusals.append((self.standing[0], error))
        self.keep()
        return 0

    cdef int drop_undone(self) except -1:
        cdef int64_t standing = self.standing[0]
        while self.full and standing <= self.before:
            self.block = self.full.pop()
            self.before -= self.block.count
        self.block.truncate(standing - self.before)
        while self.refusals and self.refusals[-1][0] >= standing:
            self.refusals.pop()
        return 0

    cdef object first_refusal(self):
        if self.refusals:
            self.drop_undone()
        return self.refusals[0][1] if self.refusals else None

    cdef int number(self, sequence, lsn, uint64_t tenant_id, uint64_t vshard_id, uint64_t arena_bytes) except -1:
        cdef ChangeBlock block
        cdef timespec now
        cdef int64_t now_ms
        self.drop_undone()
        block = self.block
        if block.row_bytes(block.count - 1) > arena_bytes:
            block.write_heartbeat()
            block.keep()
        self.end_sequence = sequence + self.before + block.count
        for name, number in (("sequence", self.end_sequence - 1), ("lsn", lsn)):
            if number > _LARGEST:
                raise FieldError(f"{name} {number}: must be in 0 .. {_LARGEST}")
        clock_gettime(CLOCK_REALTIME, &now)
        now_ms = <int64_t>now.tv_sec * 1000 + now.tv_nsec // 1000000
        for block in self.full:
            block.stamp(sequence, lsn, now_ms, tenant_id, vshard_id)
            sequence += block.count
        self.block.stamp(sequence, lsn, now_ms, tenant_id, vshard_id)
        return 0

    cdef list take(self):
        cdef list blocks = [*self.full, self.block]
        self.block = None
        return blocks

    cdef int give_back(self, list blocks) except -1:
        if (<ChangeBlock>blocks[0]).reuse():
            self.spare = blocks[0]
        return 0

    cdef int clear(self) except -1:
        self.full = []
        self.before = 0
        self.refusals = []
        if self.block is None or not self.block.reuse():
            self.block = self.spare if self.spare is not None else ChangeBlock.__new__(ChangeBlock)
            self.spare = None
        return 0
