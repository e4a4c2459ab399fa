# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""Which columns row values have, and of which types: what ``RowSchema.infer`` makes a schema of."""

from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint32_t, uint64_t

from .._event_rows cimport decode_text
from .._row_block cimport RowBlock
from ._decode cimport LONG_PASS, payload_of, secret
from ._refusal cimport event_of, field_name, refuse
from .rows cimport (
    INFER_MALFORMED,
    INFER_NO_MEMORY,
    INFER_OK,
    KIND_BIG,
    KIND_BINARY,
    KIND_BOOL,
    KIND_COUNT,
    KIND_FLOAT,
    KIND_INT,
    KIND_NEGATIVE,
    KIND_OTHER,
    KIND_TEXT,
    KIND_TIMESTAMP,
    MOST_COLUMNS,
    RowInfer,
    RowKinds,
    RowPayload,
    infer_all,
    infer_begin,
    infer_free,
)

from ...errors import RowError

__all__ = ["infer_columns"]

cdef enum:
    NUMBERS = 1 << KIND_INT | 1 << KIND_BIG | 1 << KIND_NEGATIVE | 1 << KIND_FLOAT

cdef dict _TYPES = {
    KIND_BOOL: "bool", KIND_TEXT: "str", KIND_BINARY: "bytes", KIND_TIMESTAMP: "timestamp", KIND_OTHER: "raw",
}
cdef dict _FOUND = {
    KIND_BOOL: "a bool", KIND_INT: "an integer", KIND_BIG: "an integer above int64", KIND_NEGATIVE: "a negative integer",
    KIND_FLOAT: "a float", KIND_TEXT: "text", KIND_BINARY: "binary", KIND_TIMESTAMP: "a timestamp",
    KIND_OTHER: "an array, a map or an extension",
}


cdef object _disagreement(RowBlock block, str name, const RowKinds* kinds, int one, int other):
    """Of a column that has values of two kinds which no type takes."""
    cdef uint64_t position
    if kinds.first[one] > kinds.first[other]:
        one, other = other, one
    position = kinds.first[other]
    return RowError(
        f"column {name!r}: {_FOUND[one]} in {event_of(block, kinds.first[one])}, and {_FOUND[other]} in "
        f"{event_of(block, position)}: no type but 'raw' takes both; pass a schema",
        position=position, sequence=block.rows[position].sequence, column=name,
    )


cdef str _type_of(RowBlock block, str name, const RowKinds* kinds):
    """The type that takes everything which was seen in a column."""
    cdef uint32_t seen = kinds.seen
    cdef int kind, first = -1
    for kind in range(KIND_COUNT):
        if not seen & 1 << kind:
            continue
        # All numbers are of one kind here.
        if first != -1 and not (1 << first & NUMBERS and 1 << kind & NUMBERS):
            raise _disagreement(block, name, kinds, first, kind)
        if first == -1:
            first = kind
    if first == -1:
        return "null"
    if not 1 << first & NUMBERS:
        return _TYPES[first]
    if seen & 1 << KIND_FLOAT:
        return "float64"
    if not seen & 1 << KIND_BIG:
        return "int64"
    if seen & 1 << KIND_NEGATIVE:
        raise _disagreement(block, name, kinds, KIND_BIG, KIND_NEGATIVE)
    return "uint64"


cdef list _columns(RowBlock block, const RowInfer* infer):
    cdef list columns = []
    cdef uint32_t k
    for k in range(infer.names.count):
        name = decode_text(<const char*>infer.names.name[k].bytes, infer.names.name[k].size)
        columns.append((name, _type_of(block, name, infer.kinds + k)))
    return columns


cdef int _refuse_end(RowBlock block, int field, uint64_t position, const RowInfer* infer) except -1:
    if infer.end == INFER_NO_MEMORY:
        raise MemoryError(f"no memory for the names of {infer.names.count} columns")
    if infer.end == INFER_MALFORMED:
        refuse(block, field, position, infer.fault, &infer.found, None, None)
    raise RowError(
        f"{event_of(block, position)}: {field_name(field)} has the column that is one more than the {MOST_COLUMNS} that are "
        "inferred; pass a schema of those that you need",
        position=position, sequence=block.rows[position].sequence,
    )


def infer_columns(RowBlock block not None, int field, bint goes_on):
    """Name and type of each column of a field's values, in order of first appearance. With `goes_on` malformed values are
    passed over; else the first is a RowError."""
    cdef RowPayload payload
    cdef RowInfer infer
    cdef uint64_t end
    # A lease that another thread ends meanwhile keeps its rows until this has gone.
    cdef RowBlock pinned = block.pinned()
    payload = payload_of(pinned)
    try:
        if not infer_begin(&infer, secret(), payload.end):
            raise MemoryError("no memory for a table of columns")
        if block.payload_bytes >= LONG_PASS:
            with nogil:
                end = infer_all(&infer, &payload, pinned.rows, pinned.count, field, goes_on)
        else:
            end = infer_all(&infer, &payload, pinned.rows, pinned.count, field, goes_on)
        if end != pinned.count:
            _refuse_end(pinned, field, end, &infer)
        return _columns(pinned, &infer)
    finally:
        infer_free(&infer)
