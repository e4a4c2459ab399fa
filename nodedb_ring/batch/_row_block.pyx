# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
# distutils: extra_compile_args = -O3
"""``RowBlock``, the memory under a batch: a run of rows, and the payload that their offsets are into.

It may own its memory (a drain, a checked copy), share its parent's (a slice), or lie in a ring (a lease); nothing above
it needs to know which.
"""

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp

from ..core.atomic cimport load_relaxed_u32, store_relaxed_u32
from ..core.layout cimport NULL_LENGTH, EventField
from ..core.row cimport row_is_packed
from ..core.schema cimport FIELD_COUNT
from ._event_rows cimport decode_text, event_from_row

import numpy as np

from ..errors import ClosedError, ForkError
from .schema import EVENT_DTYPE

__all__ = ["BufferPool", "RowBlock"]

cdef object _UINT8 = np.dtype(np.uint8)


@cython.final
@cython.no_gc
cdef class BufferPool:
    """Memory of dropped batches, kept for the next ones.

    Thread safety
    -------------
    Any thread, since a batch is dropped on whichever has the last reference. Nobody waits: whoever finds the pool in use
    does without it.
    """

    def __dealloc__(self):
        pool_free(&self.pool)

    cdef void* take(self, size_t size, size_t* got) noexcept:
        return pool_take(&self.pool, size, got)

    cdef void give(self, void* buffer, size_t size) noexcept:
        pool_give(&self.pool, buffer, size)


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


@cython.final
@cython.no_gc
cdef class _Span:
    """One stretch of a block as a buffer. It lives as long as the last array that refers to it."""

    cdef RowBlock block
    cdef void* start
    cdef Py_ssize_t size

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.start, self.size, not self.block.writable, flags)

    def __dealloc__(self):
        if self.block is not None:
            with cython.critical_section(root_of(self.block)):
                _forget_pin(root_of(self.block))
                _forget_view(self.block)


# These three run in a critical section of the root.

