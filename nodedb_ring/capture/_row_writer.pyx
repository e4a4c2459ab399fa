# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False
"""Rows of SQLite as MessagePack maps from column to value, written from the values without an object in between.

The names of a table's columns do not change from row to row, so they come packed. Each value takes the shortest form that
MessagePack has for it: nil, int, float 64, str or bin.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

__all__ = ["RowWriter"]

cdef extern from "Python.h":
    bint PyFloat_CheckExact(object value)
    bint PyLong_CheckExact(object value)
    bint PyUnicode_CheckExact(object value)
    bint PyBytes_CheckExact(object value)
    double PyFloat_AS_DOUBLE(object value) noexcept
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL


@cython.final
cdef class RowWriter:
    """Packs one row at a time. Not safe for two threads at once."""

    def __dealloc__(self):
        free(self.buffer)

    cdef bytes row(self, bytes header, tuple keys, bytes real, tuple values):
        cdef Py_ssize_t i
        cdef Py_ssize_t size
        cdef bytes key
        self.used = 0
        self._reserve(<size_t>PyBytes_GET_SIZE(header))
        memcpy(self.buffer, PyBytes_AS_STRING(header), <size_t>PyBytes_GET_SIZE(header))
        self.used = <size_t>PyBytes_GET_SIZE(header)
        for i in range(len(keys)):
            key = <bytes>keys[i]
            size = PyBytes_GET_SIZE(key)
            self._reserve(<size_t>size + 9)
            memcpy(self.buffer + self.used, PyBytes_AS_STRING(key), <size_t>size)
            self.used += <size_t>size
            self._value(values[i], PyBytes_AS_STRING(real)[i] != 0)
        return PyBytes_FromStringAndSize(self.buffer, <Py_ssize_t>self.used)

    cdef int _reserve(self, size_t size) except -1:
        cdef size_t room
        cdef char* buffer
        if self.room - self.used < size:
            room = 2 * (self.used + size) + 512
            buffer = <char*>realloc(self.buffer, room)
            if buffer == NULL:
                raise MemoryError
            self.buffer = buffer
            self.room = room
        return 0

    cdef int _put(self, int first, unsigned long long number, int size) except -1:
        """A first byte, and a number of so many bytes in network order."""
        cdef int i
        self._reserve(9)
        self.buffer[self.used] = <char>first
        for i in range(size):
            self.buffer[self.used + 1 + i] = <char>(number >> (8 * (size - 1 - i)))
        self.used += 1 + size
        return 0

    cdef int _value(self, object value, bint real) except -1:
        cdef long long number
        cdef double floating
        cdef unsigned long long bits
        cdef const char* data
        cdef Py_ssize_t size
        if value is None:
            return self._put(0xC0, 0, 0)
        if PyFloat_CheckExact(value) or (real and PyLong_CheckExact(value)):
            # The hook gives the default of a column that was added later as it was written, be it an integer.
            floating = PyFloat_AS_DOUBLE(value) if PyFloat_CheckExact(value) else <double><long long>value
            memcpy(&bits, &floating, 8)
            return self._put(0xCB, bits, 8)
        if PyLong_CheckExact(value):
            number = value
            if number >= 0:
                if number < 0x80:
                    return self._put(<int>number, 0, 0)
                if number < 0x100:
                    return self._put(0xCC, <unsigned long long>number, 1)
                if number < 0x10000:
                    return self._put(0xCD, <unsigned long long>number, 2)
                if number < 0x100000000:
                    return self._put(0xCE, <unsigned long long>number, 4)
                return self._put(0xCF, <unsigned long long>number, 8)
            if number >= -0x20:
                return self._put(<int>(number & 0xFF), 0, 0)
            if number >= -0x80:
                return self._put(0xD0, <unsigned long long>number, 1)
            if number >= -0x8000:
                return self._put(0xD1, <unsigned long long>number, 2)
            if number >= -0x80000000:
                return self._put(0xD2, <unsigned long long>number, 4)
            return self._put(0xD3, <unsigned long long>number, 8)
        if PyUnicode_CheckExact(value):
            data = PyUnicode_AsUTF8AndSize(value, &size)
            if size < 32:
                self._put(0xA0 | <int>size, 0, 0)
            elif size < 0x100:
                self._put(0xD9, <unsigned long long>size, 1)
            elif size < 0x10000:
                self._put(0xDA, <unsigned long long>size, 2)
            else:
                self._put(0xDB, <unsigned long long>size, 4)
        elif PyBytes_CheckExact(value):
            data = PyBytes_AS_STRING(value)
            size = PyBytes_GET_SIZE(value)
            if size < 0x100:
                self._put(0xC4, <unsigned long long>size, 1)
            elif size < 0x10000:
                self._put(0xC5, <unsigned long long>size, 2)
            else:
                self._put(0xC6, <unsigned long long>size, 4)
        else:
            raise TypeError(f"{value!r}: no value of SQLite")
        self._reserve(<size_t>size)
        memcpy(self.buffer + self.used, data, <size_t>size)
        self.used += <size_t>size
        return 0
