# The arrays of an object that exports them.

from libc.stdint cimport int64_t

from .abi cimport ArrowArray, ArrowArrayStream, ArrowSchema


cdef class ArrowSource:
    cdef const ArrowSchema* schema
    cdef ArrowArray* arrays         # as many as `count`, once `read` was called
    cdef Py_ssize_t count
    cdef Py_ssize_t room
    cdef object _given              # what exports them
    cdef object _capsules           # what the schema, an array or a stream of arrays lies in
    cdef ArrowSchema _own           # a stream's schema
    cdef ArrowArrayStream* _stream
    cdef bint _is_owner             # the arrays are released here, and not by their capsule

    # Takes all arrays. Only once, and after the schema was found to be one that can be read.
    cdef int read(self) except -1
    cdef ArrowArray* _add(self) except NULL


# The source behind an object with the Arrow PyCapsule interface, its schema read.
cdef ArrowSource open_source(object given)
# That an array has as many elements as are asked of it, and the buffers of its layout: n for null, + for a struct, b for
# numbers and bits, o for lists of offsets, u U z Z for text and bytes of offsets, v for views, w for one size.
cdef int check_array(str name, const ArrowArray* array, char letter, int64_t need) except -1
