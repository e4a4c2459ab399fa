# cython: language_level=3, auto_pickle=False, autotestdict=False
# cython: freethreading_compatible=True
"""``TransactionLog``: appends the blocks of a transaction to the log in its database, while the transaction commits.

The statements are prepared once (``nodedb_own_statements.h``), and read the blocks where they are.
"""

cimport cython
from libc.stdint cimport uint8_t, uint64_t

from ..core.layout cimport EventRow
from ..log._checksum cimport batch_checksum
from .own_statements cimport (
    DATA_VERSION,
    SCHEMA_VERSION,
    LogRow,
    OwnStatements,
    own_append,
    own_last_commit,
    own_last_sequence,
    own_message,
    own_number,
)

import apsw

from ..batch._event_batch import EventBatch
from ..errors import LogError
from ..log.sqlite.append import MOST_BYTES, append_statements
from ..log.sqlite.schema import MOST
from ..log.token import new_batch_id
from ._own_sql import rows

__all__ = ["TransactionLog"]

cdef extern from "Python.h":
    void* PyErr_Occurred() noexcept

cdef int64_t _MOST = MOST
cdef uint64_t _MOST_BYTES = MOST_BYTES
# What another capture of the connection has added behind it has a higher number, and is added again, too.
cdef object _TAKE_BACK = (
    "DELETE FROM nodedb_ring_log WHERE (core_id = ?1 OR commit_number > ?3) AND rowid >="
    " (SELECT rowid FROM nodedb_ring_log WHERE core_id = ?1 AND first_sequence = ?2)"
)


cdef int _check(OwnStatements* statements, int result) except -1:
    """Raises what a hook of the application's has raised, or what SQLite reports, as apsw would."""
    if PyErr_Occurred() != NULL:
        return -1
    if result == 0:
        return 0
    cause = apsw.exception_for(result)
    error = type(cause)((<bytes>own_message(statements)).decode("utf-8", "replace"))
    error.result = result & 0xFF
    error.extendedresult = result
    raise error


cdef int64_t schema_version(OwnStatements* statements) except? -1:
    cdef int64_t version = 0
    cdef int found
    _check(statements, own_number(statements, SCHEMA_VERSION, 0, &version, &found))
    return version


cdef int64_t data_version(OwnStatements* statements) except? -1:
    cdef int64_t version = 0
    cdef int found
    _check(statements, own_number(statements, DATA_VERSION, 0, &version, &found))
    return version


@cython.final
cdef class TransactionLog:
    """The log of one core. Not safe for two threads at once."""

    cdef int64_t next_sequence(self) except -1:
        cdef int64_t last = -1
        _check(self.statements, own_last_sequence(self.statements, self.core_id, &last))
        if last == _MOST:
            raise LogError(f"sequence {last + 1}: SQLite stores numbers up to {_MOST}")
        return last + 1

    cdef int64_t next_commit(self) except -1:
        cdef int64_t last = 0
        _check(self.statements, own_last_commit(self.statements, &last))
        if last == _MOST:
            raise LogError(f"commit {last + 1}: SQLite stores numbers up to {_MOST}")
        return last + 1

    cdef int append(self, ChangeBlock block, int64_t commit) except -1:
        cdef LogRow row
        cdef int result
        if block.payload_bytes > _MOST_BYTES or block.rows[block.count - 1].sequence > <uint64_t>_MOST:
            # Row by row, or refused.
            last_rowid = self.connection().last_insert_rowid()
            try:
                for sql, bindings in append_statements(self.core_id, EventBatch._over(block), commit):
                    rows(self.connection(), sql, bindings)
            finally:
                self.connection().set_last_insert_rowid(last_rowid)
            return 0
        row.core_id = self.core_id
        row.first = block.rows[0].sequence
        row.last = block.rows[block.count - 1].sequence
        row.count = block.count
        row.batch_id = self.next_batch_id()
        row.commit = commit
        row.rows = block.rows
        row.rows_bytes = block.count * sizeof(EventRow)
        row.payload = block.bytes
        row.payload_bytes = block.payload_bytes
        with nogil:
            row.checksum = batch_checksum(
                row.core_id,
                row.first,
                row.last,
                row.count,
                <const uint8_t*>row.rows,
                row.rows_bytes,
                <const uint8_t*>row.payload,
                row.payload_bytes,
            )
            result = own_append(self.statements, &row)
        return _check(self.statements, result)

    cdef int64_t next_batch_id(self) except -1:
        # SplitMix64 from a random seed: no system call a transaction.
        cdef uint64_t mixed
        if self.id_state == 0:
            self.id_state = new_batch_id()
        self.id_state += <uint64_t>0x9E3779B97F4A7C15
        mixed = self.id_state
        mixed = (mixed ^ (mixed >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
        mixed = (mixed ^ (mixed >> 27)) * <uint64_t>0x94D049BB133111EB
        return <int64_t>((mixed ^ (mixed >> 31)) >> 1) | 1

    cdef int take_back(self, first_sequence, int64_t commit) except -1:
        rows(self.connection(), _TAKE_BACK, (self.core_id, first_sequence, commit))
        return 0
