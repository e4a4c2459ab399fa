# Whether text is ASCII, and where it stops being UTF-8.

from libc.stdint cimport uint8_t

cdef extern from "nodedb_utf8.h" nogil:
    bint is_ascii "nodedb_is_ascii"(const uint8_t* text, size_t size) noexcept
    size_t utf8_prefix "nodedb_utf8_prefix"(const uint8_t* text, size_t size) noexcept
