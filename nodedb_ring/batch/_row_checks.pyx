# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
# distutils: extra_compile_args = -O3
"""Whether rows from outside are events: each is checked once, and where it is taken over, after it was copied."""

from cpython.buffer cimport PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint32_t

from ..core.copy cimport nodedb_copy
from ..core.layout cimport NULL_LENGTH, EventField, clear_unnamed, shift_fields
from ..core.schema cimport FIELD_COUNT, FIELD_ROW_ID, LAST_OP, LAST_SOURCE, STRING_COUNT
from ._row_block cimport RowBlock, new_block
from .utf8 cimport utf8_prefix

from ..errors import BatchError
from .schema import STRING_FIELDS, VALUE_FIELDS, EventSource, WriteOp

__all__ = ["checked_copy"]

cdef tuple _NAMES = STRING_FIELDS + VALUE_FIELDS


cdef int check_payload_size(uint64_t size) except -1:
    # All ones is the length of None, and every offset is an u32.
    if size >= NULL_LENGTH:
        raise BatchError(f"payload of {size} bytes: a batch holds at most {NULL_LENGTH - 1}; use several")
    return 0


cdef object _refusal(uint64_t i, str what):
    return BatchError(f"row {i}: {what}")


cdef int check_row(const EventRow* row, const uint8_t* payload, uint64_t payload_bytes, int* field) noexcept nogil:
    cdef const EventField* at
    cdef int k
    if row.op == 0 or row.op > LAST_OP:
        return 1
    if row.source > LAST_SOURCE:
        return 2
    for k in range(FIELD_COUNT):
        at = &row.field[k]
        field[0] = k
        if at.length == NULL_LENGTH:
            # Of the first two fields, collection and row_id, neither is ever None.
            if k <= FIELD_ROW_ID:
                return 3
        elif <uint64_t>at.offset + at.length > payload_bytes:
            return 4
        elif k < STRING_COUNT and utf8_prefix(payload + at.offset, at.length) != at.length:
            return 5
    return 0


cdef int check_rows(
    const EventRow* rows, uint64_t count, const uint8_t* payload, uint64_t payload_bytes, uint64_t number
) except -1:
    cdef uint64_t i = 0
    cdef int wrong = 0, k = 0
    cdef const EventField* at
    while i < count:
        wrong = check_row(rows + i, payload, payload_bytes, &k)
        if wrong != 0:
            break
        i += 1
    if wrong == 0:
        return 0
    rows += i
    number += i
    at = &rows.field[k]
    if wrong == 1:
        raise _refusal(number, f"op {rows.op}: unknown; known are {', '.join(f'{int(o)} ({o})' for o in WriteOp)}")
    if wrong == 2:
        known = ", ".join([f"{int(s)} ({s})" for s in EventSource])
        raise _refusal(number, f"source {rows.source}: unknown; known are {known}")
    if wrong == 3:
        raise _refusal(number, f"{_NAMES[k]} is None: must be a string; use an empty one if there is no value")
    if wrong == 4:
        raise _refusal(
            number, f"{_NAMES[k]} at {at.offset} of {at.length} bytes: lies outside the payload of {payload_bytes} bytes"
        )
    stops = utf8_prefix(payload + at.offset, at.length)
    shown = PyBytes_FromStringAndSize(<const char*>payload + at.offset, min(at.length, 64))
    raise _refusal(number, f"{_NAMES[k]} {shown!r}: is not UTF-8 from its byte {stops} on")


cdef void _settle(EventRow* row) noexcept nogil:
    """Sets the bytes of a row that its maker may have left unset: those of no column, and those of None.

    In an array of ``EVENT_DTYPE`` they may be old contents of memory, and in an old log those of another process.
    """
    cdef uint32_t behind = 0
    cdef int k
    clear_unnamed(row)
    for k in range(FIELD_COUNT):
        if row.field[k].length == NULL_LENGTH:
            row.field[k].offset = behind
        else:
            behind = row.field[k].offset + row.field[k].length


cdef bint copy_rows(
    EventRow* to,
    const void* rows,
    uint64_t count,
    uint8_t* base,
    uint64_t offset,
    const void* payload,
    uint64_t payload_bytes,
) noexcept nogil:
    cdef uint64_t i
    cdef int field = 0
    nodedb_copy(to, rows, count * sizeof(EventRow))
    nodedb_copy(base + offset, payload, payload_bytes)
    for i in range(count):
        if check_row(to + i, base + offset, payload_bytes, &field) != 0:
            return False
        _settle(to + i)
        if offset != 0:
            shift_fields(to + i, <uint32_t>offset)
    return True


def checked_copy(records, payload):
    """A block that holds copies of rows and payload (contiguous arrays), checked after they were copied.

    Only the columns are copied: of the bytes that none names the copy has zeros.
    """
    cdef Py_buffer row_view, payload_view
    cdef RowBlock block
    cdef uint64_t i
    PyObject_GetBuffer(records, &row_view, 0)
    try:
        PyObject_GetBuffer(payload, &payload_view, 0)
        try:
            check_payload_size(payload_view.len)
            block = new_block(row_view.len // sizeof(EventRow), payload_view.len, None)
            nodedb_copy(block.rows, row_view.buf, row_view.len)
            nodedb_copy(block.bytes, payload_view.buf, payload_view.len)
        finally:
            PyBuffer_Release(&payload_view)
    finally:
        PyBuffer_Release(&row_view)
    check_rows(block.rows, block.count, block.bytes, block.payload_bytes, 0)
    for i in range(block.count):
        _settle(block.rows + i)
    return block
