# cython: language_level=3, auto_pickle=False, autotestdict=False
# cython: freethreading_compatible=True
"""The checksum of a log's batches."""

from cpython.buffer cimport PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t

__all__ = ["crc32c"]

cdef extern from "nodedb_crc32c.h" nogil:
    void crc32c_prepare "nodedb_crc32c_prepare"() noexcept
    uint32_t crc32c_of "nodedb_crc32c"(uint32_t crc, const uint8_t* data, size_t size, bint portable) noexcept

crc32c_prepare()


def crc32c(data, uint32_t before=0, *, bint portable=False):
    """The CRC-32C of a buffer's bytes, continued from that of the bytes before. `portable` avoids the instruction."""
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, 0)
    try:
        return crc32c_of(before, <const uint8_t*>view.buf, view.len, portable)
    finally:
        PyBuffer_Release(&view)
