# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
"""The compiled half of ``EventBatch``: memory, and the passes over rows that check, pack and decode them.

A ``RowBlock`` is a run of rows and the payload that their offsets are into. It may own its memory (a drain, a checked
copy), share its parent's (a slice), or lie in a ring (a lease); nothing above it needs to know which.
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy

from ._event cimport WriteEvent, decode_text, event_from_row, write_event
from ..core.layout cimport FIELD_COUNT, NULL_LENGTH, STRING_COUNT, EventField, clear_unnamed, shift_fields
from ..core.row cimport row_is_packed, row_pack
from .utf8 cimport utf8_prefix

import numpy as np

from ..errors import BatchError, ClosedError, ForkError
from .schema import EVENT_DTYPE, STRING_FIELDS, VALUE_FIELDS, EventSource, WriteOp

__all__ = ["BufferPool", "RowBlock", "block_of_events", "checked_copy", "crc32c", "join_column", "pack"]

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>

    /* CRC-32C (Castagnoli; RFC 3720 has test vectors), reflected: byte by byte, and with the instruction that processors
       have for it. zlib's CRC-32 took half of the time that a log takes to be read. */
    static uint32_t nodedb_crc32c_table[256];
    static int nodedb_crc32c_has_instruction;
    static void nodedb_crc32c_prepare(void) {
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t rest = byte;
            for (int bit = 0; bit < 8; bit++)
                rest = rest >> 1 ^ (0x82F63B78u & -(rest & 1));
            nodedb_crc32c_table[byte] = rest;
        }
    #if defined(__x86_64__)
        nodedb_crc32c_has_instruction = __builtin_cpu_supports("sse4.2");
    #endif
    }
    static uint32_t nodedb_crc32c_portable(uint32_t crc, const uint8_t *data, size_t size) {
        for (; size != 0; data++, size--)
            crc = crc >> 8 ^ nodedb_crc32c_table[(crc ^ *data) & 0xFF];
        return crc;
    }
    #if defined(__x86_64__)
    __attribute__((target("sse4.2")))
    static uint32_t nodedb_crc32c_fast(uint32_t crc, const uint8_t *data, size_t size) {
        uint64_t wide = crc, eight;
        for (; size >= 8; data += 8, size -= 8) {
            memcpy(&eight, data, 8);
            wide = __builtin_ia32_crc32di(wide, eight);
        }
        return nodedb_crc32c_portable((uint32_t)wide, data, size);
    }
    #else
    #define nodedb_crc32c_fast nodedb_crc32c_portable
    #endif
    static inline uint32_t nodedb_crc32c(uint32_t crc, const uint8_t *data, size_t size, int portable) {
        crc = ~crc;
        return ~(nodedb_crc32c_has_instruction && !portable ? nodedb_crc32c_fast(crc, data, size)
                                                           : nodedb_crc32c_portable(crc, data, size));
    }
    """
    void crc32c_prepare "nodedb_crc32c_prepare"() noexcept
    uint32_t crc32c_of "nodedb_crc32c"(uint32_t crc, const uint8_t* data, size_t size, bint portable) noexcept nogil

crc32c_prepare()

cdef tuple _NAMES = STRING_FIELDS + VALUE_FIELDS
cdef uint32_t _LAST_OP = max(WriteOp)
cdef uint32_t _LAST_SOURCE = max(EventSource)
cdef object _UINT8 = np.dtype(np.uint8)

cdef enum:
    ROW_BYTES = 128
    # collection and row_id, the first two fields, are never None.
    REQUIRED_COUNT = 2
    # Buffers grow in steps of this, so that the next batch, a little larger, fits the same one.
    BUFFER_STEP = 16 * 1024
    SMALL_STEP = 512
    # A pool keeps no more than this: a consumer that once drained far more than usual gives it back.
    POOL_BYTES = 128 * 1024 * 1024