cdef _Span _span(RowBlock block, void* start, Py_ssize_t size):
    cdef _Span span = _Span.__new__(_Span)
    cdef RowBlock root = root_of(block)
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
            with cython.critical_section(self.parent):
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
        cdef RowBlock root = root_of(self)
        with cython.critical_section(root):
            return root.ended

    @property
    def is_lent(self):
        """Whether it is what a lease has, or a part of that."""
        return root_of(self).is_leased

    @property
    def is_slice(self):
        """Whether it is a part of another block."""
        return self.parent is not None

    cdef int check_open(self) except -1:
        cdef RowBlock root = root_of(self)
        if root.ended:
            raise ClosedError("the lease of this batch has ended: copy what outlives it, or drain()")
        if root.is_leased and root.is_torn():
            raise ForkError(
                "the lease of this batch is another process's, which this one was cloned from, and what it showed could "
                "not be kept: copy or drain() what a child is to have before the fork"
            )
        return 0

    cdef RowBlock pinned(self):
        if not root_of(self).is_leased:
            self.check_open()
            return self
        return self.slice(0, self.count)

    cdef bint is_packed(self, uint64_t* end) noexcept:
        # Whoever asks at the same time finds the same.
        cdef uint32_t packing = load_relaxed_u32(<uint32_t*>&self.packing)
        cdef uint64_t at, need = 0, i
        end[0] = 0
        if self.count == 0:
            return True
        at = self.rows[0].field[0].offset
        if packing == PACKING_UNKNOWN:
            packing = PACKED
            for i in range(self.count):
                if not row_is_packed(self.rows + i, &need) or self.rows[i].field[0].offset != at:
                    packing = SCATTERED
                    break
                at += need
            store_relaxed_u32(<uint32_t*>&self.packing, packing)
        row_is_packed(self.rows + (self.count - 1), &need)
        end[0] = self.rows[self.count - 1].field[0].offset + need
        return packing == PACKED

    cdef uint64_t stretch(self, uint64_t* base) noexcept:
        cdef uint64_t end
        base[0] = 0
        if self.parent is None or self.count == 0 or not self.is_packed(&end):
            return self.payload_bytes
        base[0] = self.rows[0].field[0].offset
        return end - base[0]

    def run_from(self, uint64_t first):
        """How many rows these are, if they were drained with the numbers `first` and on, and no heartbeat; else 0."""
        return self.count if self.is_run and self.rows.sequence == first else 0

    def first_not_rising(self):
        """The first row whose number is not above the one before it; `count` where they all rise."""
        cdef RowBlock block = self.pinned()
        cdef uint64_t i
        for i in range(1, block.count):
            if block.rows[i].sequence <= block.rows[i - 1].sequence:
                return i
        return block.count

    def fills_payload(self):
        """Whether the payload begins with the first event and ends with the last, without other bytes."""
        cdef RowBlock block = self.pinned()
        cdef const EventField* field
        cdef uint64_t end = 0
        cdef int k
        if block.count == 0:
            return block.payload_bytes == 0
        for k in range(FIELD_COUNT):
            field = &block.rows[block.count - 1].field[k]
            if field.length != NULL_LENGTH:
                end = max(end, <uint64_t>field.offset + field.length)
        return block.rows.field[0].offset == 0 and end == block.payload_bytes

    def records(self):
        """The rows as an array of ``EVENT_DTYPE``, shape (count,)."""
        cdef _Span span
        with cython.critical_section(root_of(self)):
            self.check_open()
            if self.count == 0:
                return _nothing(EVENT_DTYPE, self.writable)
            span = _span(self, self.rows, self.count * sizeof(EventRow))
        return np.frombuffer(span, EVENT_DTYPE)

    def payload(self):
        """The payload as an array of uint8, shape (payload_bytes,)."""
        cdef _Span span
        with cython.critical_section(root_of(self)):
            self.check_open()
            if self.payload_bytes == 0:
                return _nothing(_UINT8, self.writable)
            span = _span(self, self.bytes, self.payload_bytes)
        return np.frombuffer(span, _UINT8)

    def slice(self, uint64_t start, uint64_t stop, *, bint pin=True):
        """The rows from `start` up to `stop`, in the same memory.

        `pin` is for whoever reads the memory by itself. A batch does not: it asks each time whether the lease is over.
        """
        cdef RowBlock part = RowBlock.__new__(RowBlock)
        # Not a slice of a slice: a chain as long as `batch = batch[1:]` makes it would be taken apart by recursion.
        cdef RowBlock root = root_of(self)
        with cython.critical_section(root):
            self.check_open()
            if not start <= stop <= self.count:
                raise IndexError(f"rows {start} to {stop} of {self.count}")
            part.parent = root
            root.views += 1
            if pin:
                part.is_pin = True
                root.pins += 1
        if load_relaxed_u32(<uint32_t*>&self.packing) == PACKED:
            part.packing = PACKED
        part.rows = self.rows + start
        part.count = stop - start
        part.is_run = self.is_run and start < stop
        part.bytes = self.bytes
        part.payload_bytes = self.payload_bytes
        return part

    def event(self, uint64_t i):
        """Row `i` as a ``WriteEvent``."""
        cdef RowBlock root = root_of(self)
        # Only where something may end meanwhile: threads that read one batch of a drain do not wait for each other.
        if root.is_leased:
            with cython.critical_section(root):
                self.check_open()
                return _event(self, i)
        if root.ended:
            self.check_open()
        return _event(self, i)

    def texts(self, int field):
        """The strings of a variable-length field: an array of objects, str or None, shape (count,)."""
        return _objects(self, field, True)

    def values(self, int field):
        """The bytes of a variable-length field: an array of objects, bytes or None, shape (count,)."""
        return _objects(self, field, False)


cdef inline object _event(RowBlock block, uint64_t i):
    if i >= block.count:
        raise IndexError(f"event {i} of a batch of {block.count}")
    return event_from_row(block.rows + i, block.bytes)


cdef object _nothing(dtype, bint writable):
    array = np.empty(0, dtype)
    array.flags.writeable = writable
    return array


cdef object _objects(RowBlock block, int field, bint is_text):
    """Decodes one field. Equal neighbours, such as a column of one table's name, share one object."""
    cdef object array = np.empty(block.count, object)
    cdef RowBlock pinned = block.pinned()
    cdef Py_buffer view
    PyObject_GetBuffer(array, &view, PyBUF_WRITABLE | PyBUF_FORMAT)
    try:
        _decode_field(pinned, field, is_text, <PyObject**>view.buf)
    finally:
        PyBuffer_Release(&view)
    return array


cdef int _decode_field(RowBlock block, int field, bint is_text, PyObject** out) except -1:
    """Puts the values into `out`, whose items are None."""
    cdef const EventField* at
    cdef const char* start
    cdef const char* previous = NULL
    cdef uint32_t length, previous_length = 0
    cdef object value = None
    cdef PyObject* none
    cdef uint64_t i
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
        none = out[i]
        Py_INCREF(value)
        out[i] = <PyObject*>value
        Py_XDECREF(none)
    return 0
