# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
# distutils: extra_compile_args = -O3
"""Writes a change of a SQLite table into a block, from the values that apsw has of it.

A value takes the shortest form that MessagePack has for it: nil, int, float 64, str or bin.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.stdint cimport uint32_t
from libc.string cimport memchr, memcmp, memcpy

from ..batch.rows.msgpack_write cimport (
    NIL,
    OF_BINARY,
    OF_TEXT,
    write_double,
    write_head,
    write_integer,
)
from ..core.layout cimport EventField, EventRow
from ..core.schema cimport (
    FIELD_COLLECTION,
    FIELD_NEW_VALUE,
    FIELD_OLD_VALUE,
    FIELD_ROW_ID,
    FIELD_STATEMENT_DIGEST,
    FIELD_USER_ID,
)
from ._change_block cimport OP_INSERT, clear_field, grow_bytes, next_row

import apsw

__all__ = []  # C functions alone

cdef extern from "Python.h":
    bint PyFloat_CheckExact(object value)
    bint PyLong_CheckExact(object value)
    bint PyUnicode_CheckExact(object value)
    bint PyBytes_CheckExact(object value)
    double PyFloat_AS_DOUBLE(object value) noexcept
    long long PyLong_AsLongLong(object value) except? -1
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    bint PyUnicode_IS_COMPACT_ASCII(object text) noexcept
    void* PyUnicode_DATA(object text) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(object text) noexcept

cdef extern from "nodedb_short_copy.h" nogil:
    enum:
        SHORT "NODEDB_SHORT"
    void copy_short "nodedb_copy_short"(uint8_t* to, const uint8_t* source, size_t size) noexcept
    void copy_padded "nodedb_copy_padded"(uint8_t* to, const uint8_t* source, size_t size) noexcept

cdef enum:
    # Bytes of the longest number, and more than the head of any other value has.
    MOST_OF_NUMBER = 9

cdef object _NO_CHANGE = apsw.no_change
cdef object _literal = apsw.format_sql_value
cdef const char* _HEX = "0123456789ABCDEF"


cdef int write_change(
    ChangeBlock self, Table table, uint8_t op, uint8_t source, int64_t rowid, tuple keyed, tuple new, tuple old
) except -1:
    cdef EventRow* row = next_row(self)
    cdef EventField* field = row.field
    cdef uint64_t start = self.used
    row.op = op
    row.source = source
    row.count = 1
    _put_bytes(self, PyBytes_AS_STRING(table.collection), <uint64_t>PyBytes_GET_SIZE(table.collection))
    field[FIELD_COLLECTION].offset = <uint32_t>start
    field[FIELD_COLLECTION].length = <uint32_t>(self.used - start)
    start = self.used
    if table.key_count == 0:
        _put_number(self, rowid)
    else:
        _put_key(self, table, keyed, old)
    field[FIELD_ROW_ID].offset = <uint32_t>start
    field[FIELD_ROW_ID].length = <uint32_t>(self.used - start)
    # One by one: a loop over these four would make Python objects of them.
    clear_field(field + FIELD_USER_ID, self.used)
    clear_field(field + FIELD_STATEMENT_DIGEST, self.used)
    clear_field(field + FIELD_NEW_VALUE, self.used)
    clear_field(field + FIELD_OLD_VALUE, self.used)
    if new is not None:
        start = self.used
        _put_map(self, table, new, old)
        field[FIELD_NEW_VALUE].length = <uint32_t>(self.used - start)
        field[FIELD_OLD_VALUE].offset = <uint32_t>self.used
    if old is not None and op != OP_INSERT:
        start = self.used
        _put_map(self, table, old, None)
        field[FIELD_OLD_VALUE].length = <uint32_t>(self.used - start)
    self.written += 1
    return 0


cdef bint same_key(ChangeBlock self, Table table, tuple first, tuple second) except -1:
    cdef uint64_t start = self.used, middle
    cdef bint same
    _put_key(self, table, first, None)
    middle = self.used
    _put_key(self, table, second, first)
    same = middle - start == self.used - middle and memcmp(
        self.bytes + start, self.bytes + middle, middle - start
    ) == 0
    self.used = start
    return same


cdef inline int _need_bytes(ChangeBlock self, uint64_t size) except -1:
    return 0 if self.byte_room - self.used >= size else grow_bytes(self, size)


# Row ids.


cdef int _put_number(ChangeBlock self, int64_t number) except -1:
    """Decimal digits."""
    cdef char[20] digits
    cdef int at = 20
    cdef uint64_t rest = <uint64_t>number if number >= 0 else 0 - <uint64_t>number
    while True:
        at -= 1
        digits[at] = <char>(48 + rest % 10)
        rest //= 10
        if rest == 0:
            break
    if number < 0:
        at -= 1
        digits[at] = 45
    return _put_bytes(self, digits + at, 20 - at)


cdef int _put_key(ChangeBlock self, Table table, tuple values, tuple before) except -1:
    """The text itself for a key of one TEXT column; SQL literals with commas between for any other.

    Text that could be taken for a literal is written as one, so two keys never have the same row id.
    """
    cdef Py_ssize_t i, place
    cdef const char* data
    cdef Py_ssize_t size
    for i in range(table.key_count):
        place = table.key_places[i]
        value = <object>PyTuple_GET_ITEM(values, place)
        if value is _NO_CHANGE:
            value = <object>PyTuple_GET_ITEM(before, place)
        if i != 0:
            _put_bytes(self, ",", 1)
        if PyLong_CheckExact(value):
            _put_number(self, PyLong_AsLongLong(value))
        elif PyUnicode_CheckExact(value):
            data = _text(value, &size)
            if table.is_text_key and not _looks_like_a_literal(data, size):
                _put_bytes(self, data, <uint64_t>size)
            else:
                _put_quoted(self, value, data, size)
        elif PyBytes_CheckExact(value):
            _put_hexadecimal(self, value)
        else:
            _put_literal(self, value)
    return 0


cdef int _put_literal(ChangeBlock self, value) except -1:
    cdef Py_ssize_t size
    literal = _literal(value)
    cdef const char* data = _text(literal, &size)
    return _put_bytes(self, data, <uint64_t>size)


cdef int _put_quoted(ChangeBlock self, value, const char* data, Py_ssize_t size) except -1:
    cdef Py_ssize_t i
    cdef char* to
    if memchr(data, 0, <size_t>size) != NULL:
        return _put_literal(self, value)
    _need_bytes(self, 2 * <uint64_t>size + 2)
    to = <char*>self.bytes + self.used
    to[0] = 39
    to += 1
    for i in range(size):
        if data[i] == 39:
            to[0] = 39
            to += 1
        to[0] = data[i]
        to += 1
    to[0] = 39
    self.used = <uint64_t>(to + 1 - <char*>self.bytes)
    return 0


cdef int _put_hexadecimal(ChangeBlock self, value) except -1:
    cdef const char* data = PyBytes_AS_STRING(value)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(value), i
    cdef char* to
    _need_bytes(self, 2 * <uint64_t>size + 3)
    to = <char*>self.bytes + self.used
    to[0] = 88
    to[1] = 39
    for i in range(size):
        to[2 + 2 * i] = _HEX[(<uint8_t>data[i]) >> 4]
        to[3 + 2 * i] = _HEX[(<uint8_t>data[i]) & 15]
    to[2 + 2 * size] = 39
    self.used += 2 * <uint64_t>size + 3
    return 0


# Values as MessagePack. They are written to where `to` points, and a function returns where the next byte goes. `to` is
# a variable and not a field of the block: a byte that is written might be one of the block's own fields, for all that C
# knows, which would be loaded again after each.


cdef int _put_map(ChangeBlock self, Table table, tuple values, tuple before) except -1:
    """The map of the columns to the values; where one says apsw.no_change, to that of `before`."""
    cdef const uint8_t* name = table.packed
    cdef uint8_t* to = self.bytes + self.used
    cdef uint32_t size
    cdef Py_ssize_t i
    if table.count == 0:
        return _put_bytes(self, <const char*>name, table.packed_size)
    for i in range(table.count):
        value = <object>PyTuple_GET_ITEM(values, i)
        if value is _NO_CHANGE:
            value = <object>PyTuple_GET_ITEM(before, i)
        size = table.sizes[i]
        if <uint64_t>(self.bytes + self.byte_room - to) < size + MOST_OF_NUMBER + SHORT:
            to = _grown(self, to, size + MOST_OF_NUMBER + SHORT)
        copy_padded(to, name, size)
        name += size
        to = _value(self, to + size, value, table.is_real[i])
    self.used = <uint64_t>(to - self.bytes)
    return 0


cdef uint8_t* _grown(ChangeBlock self, uint8_t* to, uint64_t size) except NULL:
    """Where `to` points after the block has got room for `size` bytes more."""
    self.used = <uint64_t>(to - self.bytes)
    grow_bytes(self, size)
    return self.bytes + self.used


cdef int _put_bytes(ChangeBlock self, const char* data, uint64_t size) except -1:
    _need_bytes(self, size)
    copy_short(self.bytes + self.used, <const uint8_t*>data, size)
    self.used += size
    return 0


cdef inline uint8_t* _value(ChangeBlock self, uint8_t* to, object value, bint is_real) except NULL:
    """One value, for which there is room unless it is longer than MOST_OF_NUMBER."""
    cdef const uint8_t* end = self.bytes + self.byte_room
    cdef double floating
    cdef uint64_t bits
    cdef int64_t number
    cdef const char* data
    cdef Py_ssize_t size
    if PyUnicode_CheckExact(value):
        data = _text(value, &size)
        to = write_head(to, end, OF_TEXT, <uint64_t>size)
    elif value is None:
        to[0] = NIL
        return to + 1
    elif PyFloat_CheckExact(value) or (is_real and PyLong_CheckExact(value)):
        # The hook gives the default of a column that was added later as it was written, be it an integer.
        floating = PyFloat_AS_DOUBLE(value) if PyFloat_CheckExact(value) else <double>PyLong_AsLongLong(value)
        memcpy(&bits, &floating, 8)
        return write_double(to, end, bits)
    elif PyLong_CheckExact(value):
        number = PyLong_AsLongLong(value)
        return write_integer(to, end, <uint64_t>number, number < 0)
    elif PyBytes_CheckExact(value):
        data = PyBytes_AS_STRING(value)
        size = PyBytes_GET_SIZE(value)
        to = write_head(to, end, OF_BINARY, <uint64_t>size)
    else:
        raise TypeError(f"{value!r}: no value of SQLite")
    if <uint64_t>(end - to) < <uint64_t>size:
        to = _grown(self, to, <uint64_t>size)
    copy_short(to, <const uint8_t*>data, <size_t>size)
    return to + size


cdef inline const char* _text(object text, Py_ssize_t* size) except NULL:
    if PyUnicode_IS_COMPACT_ASCII(text):
        size[0] = PyUnicode_GET_LENGTH(text)
        return <const char*>PyUnicode_DATA(text)
    return PyUnicode_AsUTF8AndSize(text, size)


cdef inline bint _looks_like_a_literal(const char* data, Py_ssize_t size) noexcept:
    return size != 0 and (data[0] == 39 or (size > 1 and data[0] == 88 and data[1] == 39))
