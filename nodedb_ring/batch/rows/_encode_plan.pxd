# How the columns of a frame are written as MessagePack.

from libc.stdint cimport int64_t, uint8_t, uint32_t

from ..arrow.abi cimport ArrowArray, ArrowSchema

cdef extern from "nodedb_encode_values.h":
    ctypedef enum EncodeKind "encode_kind":
        ENCODE_NULL, ENCODE_CONSTANT, ENCODE_BOOL, ENCODE_INTEGER, ENCODE_HALF, ENCODE_FLOAT, ENCODE_DOUBLE
        ENCODE_TIMESTAMP, ENCODE_TEXT, ENCODE_BINARY, ENCODE_RAW, ENCODE_DICTIONARY, ENCODE_LIST, ENCODE_STRUCT
        ENCODE_MAP

    ctypedef struct EncodeType "encode_type":
        EncodeKind kind
        char letter
        int64_t width
        uint32_t count
        EncodeType* child
        const uint8_t* key
        uint32_t key_size


cdef class EncodePlan:
    cdef readonly list names          # of the columns
    cdef EncodeType* types            # of the columns
    cdef Py_ssize_t count
    cdef list _memory                 # what the types point to

    cdef EncodeType* _new_types(self, Py_ssize_t count) except NULL
    cdef int _set_key(self, EncodeType* type, str name, bytes value) except -1
    # The columns, unplanned, each with its key; refuses names that no row can have.
    cdef int name_columns(self, list names) except -1
    # How a column of an Arrow type is written.
    cdef int plan(self, Py_ssize_t column, const ArrowSchema* schema) except -1
    # A column that has one packed value in all rows.
    cdef int set_constant(self, Py_ssize_t column, bytes value) except -1
    cdef int _plan_value(self, str column, const ArrowSchema* schema, EncodeType* type, int depth) except -1
    cdef int _plan_children(self, str column, const ArrowSchema* schema, EncodeType* type, int depth) except -1


# That an array has as many elements as are asked of it, and all that its type needs.
cdef int check_values(str name, const EncodeType* type, const ArrowArray* array, int64_t need) except -1
