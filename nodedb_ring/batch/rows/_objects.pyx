# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""Python objects as MessagePack, each in its shortest form: what a column of a list or of objects holds.

Such a column may hold anything that MessagePack has, another in each row: None, bool, int, float, str, bytes, stamps,
and lists and mappings of these.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from .msgpack_write cimport (
    FALSE,
    MOST,
    NIL,
    OF_ARRAY,
    OF_BINARY,
    OF_MAP,
    OF_TEXT,
    Heads,
    write_byte,
    write_double,
    write_head,
    write_integer,
    write_timestamp,
)

import datetime
from collections.abc import Mapping

import numpy as np

from ...errors import RowError
from ..integers import is_missing

__all__ = ["pack_column", "pack_name", "pack_value"]

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef enum:
    # Lists and mappings nest no deeper.
    MOST_DEPTH = 64
    # More than any number, stamp or head has.
    ROOM = 16

cdef object _EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
cdef object _SECOND = datetime.timedelta(seconds=1)


@cython.final
cdef class _Packer:
    """A buffer that grows. Not safe for two threads at once."""

    cdef uint8_t* buffer
    cdef size_t room
    cdef size_t used
    cdef str column
    cdef Py_ssize_t row  # -1: of no row

    def __dealloc__(self):
        free(self.buffer)

    cdef int reserve(self, size_t size) except -1:
        cdef size_t room
        cdef uint8_t* buffer
        if self.room - self.used < size:
            room = 2 * (self.used + size) + 512
            buffer = <uint8_t*>realloc(self.buffer, room)
            if buffer == NULL:
                raise MemoryError(f"no memory for {room} bytes of column {self.column!r}")
            self.buffer = buffer
            self.room = room
        return 0

    cdef object wrong(self, str what):
        row = None if self.row < 0 else self.row
        where = "" if row is None else f"row {row}: "
        return RowError(f"{where}column {self.column!r}: {what}", position=row, column=self.column)

    cdef inline int moved(self, uint8_t* to) except -1:
        self.used = to - self.buffer
        return 0

    cdef int put_head(self, Heads heads, uint64_t length) except -1:
        if length > MOST:
            raise self.wrong(f"{length} bytes or items: MessagePack counts {MOST} at most")
        self.reserve(ROOM)
        return self.moved(write_head(self.buffer + self.used, self.buffer + self.room, heads, length))

    cdef int put_bytes(self, Heads heads, const char* data, Py_ssize_t size) except -1:
        self.put_head(heads, size)
        self.reserve(size)
        if size != 0:
            memcpy(self.buffer + self.used, data, size)
            self.used += size
        return 0

    cdef int put_text(self, str text) except -1:
        cdef const char* data
        cdef Py_ssize_t size
        try:
            data = PyUnicode_AsUTF8AndSize(text, &size)
        except UnicodeEncodeError:
            raise self.wrong(f"{text!r} has a lone surrogate, which UTF-8 cannot hold") from None
        return self.put_bytes(OF_TEXT, data, size)

    cdef int put_integer(self, object value) except -1:
        cdef uint64_t bits
        cdef bint is_negative = value < 0
        if not -(1 << 63) <= value < 1 << 64:
            raise self.wrong(f"{value}: MessagePack has integers from -2^63 to 2^64 - 1; make it a float or text")
        bits = <uint64_t><int64_t>value if is_negative else <uint64_t>value
        self.reserve(ROOM)
        return self.moved(write_integer(self.buffer + self.used, self.buffer + self.room, bits, is_negative))

    cdef int put_double(self, double value) except -1:
        cdef uint64_t bits
        memcpy(&bits, &value, 8)
        self.reserve(ROOM)
        return self.moved(write_double(self.buffer + self.used, self.buffer + self.room, bits))

    cdef int put_stamp(self, int64_t seconds, uint32_t microseconds) except -1:
        self.reserve(ROOM)
        return self.moved(
            write_timestamp(self.buffer + self.used, self.buffer + self.room, seconds, 1000 * microseconds)
        )

    cdef int put_datetime64(self, object value) except -1:
        """A stamp of NumPy, of any unit that has a length."""
        try:
            stamp = value.astype("datetime64[us]")
            is_exact = bool(stamp.astype(value.dtype) == value)
        except OverflowError:
            is_exact = False
        if not is_exact:
            raise self.wrong(f"{value} is no whole number of microseconds that 64 bits hold; truncate or round it first")
        seconds, microseconds = divmod(int(stamp.astype(np.int64)), 1_000_000)
        return self.put_stamp(seconds, microseconds)

    cdef int put(self, object value, int depth) except -1:
        cdef Py_buffer view
        if value is None:
            self.reserve(ROOM)
            return self.moved(write_byte(self.buffer + self.used, self.buffer + self.room, NIL))
        if value is True or value is False:
            self.reserve(ROOM)
            return self.moved(write_byte(self.buffer + self.used, self.buffer + self.room, FALSE + (value is True)))
        if isinstance(value, int):
            return self.put_integer(int(value))
        if isinstance(value, float):
            return self.put_double(value)
        if isinstance(value, str):
            return self.put_text(str(value) if type(value) is not str else value)
        if isinstance(value, bytes | bytearray | memoryview):
            PyObject_GetBuffer(value, &view, PyBUF_SIMPLE)
            try:
                return self.put_bytes(OF_BINARY, <const char*>view.buf, view.len)
            finally:
                PyBuffer_Release(&view)
        if is_missing(value):
            return self.put(None, depth)
        if hasattr(value, "to_datetime64"):
            # A Timestamp of pandas: as a datetime it would lose its nanoseconds.
            return self.put_datetime64(value.to_datetime64())
        if isinstance(value, datetime.datetime):
            # Without a zone it is UTC, as NumPy and Arrow take it.
            since = (value if value.tzinfo is not None else value.replace(tzinfo=datetime.UTC)) - _EPOCH
            seconds, rest = divmod(since, _SECOND)
            return self.put_stamp(seconds, rest.microseconds)
        if isinstance(value, np.generic):
            if isinstance(value, np.datetime64):
                return self.put_datetime64(value)
            if value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
                return self.put(value.item(), depth)
        # msgpack's ExtType is a tuple, but what it stands for is no array.
        elif isinstance(value, list | tuple | Mapping) and type(value).__name__ != "ExtType":
            return self.put_several(value, depth + 1)
        raise self.wrong(
            f"{value!r} is of {type(value).__name__}, which is no type of MessagePack; make it a number, text, bytes or a "
            "datetime"
        )

    cdef int put_several(self, object values, int depth) except -1:
        if depth > MOST_DEPTH:
            raise self.wrong(f"its values nest more than {MOST_DEPTH} deep, or hold themselves; flatten them")
        if isinstance(values, Mapping):
            items = list(values.items())
            self.put_head(OF_MAP, len(items))
            for key, value in items:
                self.put(key, depth)
                self.put(value, depth)
            return 0
        # Counted in the copy: another thread may change what was passed.
        items = list(values)
        self.put_head(OF_ARRAY, len(items))
        for value in items:
            self.put(value, depth)
        return 0


def pack_column(str name not None, list values not None):
    """The values one after another, and where each begins: arrays of uint8, shape (m,), and of int64, shape (n + 1,)."""
    cdef _Packer packer = _Packer.__new__(_Packer)
    cdef Py_ssize_t i
    packer.column = name
    ends = np.zeros(len(values) + 1, np.int64)
    cdef int64_t[::1] end = ends
    for i in range(len(values)):
        packer.row = i
        packer.put(values[i], 0)
        end[i + 1] = <int64_t>packer.used
    return np.frombuffer(PyBytes_FromStringAndSize(<const char*>packer.buffer, <Py_ssize_t>packer.used), np.uint8), ends


def pack_value(str name not None, value):
    """One value, of a column that has it in every row."""
    cdef _Packer packer = _Packer.__new__(_Packer)
    packer.column = name
    packer.row = -1
    packer.put(value, 0)
    return packer.buffer[:packer.used]


def pack_name(str name not None):
    """A column's name as a key."""
    cdef _Packer packer = _Packer.__new__(_Packer)
    packer.column = name
    packer.row = -1
    packer.put_text(name)
    return packer.buffer[:packer.used]
