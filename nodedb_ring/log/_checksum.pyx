# cython: language_level=3, auto_pickle=False, autotestdict=False
# cython: freethreading_compatible=True
"""The checksum of a batch in a log: CRC-32C of the numbers beside it, its rows and its payload."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t

__all__ = ["ENCODING_VERSION", "checksum"]

cdef extern from "nodedb_crc32c.h" nogil:
    void crc32c_prepare "nodedb_crc32c_prepare"() noexcept
    uint32_t crc32c_of "nodedb_crc32c"(uint32_t crc, const uint8_t* data, size_t size, bint portable) noexcept

cdef enum:
    VERSION = 1

ENCODING_VERSION = VERSION

crc32c_prepare()


cdef uint32_t batch_checksum(
    uint64_t core_id,
    uint64_t first,
    uint64_t last,
    uint64_t count,
    const uint8_t* rows,
    uint64_t rows_bytes,
    const uint8_t* payload,
    uint64_t payload_bytes,
) noexcept nogil:
    # In the order of bytes that all supported processors have.
    cdef uint64_t[6] head = [VERSION, core_id, first, last, count, rows_bytes]
    cdef uint32_t crc = crc32c_of(0, <const uint8_t*>head, sizeof(head), False)
    crc = crc32c_of(crc, rows, rows_bytes, False)
    return crc32c_of(crc, payload, payload_bytes, False)


def checksum(uint64_t core_id, uint64_t first, uint64_t last, uint64_t count, rows, payload):
    """The checksum of `rows` and `payload`, which are buffers of bytes, and of the numbers stored beside them."""
    cdef Py_buffer row_view, payload_view
    PyObject_GetBuffer(rows, &row_view, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(payload, &payload_view, PyBUF_SIMPLE)
        try:
            return batch_checksum(
                core_id,
                first,
                last,
                count,
                <const uint8_t*>row_view.buf,
                row_view.len,
                <const uint8_t*>payload_view.buf,
                payload_view.len,
            )
        finally:
            PyBuffer_Release(&payload_view)
    finally:
        PyBuffer_Release(&row_view)
