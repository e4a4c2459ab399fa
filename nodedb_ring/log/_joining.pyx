# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
# distutils: extra_compile_args = -O3
"""Stored batches, many at a time, as one: a batch of a few events costs as much to decode by itself as a large one."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.long cimport PyLong_CheckExact
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc

from ..batch._row_block cimport RowBlock, new_block
from ..batch._row_checks cimport copy_rows
from ..core.layout cimport HEARTBEAT, NULL_LENGTH, EventRow
from ._checksum cimport batch_checksum

__all__ = ["join_stored", "take_rows"]

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object value, int* overflow) noexcept

cdef uint64_t MOST = (1 << 63) - 1

cdef struct Stored:
    uint64_t first, last, count, checksum
    const uint8_t* rows
    const uint8_t* payload
    uint64_t payload_bytes


cdef bint _number(object value, uint64_t most, uint64_t* number) noexcept:
    """Whether a value is a number up to `most`, which is below 2**63."""
    cdef int overflow = 0
    cdef long long found
    if not PyLong_CheckExact(value):
        return False
    found = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow != 0 or found < 0 or <uint64_t>found > most:
        return False
    number[0] = <uint64_t>found
    return True


def take_rows(cursor, uint64_t events, uint64_t size):
    """Rows of a log's table, until they have so many events or bytes: those of one at least."""
    cdef uint64_t found_events = 0, found_bytes = 0
    cdef Stored stored
    cdef list rows = []
    for row in cursor:
        rows.append(row)
        if _find(row, &stored):
            found_events += stored.count
            found_bytes += stored.count * sizeof(EventRow) + stored.payload_bytes
        if found_events >= events or found_bytes >= size:
            break
    return rows


cdef bint _find(object row, Stored* stored) except -1:
    """What a row says that it has; whether that can be so."""
    cdef object rows, payload
    if type(row) is not tuple or PyTuple_GET_SIZE(row) != 6:
        return False
    if not (
        _number(<object>PyTuple_GET_ITEM(row, 0), MOST, &stored.first)
        and _number(<object>PyTuple_GET_ITEM(row, 1), MOST, &stored.last)
        and _number(<object>PyTuple_GET_ITEM(row, 2), 1 << 32, &stored.count)
        and _number(<object>PyTuple_GET_ITEM(row, 3), MOST, &stored.checksum)
    ):
        return False
    rows, payload = <object>PyTuple_GET_ITEM(row, 4), <object>PyTuple_GET_ITEM(row, 5)
    if not PyBytes_CheckExact(rows) or not PyBytes_CheckExact(payload) or stored.count == 0:
        return False
    if <uint64_t>PyBytes_GET_SIZE(rows) != stored.count * sizeof(EventRow):
        return False
    stored.rows = <const uint8_t*>PyBytes_AS_STRING(rows)
    stored.payload = <const uint8_t*>PyBytes_AS_STRING(payload)
    stored.payload_bytes = PyBytes_GET_SIZE(payload)
    return True


cdef bint _is_intact(
    const Stored* stored, uint64_t core_id, EventRow* rows, uint8_t* payload, uint64_t offset
) noexcept nogil:
    """Copies what a row has, with the payload to `offset` on. Whether it is what was stored."""
    cdef uint64_t i
    if stored.checksum != batch_checksum(
        core_id,
        stored.first,
        stored.last,
        stored.count,
        stored.rows,
        stored.count * sizeof(EventRow),
        stored.payload,
        stored.payload_bytes,
    ):
        return False
    if not copy_rows(rows, stored.rows, stored.count, payload, offset, stored.payload, stored.payload_bytes):
        return False
    for i in range(1, stored.count):
        if rows[i].sequence <= rows[i - 1].sequence:
            return False
    return rows[0].sequence == stored.first and rows[stored.count - 1].sequence == stored.last


def join_stored(uint64_t core_id, list rows):
    """The block of as many rows as are intact, in order, and how many those are; (None, 0) if the first is damaged.

    A row is a tuple of first and last number, count, checksum, rows and payload. What is wrong with the first damaged
    one ``decode_batch`` says.
    """
    cdef Py_ssize_t count = len(rows), found = 0, intact = 0
    cdef uint64_t events = 0, payload_bytes = 0, at = 0, offset = 0, i
    cdef RowBlock block
    cdef bint is_run = True
    cdef Stored* stored = <Stored*>malloc((count + 1) * sizeof(Stored))
    if stored == NULL:
        raise MemoryError
    try:
        while found < count and _find(rows[found], stored + found):
            if payload_bytes + stored[found].payload_bytes >= NULL_LENGTH:
                break
            events += stored[found].count
            payload_bytes += stored[found].payload_bytes
            found += 1
        if found == 0:
            return None, 0
        block = new_block(events, payload_bytes, None)
        with nogil:
            while intact < found and _is_intact(stored + intact, core_id, block.rows + at, block.bytes, offset):
                if at != 0 and block.rows[at].sequence <= block.rows[at - 1].sequence:
                    break
                at += stored[intact].count
                offset += stored[intact].payload_bytes
                intact += 1
            for i in range(at):
                if block.rows[i].op == HEARTBEAT or block.rows[i].sequence != block.rows[0].sequence + i:
                    is_run = False
                    break
        if intact == 0:
            return None, 0
        block.is_run = is_run
        return block if intact == found else block.slice(0, at), intact
    finally:
        free(stored)
