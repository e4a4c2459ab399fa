# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
# distutils: extra_compile_args = -O3
"""``CopyReader``: what COPY sends of a table, as INSERT events."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport UINT32_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr

from .._change_block cimport OP_INSERT
from ._pgoutput cimport Decoder, refusal
from .pgoutput cimport (
    PG_OK,
    PG_TRUNCATED,
    PG_UNKNOWN_RELATION,
    PostgresResult,
    postgres_read_copied,
    postgres_relation_find,
)

__all__ = ["CopyReader"]


@cython.final
cdef class CopyReader:
    """A file for psycopg2's ``copy_expert`` to write into.

    Parameters
    ----------
    decoder : Decoder
        Where the events go; it has a description of the table.
    oid : int
        Of the table.
    deliver : callable
        Called whenever the decoder's block is large.
    """

    cdef Decoder decoder
    cdef uint32_t oid
    cdef object deliver
    cdef bytes rest        # the beginning of a row whose end is still to come
    cdef uint8_t* plain
    cdef uint64_t room

    def __init__(self, Decoder decoder not None, uint32_t oid, deliver):
        self.decoder = decoder
        self.oid = oid
        self.deliver = deliver
        self.rest = b""

    def __dealloc__(self):
        free(self.plain)

    def write(self, bytes data not None):
        """Takes rows, whole or not.

        Raises
        ------
        CaptureError
            A row is not one of the table.
        """
        cdef const uint8_t* at
        cdef const uint8_t* end
        cdef const uint8_t* newline
        cdef PostgresResult result = PG_OK
        cdef void* grown
        if self.rest:
            data = self.rest + data
            self.rest = b""
        at = <const uint8_t*>PyBytes_AS_STRING(data)
        end = at + PyBytes_GET_SIZE(data)
        if <uint64_t>(end - at) > self.room:
            grown = realloc(self.plain, 2 * (end - at))
            if grown == NULL:
                raise MemoryError
            self.plain = <uint8_t*>grown
            self.room = 2 * <uint64_t>(end - at)
        while at < end:
            newline = <const uint8_t*>memchr(at, 10, end - at)
            if newline == NULL:
                self.rest = data[PyBytes_GET_SIZE(data) - (end - at):]
                return
            with nogil:
                result = copy_row(self, at, <uint64_t>(newline - at))
            if result != PG_OK:
                raise refusal(self.decoder, result, at[:newline - at])
            at = newline + 1
            if self.decoder.is_large:
                self.deliver()

    def finish(self):
        """All that COPY sends was written.

        Raises
        ------
        CaptureError
            The last row has no end.
        """
        if self.rest:
            self.decoder.bad_column = UINT32_MAX
            raise refusal(self.decoder, PG_TRUNCATED, self.rest)


cdef PostgresResult copy_row(CopyReader self, const uint8_t* line, uint64_t size) except? <PostgresResult>-1 nogil:
    cdef PostgresResult result
    self.decoder.bad_column = UINT32_MAX
    self.decoder.relation = postgres_relation_find(&self.decoder.relations, self.oid)
    if self.decoder.relation == NULL:
        return PG_UNKNOWN_RELATION
    result = postgres_read_copied(line, size, self.plain, self.decoder.relation, self.decoder.after)
    if result != PG_OK:
        return result
    self.decoder.received += 1
    return self.decoder.write_event(OP_INSERT, self.decoder.after, NULL, self.decoder.after, NULL, False)