@cython.final
@cython.no_gc
cdef class BufferPool:
    """Memory of dropped batches, kept for the next ones: fresh memory costs more to touch than to copy into.

    Thread safety
    -------------
    The GIL: no other thread runs while a buffer goes in or out.
    """

    def __dealloc__(self):
        for i in range(POOL_BUFFERS):
            free(self._buffer[i])

    cdef void* take(self, size_t size, size_t* got) noexcept:
        """The smallest buffer that holds `size` bytes, else a fresh one; NULL when there is no memory."""
        cdef void* buffer
        cdef size_t step
        cdef int best = -1, i
        for i in range(POOL_BUFFERS):
            if self._size[i] >= size and (best < 0 or self._size[i] < self._size[best]):
                best = i
        if best >= 0:
            buffer = self._buffer[best]
            got[0] = self._size[best]
            self._held -= self._size[best]
            self._buffer[best] = NULL
            self._size[best] = 0
            return buffer
        # A batch of a few events may be kept, and then its room is, too.
        step = BUFFER_STEP if size >= BUFFER_STEP else SMALL_STEP
        got[0] = (size + step - 1) // step * step
        return malloc(got[0])

    cdef void give(self, void* buffer, size_t size) noexcept:
        """Keeps a buffer, in the place of the smallest where all are taken."""
        cdef int least = 0, i
        for i in range(1, POOL_BUFFERS):
            if self._size[i] < self._size[least]:
                least = i
        if size <= self._size[least] or self._held + size > POOL_BYTES:
            free(buffer)
            return
        free(self._buffer[least])
        self._held += size - self._size[least]
        self._buffer[least] = buffer
        self._size[least] = size


cdef RowBlock new_block(uint64_t count, uint64_t payload_bytes, BufferPool pool):
    cdef RowBlock block = RowBlock.__new__(RowBlock)
    cdef size_t size = count * sizeof(EventRow) + payload_bytes
    if size != 0:
        if pool is None:
            block.memory = malloc(size)
            block.memory_bytes = size
        else:
            block.memory = pool.take(size, &block.memory_bytes)
            block.pool = pool
        if block.memory == NULL:
            raise MemoryError(f"no memory for a batch of {count} events and {payload_bytes} bytes of payload")
    block.rows = <EventRow*>block.memory
    block.bytes = <uint8_t*>block.memory + count * sizeof(EventRow)
    block.count = count
    block.payload_bytes = payload_bytes
    return block


cdef inline RowBlock _root(RowBlock block):
    """The block that has the memory which this one is, or is a part of."""
    if block.parent is None:
        return block
    return block.parent


@cython.final
@cython.no_gc
cdef class _Span:
    """One stretch of a block as a buffer. Its life is that of the last array that looks into it."""

    cdef RowBlock block
    cdef void* start
    cdef Py_ssize_t size

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.start, self.size, not self.block.writable, flags)

    def __dealloc__(self):
        if self.block is not None:
            _forget_pin(_root(self.block))
            _forget_view(self.block)


cdef _Span _span(RowBlock block, void* start, Py_ssize_t size):
    cdef _Span span = _Span.__new__(_Span)
    cdef RowBlock root = _root(block)
    span.block = block
    span.start = start
    span.size = size
    block.views += 1
    root.pins += 1
    return span


cdef void _forget_pin(RowBlock root) noexcept:
    root.pins -= 1
    if root.pins == 0:
        root.unpinned()


cdef void _forget_view(RowBlock block) noexcept:
    block.views -= 1
    if block.views == 0:
        block.unviewed()


