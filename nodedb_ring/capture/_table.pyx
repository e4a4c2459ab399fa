# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False
# cython: freethreading_compatible=True
"""``Table``: what is the same for all rows of a captured table, in the form in which it is written for each."""

cimport cython
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

import msgpack

__all__ = ["Table"]

cdef extern from "nodedb_short_copy.h" nogil:
    enum:
        SHORT "NODEDB_SHORT"


@cython.final
cdef class Table:
    """How the rows of a captured table read.

    Parameters
    ----------
    name : str
    columns : tuple of str
        In the order of a row's values.
    real : collection of int
        Places of the columns that hold floats only.
    key : tuple of int
        Places of the primary key's columns, in its order, if the table is WITHOUT ROWID.
    is_text_key : bool
        The key is one column, which stores numbers as text.
    """

    def __init__(self, str name not None, tuple columns not None, *, real, tuple key=(), bint is_text_key=False):
        if self.sizes != NULL:
            raise TypeError("a Table is immutable: make another")
        packer = msgpack.Packer()
        self.name = name
        self.columns = columns
        self.collection = name.encode()
        self.count = len(columns)
        self.key_count = len(key)
        self.is_text_key = is_text_key
        self.sizes = <uint32_t*>calloc(self.count + 1, sizeof(uint32_t))
        self.is_real = <uint8_t*>calloc(self.count + 1, 1)
        self.key_places = <uint32_t*>calloc(self.key_count + 1, sizeof(uint32_t))
        cdef bytes packed = packer.pack_map_header(len(columns))
        before = 0
        if self.sizes == NULL or self.is_real == NULL or self.key_places == NULL:
            raise MemoryError
        for i, column in enumerate(columns):
            packed += packer.pack(column)
            self.sizes[<Py_ssize_t>i] = <uint32_t>(len(packed) - before)
            self.is_real[<Py_ssize_t>i] = i in real
            before = len(packed)
        for i, place in enumerate(key):
            self.key_places[<Py_ssize_t>i] = place
        self.packed_size = <uint32_t>len(packed)
        self.packed = <uint8_t*>calloc(self.packed_size + SHORT, 1)
        if self.packed == NULL:
            raise MemoryError
        memcpy(self.packed, <const char*>packed, self.packed_size)

    def __dealloc__(self):
        free(self.packed)
        free(self.sizes)
        free(self.is_real)
        free(self.key_places)

    def __repr__(self):
        return f"<Table {self.name} ({', '.join(self.columns)})>"
