# A row as MessagePack, for the module that captures rows.


cdef class RowWriter:
    cdef char* buffer
    cdef size_t room
    cdef size_t used
    # The map of the columns, whose packed names are `keys`, to the values of SQLite; `real` says which hold floats only.
    cdef bytes row(self, bytes header, tuple keys, bytes real, tuple values)
    cdef int _reserve(self, size_t size) except -1
    cdef int _put(self, int first, unsigned long long number, int size) except -1
    cdef int _value(self, object value, bint real) except -1
