# How the rows of a captured table read, for the module that writes them.

from libc.stdint cimport uint8_t, uint32_t


cdef class Table:
    cdef readonly str name
    cdef readonly tuple columns
    cdef Py_ssize_t count        # of columns
    cdef bytes collection        # the name as UTF-8
    cdef uint8_t* packed         # the header of the map, and the columns' names as MessagePack, one behind the other
    cdef uint32_t packed_size    # more may be read behind: NODEDB_SHORT bytes
    cdef uint32_t* sizes         # by column: the bytes of its name in `packed`; the first has the header before it
    cdef uint8_t* is_real        # by column: whether it holds floats only
    cdef Py_ssize_t key_count    # columns of the key of a WITHOUT ROWID table; 0: by rowid
    cdef uint32_t* key_places
    cdef bint is_text_key        # one column, which stores numbers as text
