# cython: language_level=3, boundscheck=False, wraparound=False
# cython: freethreading_compatible=True
"""Both passes of the encoder, on memory before a page that nobody may touch."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcpy, memset

from nodedb_ring.batch.arrow.abi cimport ArrowArray

cdef extern from "<sys/mman.h>" nogil:
    enum:
        PROT_NONE, PROT_READ, PROT_WRITE, MAP_ANONYMOUS, MAP_PRIVATE
    void* MAP_FAILED
    void* mmap(void* at, size_t size, int protection, int flags, int fd, long offset)
    int mprotect(void* at, size_t size, int protection)
    int munmap(void* at, size_t size)

cdef extern from "nodedb_encode_rows.h":
    ctypedef enum Kind "encode_kind":
        pass

    ctypedef struct Type "encode_type":
        Kind kind
        char letter
        int64_t width
        const uint8_t* key
        uint32_t key_size

    ctypedef struct Column "encode_column":
        const Type* type
        const ArrowArray* array
        int64_t first
        const uint8_t* given

    ctypedef struct Piece "encode_piece":
        int64_t rows
        const ArrowArray* whole
        const uint8_t* present
        const Column* columns
        uint32_t count

    ctypedef struct Trouble "encode_trouble":
        int fault
        int64_t row

    int INTEGER "ENCODE_INTEGER"
    int DOUBLE "ENCODE_DOUBLE"
    int TEXT "ENCODE_TEXT"
    Trouble measure_piece "encode_measure_piece"(const Piece* piece, int64_t start, int64_t* ends)
    Trouble write_piece "encode_write_piece"(const Piece* piece, uint8_t* data, int64_t start, const int64_t* ends)

cdef enum:
    PAGE = 4096
    NO_FAULT = 0


cdef class Pages:
    """A page before one that ends the process of whoever reads or writes there."""

    cdef uint8_t* begin
    cdef uint8_t* end

    def __cinit__(self):
        cdef void* memory = mmap(NULL, 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        if memory == MAP_FAILED or mprotect(memory, PAGE, PROT_READ | PROT_WRITE) != 0:
            raise MemoryError("no memory for two pages")
        self.begin = <uint8_t*>memory
        self.end = self.begin + PAGE

    def __dealloc__(self):
        munmap(self.begin, 2 * PAGE)

    cdef uint8_t* put(self, const uint8_t* bytes, size_t size):
        """Copies bytes to the end of the page."""
        if size != 0:
            memcpy(self.end - size, bytes, size)
        return self.end - size

    def touch_beyond(self):
        self.end[0] = 1


def encode(bytes text, bytes number, str letter, str width, bytes key, bytes other_key, int64_t less=0):
    """A row of a text and of a number: every buffer ends with its page, and so does the row.

    `letter` is the text's layout, and `width` the number's format. The row is given `less` bytes less than it was measured
    to need, as if its values had grown since. None if a pass finds something wrong.
    """
    cdef Pages texts = Pages(), numbers = Pages(), places = Pages(), data = Pages()
    cdef (const void*)[4] text_buffers
    cdef (const void*)[2] number_buffers
    cdef bytes padded = key + bytes(16), other = other_key + bytes(16)
    cdef ArrowArray[2] arrays
    cdef Type[2] types
    cdef Column[2] columns
    cdef Piece piece
    cdef Trouble trouble
    cdef int64_t[1] ends
    cdef int64_t[2] wide
    cdef int32_t[2] narrow
    cdef int32_t[4] view
    cdef int64_t size = len(text)
    memset(arrays, 0, sizeof(arrays))
    memset(types, 0, sizeof(types))
    memset(columns, 0, sizeof(columns))
    memset(&piece, 0, sizeof(piece))
    text_buffers = [NULL, NULL, texts.put(text, size), &ends[0]]
    if letter == "u":
        narrow = [0, <int32_t>size]
        text_buffers[1] = places.put(<const uint8_t*>narrow, sizeof(narrow))
    elif letter == "U":
        wide = [0, size]
        text_buffers[1] = places.put(<const uint8_t*>wide, sizeof(wide))
    else:
        view = [<int32_t>size, 0, 0, 0]
        if size <= 12:
            memcpy(&view[1], <const char*>text, size)
        text_buffers[1] = places.put(<const uint8_t*>view, sizeof(view))
        # How long the one buffer of text is.
        wide[0] = size
        text_buffers[3] = &wide[0]
    number_buffers = [NULL, numbers.put(number, len(number))]
    arrays[0].length = arrays[1].length = piece.rows = 1
    arrays[0].n_buffers = 4 if letter == "v" else 3
    arrays[0].buffers = text_buffers
    arrays[1].n_buffers = 2
    arrays[1].buffers = number_buffers
    types[0].kind = <Kind>TEXT
    types[0].letter = <char>ord(letter)
    types[0].key = padded
    types[0].key_size = len(key)
    types[1].kind = <Kind>(DOUBLE if width == "g" else INTEGER)
    types[1].letter = <char>ord(width)
    types[1].key = other
    types[1].key_size = len(other_key)
    for k in range(2):
        columns[<int>k].type = &types[<int>k]
        columns[<int>k].array = &arrays[<int>k]
    piece.columns = columns
    piece.count = 2
    trouble = measure_piece(&piece, 0, ends)
    if trouble.fault != NO_FAULT:
        return None
    ends[0] -= less
    trouble = write_piece(&piece, data.end - ends[0], 0, ends)
    if trouble.fault != NO_FAULT:
        return None
    return (<const char*>(data.end - ends[0]))[:ends[0]]


def touch_beyond():
    """Ends the process: what the tests rest on."""
    Pages().touch_beyond()
