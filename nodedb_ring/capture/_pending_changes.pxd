# The changes of a transaction that is not committed yet.

from libc.stdint cimport int64_t, uint64_t

from ._change_block cimport ChangeBlock


cdef class PendingChanges:
    cdef int64_t* standing       # how many changes are not undone: SQLite's word, by way of the virtual table
    cdef list full               # blocks that take no more
    cdef int64_t before          # changes in them
    cdef ChangeBlock block       # the one that is written to
    cdef ChangeBlock spare       # for the next transaction, or None
    cdef list refusals           # (number of the change, the exception that refused it)
    cdef object end_sequence     # the number behind the last one that was given

    # The block to write the next change to; keep() then makes it one of the changes.
    cdef ChangeBlock room(self)
    cdef void keep(self) noexcept
    # Puts an exception where the change would stand.
    cdef int refuse(self, error) except -1
    cdef int drop_undone(self) except -1
    cdef object first_refusal(self)
    # Gives each change its numbers, from `sequence` on. A HEARTBEAT follows if the last is larger than `arena_bytes`.
    cdef int number(self, sequence, lsn, uint64_t tenant_id, uint64_t vshard_id, uint64_t arena_bytes) except -1
    # The blocks, which are the caller's from here on. give_back() may use their memory again.
    cdef list take(self)
    cdef int give_back(self, list blocks) except -1
    cdef int clear(self) except -1
