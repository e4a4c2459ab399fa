# cython: language_level=3, boundscheck=False, wraparound=False
"""The pass over the rows, on a payload before or behind a page that nobody may touch."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memset

from nodedb_ring._columns cimport Columns, View, Window, write_columns
from nodedb_ring._ring cimport EventRow

cdef extern from "<sys/mman.h>" nogil:
    enum:
        PROT_NONE, PROT_READ, PROT_WRITE, MAP_ANONYMOUS, MAP_PRIVATE
    void* MAP_FAILED
    void* mmap(void* at, size_t size, int protection, int flags, int fd, long offset)
    int mprotect(void* at, size_t size, int protection)
    int munmap(void* at, size_t size)

cdef enum:
    PAGE = 4096


cdef class Guarded:
    """One page between two that end the process of whoever reads or writes there."""

    cdef uint8_t* pages

    def __cinit__(self):
        cdef void* pages = mmap(NULL, 3 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        if pages == MAP_FAILED or mprotect(<uint8_t*>pages + PAGE, PAGE, PROT_READ | PROT_WRITE) != 0:
            raise MemoryError("no memory for three pages")
        self.pages = <uint8_t*>pages

    def __dealloc__(self):
        munmap(self.pages, 3 * PAGE)

    def views(self, const uint8_t[::1] rows not None, const uint8_t[:] payload not None, bint at_end, bint portable):
        """The views of ``collection`` and of ``new_value``, 16 bytes a row each; None if text is not UTF-8."""
        cdef uint64_t count = rows.shape[0] // sizeof(EventRow), size = payload.shape[0]
        cdef uint8_t* text = self.pages + PAGE + (PAGE - size if at_end else 0)
        cdef bytearray texts = bytearray(16 * count)
        cdef bytearray values = bytearray(16 * count)
        cdef uint64_t[1024] valid
        cdef Columns columns
        cdef Window window
        cdef uint64_t i
        cdef int field = -1
        if count > 64 * 1024 or size > PAGE:
            raise ValueError(f"{count} rows, {size} bytes: there is room for {64 * 1024}, and {PAGE}")
        for i in range(size):
            text[i] = payload[i]
        memset(&columns, 0, sizeof(columns))
        columns.view[0] = <View*><uint8_t*>texts
        columns.view[4] = <View*><uint8_t*>values
        columns.valid[4] = valid
        window.bytes = text
        window.size = size
        window.base = 0
        window.shift = 28
        if write_columns(&columns, <const EventRow*>&rows[0], count, &window, &field, portable) != count:
            return None
        return bytes(texts), bytes(values)

    def touch_beyond(self):
        """Ends the process: what the tests rest on."""
        self.pages[2 * PAGE] = 1
