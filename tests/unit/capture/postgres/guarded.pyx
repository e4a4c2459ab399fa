# cython: language_level=3, boundscheck=False, wraparound=False
# cython: freethreading_compatible=True
"""The decoder of pgoutput, on a message or a row of COPY before a page that nobody may touch."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from nodedb_ring.capture.postgres._pgoutput cimport Decoder
from nodedb_ring.capture.postgres.pgoutput cimport (
    PG_OK,
    PostgresResult,
    postgres_read_copied,
    postgres_relation_find,
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
    OP_INSERT = 1


cdef class Page:
    """A page between two that end the process of whoever reads or writes there."""

    cdef uint8_t* begin

    def __cinit__(self):
        cdef void* memory = mmap(NULL, 3 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        if memory == MAP_FAILED:
            raise MemoryError("no memory for three pages")
        self.begin = <uint8_t*>memory + PAGE
        if mprotect(self.begin, PAGE, PROT_READ | PROT_WRITE) != 0:
            raise MemoryError("no memory for a page")

    def __dealloc__(self):
        munmap(self.begin - PAGE, 3 * PAGE)

    cdef uint8_t* last(self, uint64_t size) except NULL:
        """The last bytes of the page."""
        if size > PAGE:
            raise ValueError(f"{size} bytes: there is room for {PAGE}")
        return self.begin + PAGE - size


def decode(Decoder decoder not None, bytes message not None):
    """Whether the decoder takes it."""
    cdef Page page = Page()
    cdef uint8_t* at = page.last(len(message))
    memcpy(at, <const char*>message, len(message))
    return decoder.decode(at, len(message)) == PG_OK


def copy(Decoder decoder not None, uint32_t oid, bytes line not None):
    """Whether it is a row, which is read into a page of its own."""
    cdef Page page = Page(), plain = Page()
    cdef uint64_t size = len(line)
    cdef uint8_t* at = page.last(size)
    cdef PostgresResult result
    memcpy(at, <const char*>line, size)
    decoder.relation = postgres_relation_find(&decoder.relations, oid)
    if decoder.relation == NULL:
        raise ValueError(f"table {oid}: was not described")
    result = postgres_read_copied(at, size, plain.last(size), decoder.relation, decoder.after)
    if result == PG_OK:
        result = decoder.write_event(OP_INSERT, decoder.after, NULL, decoder.after, NULL, False)
    return result == PG_OK


def touch_beyond():
    """Ends the process: what the tests rest on."""
    Page().begin[PAGE] = 1
