# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
# distutils: extra_compile_args = -O3
"""What is put back to back: the rows of blocks, events, and the values of a column."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ..core.layout cimport NULL_LENGTH, EventRow, shift_fields
from ..core.row cimport row_is_packed, row_pack
from ._event cimport WriteEvent
from ._event_rows cimport write_event
from ._row_block cimport PACKED, RowBlock, new_block, root_of
from ._row_checks cimport check_payload_size

import numpy as np

from ..errors import BatchError

__all__ = ["block_of_events", "gather", "join_column", "pack"]


cdef uint64_t _append(
    RowBlock block, uint64_t at, uint64_t offset, const EventRow* rows, uint64_t count, const uint8_t* payload
) noexcept nogil:
    """Copies rows to row `at` on and their payload to `offset` on, packed; returns the offset after it."""
    cdef uint64_t need, i
    cdef EventRow* to
    for i in range(count):
        to = block.rows + (at + i)
        memcpy(to, rows + i, sizeof(EventRow))
        if row_is_packed(rows + i, &need):
            shift_fields(to, <uint32_t>offset - to.field[0].offset)
            memcpy(block.bytes + offset, payload + rows[i].field[0].offset, need)
        else:
            row_pack(to, rows + i, block.bytes, offset, payload)
        offset += need
    return offset


def pack(blocks):
    """One block of the rows of several, in order, each event's payload back to back."""
    cdef RowBlock block, packed
    cdef uint64_t count = 0, total = 0, need, i
    cdef list pins = []
    for block in blocks:
        if root_of(block).is_leased:
            pins.append(block.pinned())
        else:
            block.check_open()
        count += block.count
        for i in range(block.count):
            row_is_packed(block.rows + i, &need)
            total += need
    check_payload_size(total)
    packed = new_block(count, total, None)
    count = total = 0
    for block in blocks:
        total = _append(packed, count, total, block.rows, block.count, block.bytes)
        count += block.count
    packed.packing = PACKED
    return packed


def gather(RowBlock block not None, chosen):
    """A packed copy of the rows whose numbers `chosen` holds: a contiguous array of int64, each in [0, count)."""
    cdef Py_buffer view
    cdef const int64_t* numbers
    cdef Py_ssize_t n, i
    cdef uint64_t total = 0, need
    cdef RowBlock copy
    block = block.pinned()
    PyObject_GetBuffer(chosen, &view, PyBUF_SIMPLE)
    try:
        numbers = <const int64_t*>view.buf
        n = view.len // sizeof(int64_t)
        for i in range(n):
            row_is_packed(block.rows + numbers[i], &need)
            total += need
        check_payload_size(total)
        copy = new_block(n, total, None)
        total = 0
        for i in range(n):
            total = _append(copy, i, total, block.rows + numbers[i], 1, block.bytes)
    finally:
        PyBuffer_Release(&view)
    copy.packing = PACKED
    return copy


def block_of_events(list events):
    """A packed block of ``WriteEvent`` objects."""
    cdef WriteEvent event
    cdef RowBlock block
    cdef uint64_t total = 0, i = 0
    for item in events:
        if type(item) is not WriteEvent:
            raise TypeError(f"row {i}: {item!r}: must be a WriteEvent, not {type(item).__name__}")
        event = item
        if event.row.op == 0:
            raise TypeError(f"row {i}: a WriteEvent that __init__ never made has no fields")
        i += 1
        total += event.row.span_length
    check_payload_size(total)
    block = new_block(len(events), total, None)
    total = i = 0
    for item in events:
        event = item
        write_event(event, block.rows + i, block.bytes, total)
        total += event.row.span_length
        i += 1
    block.packing = PACKED
    return block


def join_column(list values, bint is_text, str name, bint is_scalar):
    """The bytes of a column of str or bytes, one after another, and the length of each: (bytes, uint32 array)."""
    cdef bytes lengths = PyBytes_FromStringAndSize(NULL, len(values) * sizeof(uint32_t))
    cdef uint32_t* out = <uint32_t*>PyBytes_AS_STRING(lengths)
    cdef list parts = []
    cdef Py_ssize_t i
    for i in range(len(values)):
        value = values[i]
        if value is None:
            out[i] = NULL_LENGTH
            continue
        if is_text:
            if not isinstance(value, str):
                raise BatchError(f"{_row(i, is_scalar)}{name} {value!r}: must be a str, not {type(value).__name__}")
            try:
                value = (<str>value).encode()
            except UnicodeEncodeError:
                raise BatchError(
                    f"{_row(i, is_scalar)}{name} {value!r}: has a lone surrogate, which UTF-8 cannot hold"
                ) from None
        elif not isinstance(value, bytes):
            raise BatchError(
                f"{_row(i, is_scalar)}{name} {value!r}: must be bytes or None, not {type(value).__name__}"
            )
        if PyBytes_GET_SIZE(value) >= NULL_LENGTH:
            raise BatchError(
                f"{_row(i, is_scalar)}{name} of {PyBytes_GET_SIZE(value)} bytes: at most {NULL_LENGTH - 1} fit"
            )
        out[i] = <uint32_t>PyBytes_GET_SIZE(value)
        parts.append(value)
    return b"".join(parts), np.frombuffer(lengths, np.uint32)


cdef str _row(Py_ssize_t i, bint is_scalar):
    return "" if is_scalar else f"row {i}: "
