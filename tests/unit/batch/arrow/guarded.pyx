# cython: language_level=3, boundscheck=False, wraparound=False
# cython: freethreading_compatible=True
"""The passes over rows and payload, on memory before or behind a page that nobody may touch."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memset

from nodedb_ring.batch.arrow.columns cimport Columns, View, Window, write_columns
from nodedb_ring.batch.arrow.plain_columns cimport PLAIN_STEP, PlainColumns, copy_values, write_ends
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
    """Pages between two guard pages; a read or write of a guard page ends the process."""

    cdef uint8_t* begin
    cdef uint8_t* end

    def __cinit__(self, size_t pages=1):
        cdef size_t size = PAGE * pages
        cdef void* memory = mmap(NULL, size + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        if memory == MAP_FAILED:
            raise MemoryError(f"no memory for {pages} pages")
        self.begin = <uint8_t*>memory + PAGE
        self.end = self.begin + size
        if mprotect(self.begin, size, PROT_READ | PROT_WRITE) != 0:
            raise MemoryError(f"no memory for {pages} pages")

    def __dealloc__(self):
        munmap(self.begin - PAGE, self.end - self.begin + 2 * PAGE)

    def views(self, const uint8_t[::1] rows not None, const uint8_t[:] payload not None, bint at_end, bint portable):
        """The views of ``collection`` and of ``new_value``, 16 bytes a row each; None if text is not UTF-8."""
        cdef uint64_t count = rows.shape[0] // sizeof(EventRow), size = payload.shape[0]
        cdef uint8_t* text = self.end - size if at_end else self.begin
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

    def plain(
        self, const uint8_t[::1] rows not None, const uint8_t[:] payload not None, bint at_end, int field, bint is_large,
        Guarded ends not None, Guarded text not None
    ):
        """Ends and bytes of one field, written to the ends of other pages; None if text is not UTF-8."""
        cdef uint64_t count = rows.shape[0] // sizeof(EventRow), size = payload.shape[0], i
        cdef size_t ends_bytes = (count + 1) * (8 if is_large else 4)
        cdef uint8_t* source = self.end - size if at_end else self.begin
        cdef uint64_t[1024] valid
        cdef PlainColumns columns
        cdef Window window
        cdef int bad = -1
        if count > 64 * 1024 or <ssize_t>size > self.end - self.begin or <ssize_t>ends_bytes > ends.end - ends.begin:
            raise ValueError(f"{count} rows, {size} bytes: there is no room for them")
        for i in range(size):
            source[i] = payload[i]
        memset(&columns, 0, sizeof(columns))
        columns.ends[field] = ends.end - ends_bytes
        columns.is_large[field] = is_large
        columns.valid[field] = valid if field >= 2 else NULL
        window.bytes = source
        window.size = size
        window.base = 0
        window.shift = 28
        write_ends(&columns, <const EventRow*>&rows[0], count)
        if <ssize_t>columns.size[field] + PLAIN_STEP > text.end - text.begin:
            raise ValueError(f"{columns.size[field]} bytes: there is no room for them")
        columns.bytes[field] = text.end - columns.size[field] - PLAIN_STEP
        if copy_values(&columns, <const EventRow*>&rows[0], count, &window, &bad) != count:
            return None
        return (
            (<uint8_t*>columns.ends[field])[:ends_bytes],
            columns.bytes[field][:columns.size[field]],
        )

    def touch_beyond(self):
        """Ends the process: what the tests rest on."""
        self.end[0] = 1
