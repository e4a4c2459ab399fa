# cython: language_level=3, auto_pickle=False, autotestdict=False
# cython: freethreading_compatible=True
"""What is wrong with a row value, in words: which event, which column, what was found, and what to do."""

from .rows cimport (
    MSGPACK_ARRAY,
    MSGPACK_BINARY,
    MSGPACK_BOOL,
    MSGPACK_EXTENSION,
    MSGPACK_FLOAT,
    MSGPACK_MAP,
    MSGPACK_NEGATIVE,
    MSGPACK_POSITIVE,
    MSGPACK_TEXT,
    ROW_BAD_TIMESTAMP,
    ROW_CUT,
    ROW_INEXACT,
    ROW_KEY_NOT_TEXT,
    ROW_NOT_A_MAP,
    ROW_NOT_UTF8,
    ROW_OTHER_TYPE,
    ROW_OUT_OF_RANGE,
    ROW_OUTSIDE,
    ROW_TIMESTAMP,
    ROW_TOO_LONG,
    ROW_TRAILING,
    ROW_UNUSED_BYTE,
)

from ...errors import CorruptRingError, RowError
from ..schema import STRING_FIELDS, VALUE_FIELDS
from .row_types import ROW_TYPES

__all__ = []

cdef tuple _FIELDS = STRING_FIELDS + VALUE_FIELDS


cdef str field_name(int field):
    return _FIELDS[field]


cdef str event_of(RowBlock block, uint64_t position):
    return f"event {position} (sequence {block.rows[position].sequence})"


cdef str _value(const MsgpackHead* found):
    """What stands there."""
    if found.kind == MSGPACK_BOOL:
        return "true" if found.number.u else "false"
    if found.kind == MSGPACK_POSITIVE:
        return f"the integer {found.number.u}"
    if found.kind == MSGPACK_NEGATIVE:
        return f"the integer {found.number.i}"
    if found.kind == MSGPACK_FLOAT:
        return f"the float {found.number.f!r}"
    if found.kind == MSGPACK_TEXT:
        return f"text of {found.size} bytes"
    if found.kind == MSGPACK_BINARY:
        return f"binary of {found.size} bytes"
    if found.kind == MSGPACK_EXTENSION:
        return f"an extension of type {found.extension} and {found.size} bytes"
    if found.kind == MSGPACK_ARRAY:
        return f"an array of {found.items}"
    return f"a map of {found.items // 2}" if found.kind == MSGPACK_MAP else "nil"


cdef str _unfitting(RowFault fault, const MsgpackHead* found, object type):
    """What is wrong with a value that its column does not take, and which type would take it."""
    known = ROW_TYPES[type]
    if fault == ROW_OTHER_TYPE:
        return f"{_value(found)} in a column of {known}; give it the type of its values in the schema, or 'raw'"
    if fault == ROW_BAD_TIMESTAMP:
        return f"{_value(found)} is no timestamp; 'raw' takes it"
    if fault == ROW_INEXACT and type == ROW_TIMESTAMP:
        return f"a timestamp with a part of a microsecond; {known} would round it, 'raw' takes it"
    if fault == ROW_INEXACT:
        return f"{_value(found)} would be rounded in {known}; 'int64', 'uint64' or 'raw' takes it"
    if type == ROW_TIMESTAMP:
        return f"a timestamp that 64 bits of microseconds do not hold; 'raw' takes it"
    other = "int64" if found.kind == MSGPACK_NEGATIVE else "uint64"
    return f"{_value(found)} does not fit {known}; '{other}' or 'raw' takes it"


cdef str _malformed(RowFault fault, const MsgpackHead* found):
    if fault == ROW_CUT:
        return "is cut short: its MessagePack goes on behind its end"
    if fault == ROW_UNUSED_BYTE:
        return "has the byte 0xC1, which begins no value of MessagePack"
    if fault == ROW_NOT_UTF8:
        return "has text that is not UTF-8"
    if fault == ROW_NOT_A_MAP:
        return f"is {_value(found)}: must be a map of column names to values"
    if fault == ROW_KEY_NOT_TEXT:
        return f"has {_value(found)} as a key: must be text, the name of a column"
    if fault == ROW_TRAILING:
        return "has bytes behind its map"
    return "has a value of more bytes than the 2147483647 that a view of Arrow holds"


cdef int refuse(
    RowBlock block, int field, uint64_t position, RowFault fault, const MsgpackHead* found, object column, object type
) except -1:
    where = f"{event_of(block, position)}: {_FIELDS[field]}"
    if fault == ROW_OUTSIDE:
        raise CorruptRingError(
            f"{where} does not lie in its payload; something else has written to the shared block that it was read from"
        )
    if fault >= ROW_OTHER_TYPE:
        what = f", column {column!r}: {_unfitting(fault, found, type)}"
    else:
        what = f"{'' if column is None else f', column {column!r}:'} {_malformed(fault, found)}"
    raise RowError(
        f"{where}{what}; on_error='null' takes such an event as one without a row",
        position=position, sequence=block.rows[position].sequence, column=column,
    )
