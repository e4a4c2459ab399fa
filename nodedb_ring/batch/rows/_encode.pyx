# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
# distutils: extra_compile_args = -O3
"""``encode_rows``: columns as row values, the way back from ``batch.rows``.

Whatever is passed becomes *pieces*: rows whose columns lie in one Arrow array each. A frame has one a chunk. Columns that
are passed one by one may be in chunks of their own, and a piece then ends where any of them does.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t
from libc.string cimport memset

from ..arrow._import_plan cimport metadata_value, text_of, type_name
from ..arrow._source cimport ArrowSource, check_array, open_source
from ..arrow.abi cimport ArrowArray, ArrowSchema
from ._encode_plan cimport ENCODE_BINARY, ENCODE_RAW, EncodePlan, EncodeType, check_values

from collections.abc import Mapping

import numpy as np

from ...errors import BatchError, RowError
from ..arrow.pandas_index import index_columns
from ._objects import pack_column, pack_value
from .column_values import NumberColumn, is_scalar_value, numbers_or_objects
from .encoded import EncodedRows
from .rows import Rows

__all__ = ["encode_rows"]

cdef extern from "nodedb_encode_rows.h":
    ctypedef enum Fault "encode_fault":
        OK "ENCODE_OK"
        OUTSIDE "ENCODE_OUTSIDE"
        NOT_UTF8 "ENCODE_NOT_UTF8"
        TOO_LONG "ENCODE_TOO_LONG"
        ROW_TOO_LONG "ENCODE_ROW_TOO_LONG"
        INEXACT "ENCODE_INEXACT"
        OUT_OF_RANGE "ENCODE_OUT_OF_RANGE"
        NULL_KEY "ENCODE_NULL_KEY"
        CHANGED "ENCODE_CHANGED"

    ctypedef struct Column "encode_column":
        const EncodeType* type
        const ArrowArray* array
        int64_t first
        const uint8_t* given

    ctypedef struct Piece "encode_piece":
        int64_t rows
        const ArrowArray* whole
        const uint8_t* present
        const Column* columns
        uint32_t count

    ctypedef struct Trouble "encode_trouble":
        Fault fault
        uint32_t column
        int64_t row

    Trouble measure_piece "encode_measure_piece"(const Piece* piece, int64_t start, int64_t* ends) noexcept nogil
    Trouble write_piece "encode_write_piece"(
        const Piece* piece, uint8_t* data, int64_t start, const int64_t* ends) noexcept nogil

cdef enum:
    # Rows, and bytes of them, from which on a pass lets other threads run: it takes longer than a switch costs.
    LONG_PASS = 2048
    LONG_DATA = 1 << 18

cdef dict _WHY = {
    OUTSIDE: "does not lie in its buffers: its array is broken",
    NOT_UTF8: "is not UTF-8, though its type says so; make it binary",
    TOO_LONG: "has more bytes or items than MessagePack counts: 4294967295 at most",
    INEXACT: "is no whole number of microseconds, which is what a row's timestamp has; truncate or round it to us first",
    OUT_OF_RANGE: "is a time that does not fit 64 bits of microseconds",
    NULL_KEY: "has a key that is null",
    CHANGED: "has changed while it was encoded; encode a copy",
}


@cython.final
cdef class _Array:
    """One array of our own making, over memory of NumPy."""

    cdef ArrowArray array
    cdef (const void*)[3] buffers
    cdef list owners

    def __cinit__(self):
        self.owners = []

    cdef int set_buffer(self, int number, object array) except -1:
        cdef Py_buffer view
        if array is None or array.size == 0:
            # Nothing is read of it.
            return 0
        PyObject_GetBuffer(array, &view, PyBUF_SIMPLE)
        self.buffers[number] = view.buf
        PyBuffer_Release(&view)
        self.owners.append(array)
        return 0

    cdef int finish(self, int64_t length, int buffers) except -1:
        self.array.length = length
        self.array.null_count = 0 if self.buffers[0] == NULL else -1
        self.array.n_buffers = buffers
        self.array.buffers = self.buffers
        return 0


@cython.final
cdef class _Chunks:
    """The arrays of one column, in order, each an array and what keeps it alive; none where it has one value for all rows."""

    cdef list arrays        # of _Array
    cdef ArrowSource source
    cdef int64_t rows       # in all; -1: as many as the others have

    cdef Py_ssize_t count(self) noexcept:
        return self.source.count if self.source is not None else len(self.arrays)

    cdef const ArrowArray* at(self, Py_ssize_t i) noexcept:
        if self.source is not None:
            return &self.source.arrays[i]
        return &(<_Array>self.arrays[i]).array


@cython.final
cdef class _Pieces:
    """What is encoded, in order, and all that it refers to."""

    cdef EncodePlan plan
    cdef list memory
    cdef list pieces        # of bytearrays with one Piece each
    cdef int64_t rows
    cdef list owners

    def __cinit__(self):
        self.plan = EncodePlan()
        self.memory = []
        self.pieces = []
        self.owners = []

    cdef Piece* add(self, int64_t rows, Column** columns) except NULL:
        """One more piece, whose columns are all zero."""
        cdef bytearray piece = bytearray(sizeof(Piece))
        cdef bytearray memory = bytearray(max(self.plan.count, 1) * sizeof(Column))
        cdef Piece* at = <Piece*><char*>piece
        self.pieces.append(piece)
        self.memory.append(memory)
        columns[0] = <Column*><char*>memory
        at.rows = rows
        at.columns = columns[0]
        at.count = <uint32_t>self.plan.count
        if rows > INT64_MAX // 16 - self.rows:
            raise BatchError(f"{self.rows} rows and {rows} more: is broken")
        self.rows += rows
        return at


# ---- frames -----------------------------------------------------------------------------------------------------

cdef list _columns_of(const ArrowSchema* schema):
    """Numbers of the columns that are encoded: the index of a pandas frame that nobody gave a name is none."""
    cdef int64_t i
    cdef list chosen = []
    if text_of(schema.format) != "+s" or schema.dictionary != NULL:
        raise RowError(f"{type_name(schema)}: must be columns, as of a record batch, a table or a struct array")
    if schema.n_children < 0 or (schema.n_children != 0 and schema.children == NULL):
        raise BatchError(f"schema of {schema.n_children} columns: is broken")
    index = index_columns(metadata_value(schema, b"pandas"))
    for i in range(schema.n_children):
        if text_of(schema.children[i].name) not in index:
            chosen.append(i)
    return chosen


cdef _Pieces _pieces_of_frame(source, frozenset raw, dict given, present):
    """A frame's pieces.

    `raw` names binary columns that are MessagePack already. `given` has for some columns in which rows their keys stand,
    and `present` where there is a row: a byte for each row.
    """
    cdef _Pieces pieces = _Pieces()
    cdef ArrowSource frame = open_source(source)
    cdef list chosen = _columns_of(frame.schema)
    cdef Piece* piece
    cdef Column* columns
    cdef const ArrowArray* array
    cdef Py_ssize_t c, k
    cdef int64_t child, before = 0
    pieces.owners.append(frame)
    pieces.plan.name_columns([text_of(frame.schema.children[<int64_t>i].name) for i in chosen])
    for k in range(pieces.plan.count):
        child = chosen[k]
        pieces.plan.plan(k, frame.schema.children[child])
        if pieces.plan.names[k] in raw and pieces.plan.types[k].kind == ENCODE_BINARY:
            pieces.plan.types[k].kind = ENCODE_RAW
    frame.read()
    for c in range(frame.count):
        array = &frame.arrays[c]
        if array.length < 0 or array.offset < 0 or array.offset > INT64_MAX // 32 - array.length:
            raise BatchError(f"an array of {array.length} rows from {array.offset} on: is broken")
        if array.n_buffers > 0 and array.buffers == NULL:
            raise BatchError(f"an array of {array.n_buffers} buffers, and none of them there: is broken")
        piece = pieces.add(array.length, &columns)
        piece.whole = array
        if present is not None:
            piece.present = _bytes_of(pieces, present, before, array.length)
        for k in range(pieces.plan.count):
            child = chosen[k]
            if child >= array.n_children or array.children == NULL or array.children[child] == NULL:
                raise BatchError(f"an array of {array.n_children} columns: its schema has more")
            check_values(pieces.plan.names[k], &pieces.plan.types[k], array.children[child], array.offset + array.length)
            columns[k].type = &pieces.plan.types[k]
            columns[k].array = array.children[child]
            columns[k].first = array.offset + array.children[child].offset
            if pieces.plan.names[k] in given:
                columns[k].given = _bytes_of(pieces, given[pieces.plan.names[k]], before, array.length)
        before += array.length
    return pieces


cdef const uint8_t* _bytes_of(_Pieces pieces, array, int64_t first, int64_t count) except? NULL:
    """Bytes of rows, of an array that is kept from now on."""
    cdef Py_buffer view
    PyObject_GetBuffer(array, &view, PyBUF_SIMPLE)
    try:
        if first + count > view.len:
            raise RowError(f"{first + count} rows or more came of {view.len}")
        pieces.owners.append(array)
        return <const uint8_t*>view.buf + first
    finally:
        PyBuffer_Release(&view)


# ---- columns by name --------------------------------------------------------------------------------------------

cdef _Chunks _chunks_of_column(EncodePlan plan, Py_ssize_t k, value):
    """One column of a mapping, planned."""
    cdef _Chunks chunks = _Chunks()
    cdef _Array own = _Array()
    cdef EncodeType* type = &plan.types[k]
    cdef ArrowSchema schema
    cdef Py_ssize_t i
    cdef bytes format
    cdef str name = plan.names[k]
    if is_scalar_value(value):
        plan.set_constant(k, pack_value(name, value.item() if isinstance(value, np.ndarray) else value))
        chunks.rows = -1
        chunks.arrays = []
        return chunks
    if hasattr(value, "__arrow_c_array__") or hasattr(value, "__arrow_c_stream__"):
        chunks.source = open_source(value)
        plan.plan(k, chunks.source.schema)
        chunks.source.read()
        for i in range(chunks.source.count):
            check_values(name, type, &chunks.source.arrays[i], chunks.source.arrays[i].length)
            if chunks.source.arrays[i].length > INT64_MAX // 32 - chunks.rows:
                raise BatchError(f"column {name!r} of {chunks.rows} rows and {chunks.source.arrays[i].length} more: is broken")
            chunks.rows += chunks.source.arrays[i].length
        return chunks
    values = numbers_or_objects(name, value)
    if isinstance(values, NumberColumn):
        memset(&schema, 0, sizeof(schema))
        format = values.format.encode()
        schema.format = format
        plan.plan(k, &schema)
        own.set_buffer(0, values.valid)
        own.set_buffer(1, values.values)
        own.finish(values.length, 2)
    else:
        data, ends = pack_column(name, values)
        type.kind = ENCODE_RAW
        type.letter = c"Z"
        own.set_buffer(1, ends.view(np.uint8))
        own.set_buffer(2, data)
        own.finish(len(values), 3)
    chunks.arrays = [own]
    chunks.rows = own.array.length
    return chunks


cdef _Pieces _pieces_of_mapping(source):
    cdef _Pieces pieces = _Pieces()
    cdef _Chunks chunks
    cdef Column* columns
    cdef Py_ssize_t k
    cdef int64_t rows = -1, before = 0, count
    pieces.plan.name_columns(list(source))
    cdef list every = [_chunks_of_column(pieces.plan, k, source[pieces.plan.names[k]]) for k in range(pieces.plan.count)]
    cdef list place = [[0, 0] for k in range(pieces.plan.count)]
    pieces.owners.append(every)
    sizes = {name: (<_Chunks>chunks).rows for name, chunks in zip(pieces.plan.names, every) if (<_Chunks>chunks).rows >= 0}
    if not sizes:
        raise RowError("no column, or one value for each: at least one must say how many rows there are")
    if len(set(sizes.values())) > 1:
        raise RowError(f"columns of unequal length: {', '.join([f'{name} {size}' for name, size in sizes.items()])}")
    rows = next(iter(sizes.values()))
    while before < rows:
        # Up to the next end of a chunk. `place` has for each column the chunk, and how much of it there was already.
        count = rows - before
        for k in range(pieces.plan.count):
            chunks = every[k]
            if chunks.rows < 0:
                continue
            while chunks.at(place[k][0]).length == place[k][1]:
                place[k] = [place[k][0] + 1, 0]
            count = min(count, chunks.at(place[k][0]).length - <int64_t>place[k][1])
        pieces.add(count, &columns)
        for k in range(pieces.plan.count):
            chunks = every[k]
            columns[k].type = &pieces.plan.types[k]
            columns[k].array = &_NO_ARRAY
            if chunks.rows >= 0:
                columns[k].array = chunks.at(place[k][0])
                columns[k].first = columns[k].array.offset + <int64_t>place[k][1]
                place[k][1] += count
        before += count
    return pieces


cdef ArrowArray _NO_ARRAY
memset(&_NO_ARRAY, 0, sizeof(_NO_ARRAY))


# ---- both passes ------------------------------------------------------------------------------------------------

cdef object _wrong(EncodePlan plan, const Trouble* trouble, int64_t before):
    cdef int64_t row = before + trouble.row
    name = None if trouble.column == <uint32_t>-1 else plan.names[trouble.column]
    if trouble.fault == ROW_TOO_LONG:
        return RowError(f"row {row}: has more than 4294967294 bytes, the most of a value; leave a column out", position=row)
    what = f"row {row}" if name is None else f"row {row}: column {name!r}"
    return RowError(f"{what} {_WHY[trouble.fault]}", position=row, column=name)


cdef int _measure(_Pieces pieces, int64_t* ends) except -1:
    """Fills in where each row ends; ends[0] is 0."""
    cdef const Piece* piece
    cdef Trouble trouble
    cdef int64_t before = 0
    for memory in pieces.pieces:
        piece = <const Piece*><const char*><bytearray>memory
        if piece.rows >= LONG_PASS:
            with nogil:
                trouble = measure_piece(piece, ends[before], ends + before + 1)
        else:
            trouble = measure_piece(piece, ends[before], ends + before + 1)
        if trouble.fault != OK:
            raise _wrong(pieces.plan, &trouble, before)
        before += piece.rows
    return 0


cdef int _write(_Pieces pieces, const int64_t* ends, uint8_t* data) except -1:
    cdef const Piece* piece
    cdef Trouble trouble
    cdef int64_t before = 0
    for memory in pieces.pieces:
        piece = <const Piece*><const char*><bytearray>memory
        if ends[before + piece.rows] - ends[before] >= LONG_DATA:
            with nogil:
                trouble = write_piece(piece, data, ends[before], ends + before + 1)
        else:
            trouble = write_piece(piece, data, ends[before], ends + before + 1)
        if trouble.fault != OK:
            raise _wrong(pieces.plan, &trouble, before)
        before += piece.rows
    return 0


cdef _Pieces _pieces_of_rows(source):
    """Rows that were read: what their columns alone do not say is whether there is a row, and which keys it has."""
    cdef dict given = {}
    for name in source.schema:
        stands = source.given(name)
        if not stands.all():
            given[name] = stands.view(np.uint8)
    raw = frozenset([name for name, kind in source.schema.items() if kind == "raw"])
    present = source.present
    return _pieces_of_frame(source, raw, given, None if present.all() else present.view(np.uint8))


cdef _Pieces _pieces_of(source):
    if isinstance(source, Rows):
        return _pieces_of_rows(source)
    if hasattr(source, "__arrow_c_array__") or hasattr(source, "__arrow_c_stream__"):
        return _pieces_of_frame(source, frozenset(), {}, None)
    if isinstance(source, Mapping):
        return _pieces_of_mapping(source)
    raise TypeError(
        f"{type(source).__name__}: must be a mapping of columns, Rows, or an object with __arrow_c_array__ or"
        " __arrow_c_stream__, such as a record batch, a table or a data frame"
    )


def encode_rows(source, /):
    """Columns as row values: the pair ``(data, offsets)`` that ``EventBatch.from_columns`` takes for ``new_value``.

    Parameters
    ----------
    source : mapping of str to column, ``Rows``, or an object with the Arrow PyCapsule interface
        A record batch, a table, a struct array, a data frame of Polars or pandas, a relation of DuckDB: whatever exports a
        struct. A column of a mapping is an array of NumPy, masked or not, an array or series that exports Arrow capsules,
        a list of any values that MessagePack has, or one such value for all rows.

    Returns
    -------
    EncodedRows
        ``data``, uint8, shape (m,), and ``offsets``, int64, shape (n + 1,): row i is ``data[offsets[i]:offsets[i + 1]]``,
        a map with the columns as keys, in order. A null struct has no bytes, and becomes a None value.

    A null is nil. Each value takes the shortest form that MessagePack has for its type: integers by their size, floats
    of 16 and 32 bits as float 32, others as float 64, text as str, bytes as bin, timestamps as the extension -1, lists as
    arrays, structs and maps as maps. A timestamp without a zone is UTC. What comes of this, ``batch.rows`` reads back
    equal. Of ``Rows`` a ``raw`` column is written as it is, and a key that was not given is left out.

    Raises
    ------
    RowError
        A column that MessagePack cannot hold, which is named; a name that is empty or there twice; columns of unequal
        length; a stamp that is no whole number of microseconds; text that is not UTF-8; a value that is too long.
    BatchError
        An Arrow array that is not what its schema says.
    TypeError
        `source` is none of these, or a column's name is no str.

    Thread safety
    -------------
    Long passes let other threads run. A column that one of them changes meanwhile is a RowError.
    """
    cdef _Pieces pieces = _pieces_of(source)
    cdef Py_buffer view, out
    offsets = np.empty(pieces.rows + 1, np.int64)
    PyObject_GetBuffer(offsets, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
    try:
        (<int64_t*>view.buf)[0] = 0
        _measure(pieces, <int64_t*>view.buf)
        data = np.empty((<int64_t*>view.buf)[pieces.rows], np.uint8)
        PyObject_GetBuffer(data, &out, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            _write(pieces, <const int64_t*>view.buf, <uint8_t*>out.buf)
        finally:
            PyBuffer_Release(&out)
    finally:
        PyBuffer_Release(&view)
    return EncodedRows(data, offsets)
