# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
# distutils: extra_compile_args = -O1
"""The capsules of the Arrow PyCapsule interface."""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.stdlib cimport free

from .abi cimport ArrowArray, ArrowArrayStream, ArrowSchema

__all__ = []


cdef void _free_schema(object capsule) noexcept:
    cdef ArrowSchema* schema = <ArrowSchema*>PyCapsule_GetPointer(capsule, "arrow_schema")
    if schema.release != NULL:
        schema.release(schema)
    free(schema)


cdef void _free_array(object capsule) noexcept:
    cdef ArrowArray* array = <ArrowArray*>PyCapsule_GetPointer(capsule, "arrow_array")
    if array.release != NULL:
        array.release(array)
    free(array)


cdef void _free_stream(object capsule) noexcept:
    cdef ArrowArrayStream* stream = <ArrowArrayStream*>PyCapsule_GetPointer(capsule, "arrow_array_stream")
    if stream.release != NULL:
        stream.release(stream)
    free(stream)


cdef object schema_capsule(ArrowSchema* schema):
    return PyCapsule_New(schema, "arrow_schema", _free_schema)


cdef object array_capsule(ArrowArray* array):
    return PyCapsule_New(array, "arrow_array", _free_array)


cdef object stream_capsule(ArrowArrayStream* stream):
    return PyCapsule_New(stream, "arrow_array_stream", _free_stream)
