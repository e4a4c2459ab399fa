# The log of one core, written in the transaction that commits.

from libc.stdint cimport int64_t, uint64_t

from ._change_block cimport ChangeBlock
from .own_statements cimport OwnStatements


cdef class TransactionLog:
    cdef OwnStatements* statements  # of the virtual table, whose owner keeps it
    cdef object connection          # a weak reference
    cdef readonly int64_t core_id
    cdef uint64_t id_state          # of the generator of batch ids; 0: not seeded yet

    # The number after the last one that the log has, or had before it was trimmed; 0 before the first.
    cdef int64_t next_sequence(self) except -1
    # The number after that of the database's last captured commit, whichever core's it was; 1 before the first.
    cdef int64_t next_commit(self) except -1
    # Adds a block of a commit, as one row unless it is larger than a row can be.
    cdef int append(self, ChangeBlock block, int64_t commit) except -1
    # What tells the next row from any other, in this log or in a copy of it.
    cdef int64_t next_batch_id(self) except -1
    # Removes what the open transaction has added, from its first number on, with the number of that commit.
    cdef int take_back(self, first_sequence, int64_t commit) except -1


# The schema's version. SQLite must have the virtual table connected.
cdef int64_t schema_version(OwnStatements* statements) except? -1
# A number that is another one when other connections have committed since. The same holds.
cdef int64_t data_version(OwnStatements* statements) except? -1
