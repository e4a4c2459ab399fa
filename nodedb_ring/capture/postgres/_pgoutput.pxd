# The decoder of pgoutput, for the module that reads the rows of a snapshot.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from .._change_block cimport ChangeBlock
from .pgoutput cimport POSTGRES_MOST_COLUMNS, PostgresField, PostgresRelation, PostgresRelations, PostgresResult


cdef class Decoder:
    cdef ChangeBlock block
    cdef PostgresRelations relations
    cdef PostgresRelation* relation      # that the message is about, or NULL
    cdef uint32_t bad_column             # of it, where the message was refused
    cdef uint64_t next_sequence, tenant_id
    cdef uint32_t vshard_id
    # The transaction that is read.
    cdef bint in_transaction
    cdef uint64_t lsn                    # of its commit
    cdef int64_t time_ms
    cdef uint64_t events                 # of it so far, skipped or not
    # What was delivered before: all commits below, and so many events of this one.
    cdef uint64_t resume_lsn, resume_events
    cdef uint64_t end_lsn                # where the last commit ends that was read to its end
    cdef uint64_t received
    cdef bint drained
    cdef list messages                   # that were not decoded, because the block was full
    cdef PostgresField before[POSTGRES_MOST_COLUMNS]
    cdef PostgresField after[POSTGRES_MOST_COLUMNS]

    cdef PostgresResult decode(self, const uint8_t* message, uint64_t size) except? <PostgresResult>-1 nogil
    # One event, of `fields` as the new or the old row.
    cdef PostgresResult write_event(
        self, uint8_t op, const PostgresField* keyed, const PostgresField* key_before, const PostgresField* new,
        const PostgresField* old, bint old_is_key
    ) except? <PostgresResult>-1 nogil


# Why a message is refused, as an exception.
cdef object refusal(Decoder self, PostgresResult result, bytes message)