@cython.no_gc
cdef class RowBlock:
    """Rows and the payload that their offsets are into."""

    def __dealloc__(self):
        if self.parent is not None:
            if self.is_pin:
                _forget_pin(self.parent)
            _forget_view(self.parent)
        if self.memory != NULL:
            if self.pool is not None:
                self.pool.give(self.memory, self.memory_bytes)
            else:
                free(self.memory)

    cdef void unviewed(self) noexcept:
        """Called when the last view of the block has gone."""

    cdef void unpinned(self) noexcept:
        """Called when the last pin of the block has gone."""

    cdef bint is_torn(self) noexcept:
        """Whether this is a forked child's, and no more what was leased."""
        return False

    @property
    def is_over(self):
        """Whether the lease or reservation that the memory belongs to has ended."""
        return self.over()

    cdef bint over(self) noexcept:
        return self.ended if self.parent is None else self.parent.ended

    @property
    def is_leased_slice(self):
        """Whether it is a part of what a lease has."""
        return self.parent is not None and self.parent.is_leased

    cdef int check_open(self) except -1:
        cdef RowBlock root = _root(self)
        if root.ended:
            raise ClosedError("the lease of this batch has ended: copy what outlives it, or drain()")
        if root.is_leased and root.is_torn():
            raise ForkError(
                "the lease of this batch is another process's, which this one was cloned from, and what it showed could "
                "not be kept: copy or drain() what a child is to have before the fork"
            )
        return 0

    cdef bint is_packed(self, uint64_t* end) noexcept:
        cdef uint64_t at, need = 0, i
        end[0] = 0
        if self.count == 0:
            return True
        at = self.rows[0].field[0].offset
        if self.packing == PACKING_UNKNOWN:
            self.packing = PACKED
            for i in range(self.count):
                if not row_is_packed(self.rows + i, &need) or self.rows[i].field[0].offset != at:
                    self.packing = SCATTERED
                    break
                at += need
        row_is_packed(self.rows + (self.count - 1), &need)
        end[0] = self.rows[self.count - 1].field[0].offset + need
        return self.packing == PACKED

    def run_from(self, uint64_t first):
        """How many rows these are, if they were drained with the numbers `first` and on, and no heartbeat; else 0."""
        return self.count if self.is_run and self.rows.sequence == first else 0

    def first_not_rising(self):
        """The first row whose number is not above the one before it; `count` where they all rise."""
        cdef uint64_t i
        self.check_open()
        for i in range(1, self.count):
            if self.rows[i].sequence <= self.rows[i - 1].sequence:
                return i
        return self.count

    def fills_payload(self):
        """Whether the payload begins with the first event and ends with the last: these are no part of something larger."""
        cdef const EventField* field
        cdef uint64_t end = 0
        cdef int k
        self.check_open()
        if self.count == 0:
            return self.payload_bytes == 0
        for k in range(FIELD_COUNT):
            field = &self.rows[self.count - 1].field[k]
            if field.length != NULL_LENGTH:
                end = max(end, <uint64_t>field.offset + field.length)
        return self.rows.field[0].offset == 0 and end == self.payload_bytes

    def records(self):
        """The rows as an array of ``EVENT_DTYPE``, shape (count,)."""
        self.check_open()
        if self.count == 0:
            return _nothing(EVENT_DTYPE, self.writable)
        return np.frombuffer(_span(self, self.rows, self.count * sizeof(EventRow)), EVENT_DTYPE)

    def payload(self):
        """The payload as an array of uint8, shape (payload_bytes,)."""
        self.check_open()
        if self.payload_bytes == 0:
            return _nothing(_UINT8, self.writable)
        return np.frombuffer(_span(self, self.bytes, self.payload_bytes), _UINT8)

    def slice(self, uint64_t start, uint64_t stop, *, bint pin=True):
        """The rows from `start` up to `stop`, in the same memory.

        `pin` is for whoever reads the memory by itself. A batch does not: it asks each time whether the lease is over.
        """
        cdef RowBlock part = RowBlock.__new__(RowBlock)
        self.check_open()
        if not start <= stop <= self.count:
            raise IndexError(f"rows {start} to {stop} of {self.count}")
        # Not a slice of a slice: a chain as long as `batch = batch[1:]` makes it would be taken apart by recursion.
        part.parent = self if self.parent is None else self.parent
        part.parent.views += 1
        if pin:
            part.is_pin = True
            part.parent.pins += 1
        if self.packing == PACKED:
            part.packing = PACKED
        part.rows = self.rows + start
        part.count = stop - start
        part.bytes = self.bytes
        part.payload_bytes = self.payload_bytes
        return part

    def gather(self, chosen):
        """A packed copy of the rows whose numbers `chosen` holds: an array of int64, each in [0, count)."""
        cdef const int64_t[::1] numbers = chosen
        cdef Py_ssize_t n = numbers.shape[0], i
        cdef uint64_t total = 0, need
        cdef RowBlock copy
        self.check_open()
        for i in range(n):
            row_is_packed(self.rows + numbers[i], &need)
            total += need
        _check_payload_size(total)
        copy = new_block(n, total, None)
        total = 0
        for i in range(n):
            total = _append(copy, i, total, self.rows + numbers[i], 1, self.bytes)
        copy.packing = PACKED
        return copy

    def event(self, uint64_t i):
        """Row `i` as a ``WriteEvent``."""
        self.check_open()
        if i >= self.count:
            raise IndexError(f"event {i} of a batch of {self.count}")
        return event_from_row(self.rows + i, self.bytes)

    def texts(self, int field):
        """The strings of a variable-length field: an array of objects, str or None, shape (count,)."""
        return _objects(self, field, True)

    def values(self, int field):
        """The bytes of a variable-length field: an array of objects, bytes or None, shape (count,)."""
        return _objects(self, field, False)


cdef object _nothing(dtype, bint writable):
    array = np.empty(0, dtype)
    array.flags.writeable = writable
    return array


cdef object _objects(RowBlock block, int field, bint is_text):
    """Decodes one field. Equal neighbours, a column of one table's name say, share one object."""
    cdef object array = np.empty(block.count, object)
    cdef object[::1] out = array
    cdef const EventField* at
    cdef const char* start
    cdef const char* previous = NULL
    cdef uint32_t length, previous_length = 0
    cdef object value = None
    cdef uint64_t i
    block.check_open()
    for i in range(block.count):
        at = &block.rows[i].field[field]
        length = at.length
        if length == NULL_LENGTH:
            continue
        start = <const char*>block.bytes + at.offset
        if previous == NULL or length != previous_length or memcmp(start, previous, length) != 0:
            if is_text:
                value = decode_text(start, length)
            else:
                value = PyBytes_FromStringAndSize(start, length)
            previous = start
            previous_length = length
        out[i] = value
    return array


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


