# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""Row values into columns: ``RowPlan``, a schema made ready for that, and ``RowColumns``, what comes of it.

::

    events (offsets) ──► payload: one map a row ──one pass──► values and states, column by column
                            ▲                                       │
                            └────── views of text and binary ◄──────┘    up to 12 bytes lie in the view itself

A state says whether a column has a value in an event, nil, or no such key. The pass runs without the GIL.
"""

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.stdint cimport int32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memset

from .._event_rows cimport decode_text
from ..arrow._export cimport WINDOW_SHIFT, give_export_memory, place_array, take_export_memory
from ._refusal cimport refuse
from .rows cimport (
    NO_COLUMN,
    ROW_ABSENT,
    ROW_BOOL,
    ROW_FLOAT64,
    ROW_INLINE,
    ROW_INT64,
    ROW_NULL,
    ROW_OK,
    ROW_STR,
    ROW_TIMESTAMP,
    ROW_TYPES,
    ROW_UINT64,
    ROW_VALID,
    RowDecoder,
    RowFault,
    RowName,
    RowView,
    decode_all,
    row_enter,
    row_hash,
    row_width,
    settle_column,
)

import os

import numpy as np

__all__ = ["RowColumns", "RowPlan", "decode_rows"]

cdef uint64_t _SECRET = int.from_bytes(os.urandom(8), "little")

cdef object _BOOL = np.dtype(np.bool_)
cdef object _UINT8 = np.dtype(np.uint8)
cdef dict _DTYPES = {
    ROW_BOOL: _BOOL,
    ROW_INT64: np.dtype(np.int64),
    ROW_UINT64: np.dtype(np.uint64),
    ROW_FLOAT64: np.dtype(np.float64),
    ROW_TIMESTAMP: np.dtype("datetime64[us]"),
}


cdef uint64_t secret() noexcept:
    return _SECRET


cdef RowPayload payload_of(RowBlock block) noexcept:
    cdef RowPayload payload
    cdef uint64_t base, size = block.stretch(&base)
    payload.origin = block.bytes
    payload.bytes = block.bytes + base
    payload.end = payload.bytes + size
    payload.shift = WINDOW_SHIFT
    return payload


@cython.final
@cython.no_gc
cdef class RowPlan:
    """The columns of a schema, made ready for decoding: names, and the numbers of ``ROW_TYPES``."""

    def __cinit__(self, tuple names not None, tuple types not None):
        cdef list encoded = [(<str?>column).encode() for column in names]
        cdef uint32_t places = 4, k
        cdef size_t at = 0
        cdef RowName* name
        self.names = names
        self.text = b"".join(encoded)
        self.count = len(names)
        while places < 2 * self.count:
            places *= 2
        self.types = <RowType*>malloc((self.count + 1) * sizeof(RowType))
        self.by_name.name = <RowName*>malloc((self.count + 1) * sizeof(RowName))
        self.by_name.table = <uint32_t*>malloc(places * sizeof(uint32_t))
        if self.types == NULL or self.by_name.name == NULL or self.by_name.table == NULL:
            raise MemoryError(f"no memory for a schema of {self.count} columns")
        memset(self.by_name.table, 0xFF, places * sizeof(uint32_t))
        self.by_name.mask = places - 1
        self.by_name.count = self.count
        self.by_name.secret = _SECRET
        for k in range(self.count):
            if not 0 <= types[k] < <int>ROW_TYPES:
                raise ValueError(f"type {types[k]}: must be in 0 .. {<int>ROW_TYPES - 1}")
            self.types[k] = <RowType><int>types[k]
            name = self.by_name.name + k
            name.bytes = <const uint8_t*>(<const char*>self.text) + at
            name.size = len(encoded[k])
            name.hash = row_hash(name.bytes, name.size, _SECRET)
            row_enter(&self.by_name, k)
            at += name.size

    def __dealloc__(self):
        free(self.types)
        free(self.by_name.name)
        free(self.by_name.table)


@cython.final
@cython.no_gc
cdef class _Span:
    """One column of values or states as a read-only buffer. It lives as long as the last array that refers to it."""

    cdef RowColumns columns
    cdef void* start
    cdef Py_ssize_t size

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.start, self.size, True, flags)


@cython.final
@cython.no_gc
cdef class RowColumns:
    """The columns of one field of a block. Columns go by their number in the plan, events by the range [start, stop)."""

    def __dealloc__(self):
        if self.memory != NULL:
            give_export_memory(self.memory, self.memory_bytes)

    def values(self, uint32_t number, uint64_t start, uint64_t stop):
        """The values of a column, of the dtype that its type has: objects of text and binary, a view of any other."""
        cdef RowType type = self.plan.types[number]
        self.block.check_open()
        dtype = _DTYPES.get(type)
        if dtype is None:
            return _objects(self, number, start, stop)
        return _array(self, self.columns[number].values, start, stop, dtype, row_width(type))

    def states(self, uint32_t number, uint64_t start, uint64_t stop):
        """The states of a column: 0 where there is no such key, 1 where it has nil, 3 where it has a value."""
        self.block.check_open()
        return _array(self, self.columns[number].state, start, stop, _UINT8, 1)

    def presence(self, uint64_t start, uint64_t stop):
        """Which events have a row: 0 where the value is None, 1 where it is a map, 2 where it is malformed."""
        self.block.check_open()
        return _array(self, self.events, start, stop, _UINT8, 1)


cdef object _array(RowColumns columns, void* start, uint64_t first, uint64_t last, object dtype, size_t width):
    cdef _Span span
    if first == last:
        array = np.empty(0, dtype)
        array.flags.writeable = False
        return array
    span = _Span.__new__(_Span)
    span.columns = columns
    span.start = <uint8_t*>start + first * width
    span.size = (last - first) * width
    return np.frombuffer(span, dtype)


cdef object _objects(RowColumns columns, uint32_t number, uint64_t start, uint64_t stop):
    """Text as str, binary and raw values as bytes, None where there is none. Equal neighbours share one object."""
    cdef object array = np.empty(stop - start, object)
    cdef RowType type = columns.plan.types[number]
    cdef RowBlock pinned = columns.block.pinned()
    cdef Py_buffer view
    if type != ROW_NULL and start != stop:
        PyObject_GetBuffer(array, &view, PyBUF_WRITABLE | PyBUF_FORMAT)
        try:
            _make_objects(columns, number, start, stop, type == ROW_STR, <PyObject**>view.buf)
        finally:
            PyBuffer_Release(&view)
    array.flags.writeable = False
    return array


cdef int _make_objects(
    RowColumns columns, uint32_t number, uint64_t start, uint64_t stop, bint is_text, PyObject** out
) except -1:
    cdef const uint8_t* state = columns.columns[number].state
    cdef const RowView* views = <const RowView*>columns.columns[number].values
    cdef const char* bytes
    cdef const char* previous = NULL
    cdef int32_t size, previous_size = 0
    cdef object value = None
    cdef PyObject* none
    cdef uint64_t i
    for i in range(start, stop):
        if state[i] != ROW_VALID:
            continue
        size = views[i].size
        if size <= ROW_INLINE:
            bytes = <const char*>views[i].iss.bytes
        else:
            bytes = <const char*>columns.payload.bytes + (
                (<uint64_t>views[i].iss.at.buffer << columns.payload.shift) + views[i].iss.at.offset
            )
        if previous == NULL or size != previous_size or memcmp(bytes, previous, size) != 0:
            value = decode_text(bytes, size) if is_text else PyBytes_FromStringAndSize(bytes, size)
            previous = bytes
            previous_size = size
        none = out[i - start]
        Py_INCREF(value)
        out[i - start] = <PyObject*>value
        Py_XDECREF(none)
    return 0


cdef RowColumns _room_for(RowBlock block, RowPlan plan):
    """Columns for every event of a block, with nothing in them."""
    cdef RowColumns columns = RowColumns.__new__(RowColumns)
    cdef uint64_t n = block.count
    cdef size_t size = 0, columns_at, valid_at, events_at, states_at, states_bytes, at
    cdef uint32_t k
    columns_at = place_array(&size, plan.count * sizeof(RowColumn))
    valid_at = place_array(&size, plan.count * sizeof(uint64_t))
    events_at = place_array(&size, n)
    states_at = size
    for k in range(plan.count):
        place_array(&size, n)
    at = states_at
    states_bytes = size - states_at
    for k in range(plan.count):
        place_array(&size, n * row_width(plan.types[k]))
    columns.memory = take_export_memory(size, &columns.memory_bytes)
    if columns.memory == NULL:
        raise MemoryError(f"no memory for {plan.count} columns of {n} rows, {size} bytes")
    columns.plan = plan
    columns.block = block
    columns.count = n
    columns.payload = payload_of(block)
    columns.columns = <RowColumn*>(<uint8_t*>columns.memory + columns_at)
    columns.valid = <uint64_t*>(<uint8_t*>columns.memory + valid_at)
    columns.events = <uint8_t*>columns.memory + events_at
    for k in range(plan.count):
        columns.columns[k].type = plan.types[k]
        columns.columns[k].has_long = 0
        columns.columns[k].state = <uint8_t*>columns.memory + place_array(&at, n)
    memset(<uint8_t*>columns.memory + states_at, ROW_ABSENT, states_bytes)
    for k in range(plan.count):
        columns.columns[k].values = <uint8_t*>columns.memory + place_array(&at, n * row_width(plan.types[k]))
    return columns


cdef uint64_t _pass(RowColumns columns, RowDecoder* decoder, int field, bint goes_on, RowFault* fault) noexcept nogil:
    cdef uint64_t n = columns.count, end
    cdef uint32_t k
    end = decode_all(decoder, columns.block.rows, n, field, columns.events, goes_on, fault)
    if end == n:
        for k in range(decoder.count):
            columns.valid[k] = settle_column(columns.columns + k, n)
    return end


def decode_rows(RowBlock block not None, int field, RowPlan plan not None, bint goes_on):
    """The values of a field as columns. With `goes_on` malformed ones are no rows; else the first is a RowError."""
    cdef RowColumns columns
    cdef RowDecoder decoder
    cdef RowFault fault = ROW_OK
    cdef uint64_t bad, n = block.count
    # A lease that another thread ends meanwhile keeps its rows until this has gone.
    cdef RowBlock pinned = block.pinned()
    columns = _room_for(block, plan)
    decoder.keys.names = &plan.by_name
    decoder.keys.limit = columns.payload.end
    decoder.keys.known = 0
    decoder.payload = columns.payload
    decoder.columns = columns.columns
    decoder.count = plan.count
    decoder.fault_column = NO_COLUMN
    if block.payload_bytes >= LONG_PASS:
        with nogil:
            bad = _pass(columns, &decoder, field, goes_on, &fault)
    else:
        bad = _pass(columns, &decoder, field, goes_on, &fault)
    if bad != n:
        name = kind = None
        if decoder.fault_column != NO_COLUMN:
            name, kind = plan.names[decoder.fault_column], plan.types[decoder.fault_column]
        refuse(pinned, field, bad, fault, &decoder.found, name, kind)
    return columns
