# cython: language_level=3, boundscheck=False, wraparound=False
# cython: freethreading_compatible=True
"""The passes over row values, on a payload before or behind a page that nobody may touch."""

from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from nodedb_ring._ring cimport EventRow
from nodedb_ring.batch.rows._decode cimport RowPlan
from nodedb_ring.batch.rows.rows cimport (
    ROW_OK,
    RowColumn,
    RowDecoder,
    RowFault,
    RowInfer,
    decode_all,
    infer_all,
    infer_begin,
    infer_free,
    settle_column,
)

cdef extern from "<sys/mman.h>" nogil:
    enum:
        PROT_NONE, PROT_READ, PROT_WRITE, MAP_ANONYMOUS, MAP_PRIVATE
    void* MAP_FAILED
    void* mmap(void* at, size_t size, int protection, int flags, int fd, long offset)
    int mprotect(void* at, size_t size, int protection)
    int munmap(void* at, size_t size)

cdef enum:
    PAGE = 4096
    NEW_VALUE = 4
    BEFORE = 64 # bytes from the origin of offsets to the payload, as in a lease


cdef class Guarded:
    """A page between two that end the process of whoever reads or writes there."""

    cdef uint8_t* page

    def __cinit__(self):
        cdef void* memory = mmap(NULL, 3 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        if memory == MAP_FAILED:
            raise MemoryError("no memory for three pages")
        self.page = <uint8_t*>memory + PAGE
        if mprotect(self.page, PAGE, PROT_READ | PROT_WRITE) != 0:
            raise MemoryError("no memory for a page")

    def __dealloc__(self):
        munmap(self.page - PAGE, 3 * PAGE)

    def read(self, list messages, RowPlan plan not None, bint at_end, tuple stray=None):
        """Which of the messages are rows (1) and which are malformed (2); the columns that are inferred; where decoding and
        inference ended. With `stray` an event lies elsewhere: its position, its offset in the payload, its length."""
        cdef bytes payload = b"".join(messages)
        cdef uint64_t n = len(messages), size = len(payload), i, at = 0
        cdef uint8_t* start = self.page + PAGE - size if at_end else self.page
        cdef EventRow* rows = <EventRow*>calloc(n, sizeof(EventRow))
        cdef uint8_t* memory = <uint8_t*>calloc(plan.count, 17 * n)
        cdef RowColumn* columns = <RowColumn*>calloc(plan.count, sizeof(RowColumn))
        cdef bytearray events = bytearray(n)
        cdef RowDecoder decoder
        cdef RowInfer infer
        cdef RowFault fault = ROW_OK
        cdef unsigned int k
        if size > PAGE or rows == NULL or memory == NULL or columns == NULL:
            raise ValueError(f"{size} bytes: there is room for {PAGE}")
        memcpy(start, <const char*>payload, size)
        for i in range(n):
            rows[i].field[NEW_VALUE].offset = at + BEFORE
            rows[i].field[NEW_VALUE].length = len(messages[i])
            at += len(messages[i])
        if stray is not None:
            rows[<uint64_t>stray[0]].field[NEW_VALUE].offset = stray[1] + BEFORE
            rows[<uint64_t>stray[0]].field[NEW_VALUE].length = stray[2]
        for k in range(plan.count):
            columns[k].type = plan.types[k]
            columns[k].values = memory + 17 * n * k
            columns[k].state = memory + 17 * n * k + 16 * n
        decoder.keys.names = &plan.by_name
        decoder.keys.limit = start + size
        decoder.keys.known = 0
        decoder.payload.origin = start - BEFORE
        decoder.payload.bytes = start
        decoder.payload.end = start + size
        decoder.payload.shift = 28
        decoder.columns = columns
        decoder.count = plan.count
        decoded = decode_all(&decoder, rows, n, NEW_VALUE, events, True, &fault)
        for k in range(plan.count):
            settle_column(columns + k, n)
        if not infer_begin(&infer, 1, start + size):
            raise MemoryError("no memory for a table")
        inferred = infer_all(&infer, &decoder.payload, rows, n, NEW_VALUE, True)
        names = sorted([infer.names.name[k].bytes[:infer.names.name[k].size] for k in range(infer.names.count)])
        infer_free(&infer)
        free(rows)
        free(memory)
        free(columns)
        return list(events), names, (decoded, inferred)

    def touch_beyond(self):
        """Ends the process: what the tests rest on."""
        self.page[PAGE] = 1
