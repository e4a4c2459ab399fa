# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""The arrays of an object that exports them, whoever made it, and whether they have the shape that their types have.

How large a buffer is, the interface does not tell: what lies in one is checked by whoever reads it.
"""

cimport cython
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport INT64_MAX
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from ._import_plan cimport text_of

from ...errors import BatchError

__all__ = []


@cython.final
cdef class ArrowSource:
    """The schema of an object, and its arrays, kept until they are copied."""

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.count):
            if self._is_owner and self.arrays[i].release != NULL:
                self.arrays[i].release(&self.arrays[i])
        free(self.arrays)
        if self._own.release != NULL:
            self._own.release(&self._own)

    cdef int read(self) except -1:
        cdef ArrowArray* array
        cdef int code
        if self._stream == NULL:
            array = self._add()
            array[0] = (<ArrowArray*>PyCapsule_GetPointer(self._capsules[1], "arrow_array"))[0]
            if array.release == NULL:
                raise _taken(self._given)
            self.count = 1
            return 0
        self._is_owner = True
        while True:
            array = self._add()
            with nogil:
                code = self._stream.get_next(self._stream, array)
            _check_call(self._given, self._stream, code)
            if array.release == NULL:
                return 0
            self.count += 1

    cdef ArrowArray* _add(self) except NULL:
        """Room for one more array, which does not count yet."""
        cdef Py_ssize_t room = max(8, 2 * self.room)
        cdef ArrowArray* more
        if self.count == self.room:
            more = <ArrowArray*>malloc(room * sizeof(ArrowArray))
            if more == NULL:
                raise MemoryError(f"no memory for {room} arrays")
            if self.count != 0:
                memcpy(more, self.arrays, self.count * sizeof(ArrowArray))
            free(self.arrays)
            self.arrays = more
            self.room = room
        memset(&self.arrays[self.count], 0, sizeof(ArrowArray))
        return &self.arrays[self.count]


cdef ArrowSource open_source(object given):
    cdef ArrowSource source = ArrowSource.__new__(ArrowSource)
    cdef int code
    source._given = given
    if hasattr(given, "__arrow_c_array__"):
        source._capsules = given.__arrow_c_array__()
        source.schema = <const ArrowSchema*>PyCapsule_GetPointer(source._capsules[0], "arrow_schema")
        if source.schema.release == NULL:
            raise _taken(given)
        return source
    if not hasattr(given, "__arrow_c_stream__"):
        raise TypeError(
            f"{type(given).__name__}: has neither __arrow_c_array__ nor __arrow_c_stream__; pass a record batch, a"
            " table or a data frame"
        )
    source._capsules = given.__arrow_c_stream__()
    source._stream = <ArrowArrayStream*>PyCapsule_GetPointer(source._capsules, "arrow_array_stream")
    if source._stream.release == NULL:
        raise _taken(given)
    with nogil:
        code = source._stream.get_schema(source._stream, &source._own)
    _check_call(given, source._stream, code)
    source.schema = &source._own
    return source


cdef object _taken(given):
    return BatchError(f"{type(given).__name__}: its capsule was already consumed; request a new one")


cdef int _check_call(given, ArrowArrayStream* stream, int code) except -1:
    if code != 0:
        said = text_of(stream.get_last_error(stream)) or "no reason given"
        raise BatchError(f"the stream of {type(given).__name__} failed with error {code}: {said}")
    return 0


cdef int check_array(str name, const ArrowArray* array, char letter, int64_t need) except -1:
    cdef int64_t buffers = 2
    if letter == c"n":
        buffers = 0
    elif letter == c"+":
        buffers = 1
    elif letter in b"uUzZ":
        buffers = 3
    if array.length < 0 or array.offset < 0 or array.offset > INT64_MAX // 32 - array.length or array.length < need:
        raise BatchError(f"{name}: an array of {array.length} rows from {array.offset} on, of which {need} are needed")
    if letter == c"n":
        return 0
    if letter == c"v":
        if array.n_buffers < 3:
            raise BatchError(f"{name}: {array.n_buffers} buffers; a view array has at least 3")
        buffers = array.n_buffers
    if array.n_buffers != buffers or array.buffers == NULL:
        raise BatchError(f"{name}: {array.n_buffers} buffers; its type has {buffers}")
    if letter == c"+":
        return 0
    if need != 0 and array.buffers[1] == NULL:
        raise BatchError(f"{name}: no buffer of data for {need} rows")
    if letter == c"v" and buffers > 3 and array.buffers[buffers - 1] == NULL:
        raise BatchError(f"{name}: {buffers - 3} buffers of text, and not the sizes of them")
    return 0