cdef int _check_payload_size(uint64_t size) except -1:
    # All ones is the length of None, and every offset is an u32.
    if size >= NULL_LENGTH:
        raise BatchError(f"payload of {size} bytes: a batch holds at most {NULL_LENGTH - 1}; use several")
    return 0


def pack(blocks):
    """One block of the rows of several, in order, each event's payload back to back."""
    cdef RowBlock block, packed
    cdef uint64_t count = 0, total = 0, need, i
    for block in blocks:
        block.check_open()
        count += block.count
        for i in range(block.count):
            row_is_packed(block.rows + i, &need)
            total += need
    _check_payload_size(total)
    packed = new_block(count, total, None)
    count = total = 0
    for block in blocks:
        total = _append(packed, count, total, block.rows, block.count, block.bytes)
        count += block.count
    packed.packing = PACKED
    return packed


cdef object _refusal(uint64_t i, str what):
    return BatchError(f"row {i}: {what}")


cdef int check_row(const EventRow* row, const uint8_t* payload, uint64_t payload_bytes, int* field) noexcept nogil:
    """0 for a row that is an event, else what is wrong, in which field."""
    cdef const EventField* at
    cdef int k
    if row.op == 0 or row.op > _LAST_OP:
        return 1
    if row.source > _LAST_SOURCE:
        return 2
    for k in range(FIELD_COUNT):
        at = &row.field[k]
        field[0] = k
        if at.length == NULL_LENGTH:
            if k < REQUIRED_COUNT:
                return 3
        elif <uint64_t>at.offset + at.length > payload_bytes:
            return 4
        elif k < STRING_COUNT and utf8_prefix(payload + at.offset, at.length) != at.length:
            return 5
    return 0


cdef int check_rows(
    const EventRow* rows, uint64_t count, const uint8_t* payload, uint64_t payload_bytes, uint64_t number
) except -1:
    """Refuses the first row that is no event, with a BatchError that prints its value. `number` is the first row's."""
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
        raise _refusal(number, f"{_NAMES[k]} is None: must be a string; an empty one where there is none")
    if wrong == 4:
        raise _refusal(
            number, f"{_NAMES[k]} at {at.offset} of {at.length} bytes: lies outside the payload of {payload_bytes} bytes"
        )
    stops = utf8_prefix(payload + at.offset, at.length)
    shown = PyBytes_FromStringAndSize(<const char*>payload + at.offset, min(at.length, 64))
    raise _refusal(number, f"{_NAMES[k]} {shown!r}: is not UTF-8 from its byte {stops} on")


cdef void _settle(EventRow* row) noexcept nogil:
    """Writes what whoever made a row need not have written: what no column names, and where a None would lie.

    An array of ``EVENT_DTYPE`` has whatever stood in its memory there, and an old log what stood in another process's.
    """
    cdef uint32_t behind = 0
    cdef int k
    clear_unnamed(row)
    for k in range(FIELD_COUNT):
        if row.field[k].length == NULL_LENGTH:
            row.field[k].offset = behind
        else:
            behind = row.field[k].offset + row.field[k].length


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
            _check_payload_size(payload_view.len)
            block = new_block(row_view.len // ROW_BYTES, payload_view.len, None)
            memcpy(block.rows, row_view.buf, row_view.len)
            memcpy(block.bytes, payload_view.buf, payload_view.len)
        finally:
            PyBuffer_Release(&payload_view)
    finally:
        PyBuffer_Release(&row_view)
    check_rows(block.rows, block.count, block.bytes, block.payload_bytes, 0)
    for i in range(block.count):
        _settle(block.rows + i)
    return block


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
    _check_payload_size(total)
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
    cdef object lengths = np.empty(len(values), np.uint32)
    cdef uint32_t[::1] out = lengths
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
    return b"".join(parts), lengths


cdef str _row(Py_ssize_t i, bint is_scalar):
    return "" if is_scalar else f"row {i}: "


def crc32c(data, uint32_t before=0, *, bint portable=False):
    """The CRC-32C of a buffer's bytes, going on from that of the bytes before it. `portable` does without the instruction."""
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, 0)
    try:
        return crc32c_of(before, <const uint8_t*>view.buf, view.len, portable)
    finally:
        PyBuffer_Release(&view)
