# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
# distutils: extra_compile_args = -O3
"""``WriteEvent``: its fields, which are checked when it is made, and its row.

An event checks its fields and lays out its row when it is made, once, so that emitting it is copying it.
"""

import sys

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItemWithError
from cpython.ref cimport Py_INCREF, PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memset

from ..core.layout cimport HEARTBEAT, NO_TIME, NULL_LENGTH
from ..core.schema cimport (
    COLLECTION,
    COLUMN_COUNT,
    COUNT,
    FIELD_COLLECTION,
    FIELD_COUNT,
    FIELD_NEW_VALUE,
    FIELD_OLD_VALUE,
    FIELD_ROW_ID,
    FIELD_STATEMENT_DIGEST,
    FIELD_USER_ID,
    FIRST_OP,
    LSN,
    NEW_VALUE,
    OLD_VALUE,
    OP,
    REQUIRED,
    ROW_ID,
    SCHEMA,
    SEQUENCE,
    SOURCE,
    STATEMENT_DIGEST,
    SYSTEM_TIME,
    TENANT_ID,
    USER_ID,
    VALID_TIME,
    VSHARD_ID,
)

from ..errors import FieldError
from .schema import COLUMNS, STRING_FIELDS, VALUE_FIELDS, EventSource, WriteOp
from .integers import as_int

__all__ = ["WriteEvent"]

cdef extern from "Python.h":
    ctypedef PyObject* (*vectorcallfunc)(PyObject*, PyObject* const*, size_t, PyObject*) except NULL
    ctypedef struct PyTypeObject:
        vectorcallfunc tp_vectorcall
    Py_ssize_t PyVectorcall_NARGS(size_t nargsf) noexcept
    bint PyUnicode_IS_COMPACT_ASCII(PyObject* text) noexcept
    void* PyUnicode_DATA(PyObject* text) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject* text) noexcept
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    object PyUnicode_FromObject(object text)
    bint PyUnicode_CheckExact(object value)
    bint PyBytes_CheckExact(object value)
    Py_ssize_t PyTuple_GET_SIZE(object values) noexcept
    PyObject* PyTuple_GET_ITEM(object values, Py_ssize_t i) noexcept
    bint PyBool_Check(object value)
    bint PyLong_Check(object value)
    bint PyLong_CheckExact(object value)
    unsigned long long PyLong_AsUnsignedLongLong(object value) noexcept
    long long PyLong_AsLongLong(object value) noexcept
    PyObject* PyErr_Occurred() noexcept
    void PyErr_Clear() noexcept

# The members of the two enumerations at the index of their number. Operations start at 1, sources at 0.
cdef tuple _OPS = (None, *WriteOp)
cdef tuple _SOURCES = (*EventSource,)


# Integers are checked in two steps, so that the common case neither raises nor asks for an exception.

cdef inline uint64_t _unsigned(str name, object value, uint64_t most) except? 0xFFFFFFFFFFFFFFFF:
    cdef uint64_t number
    if PyLong_CheckExact(value):
        number = PyLong_AsUnsignedLongLong(value)
        if number <= most and (number != 0xFFFFFFFFFFFFFFFF or PyErr_Occurred() == NULL):
            return number
    return _unsigned_slowly(name, value, most)


cdef uint64_t _unsigned_slowly(str name, object value, uint64_t most) except? 0xFFFFFFFFFFFFFFFF:
    PyErr_Clear()
    number = _index(name, value)
    if not 0 <= number <= most:
        raise FieldError(f"{name} {number}: must be in 0 .. {most}")
    return number


cdef object _index(str name, object value):
    try:
        return as_int(value)
    except TypeError:
        raise TypeError(f"{name} {value!r}: must be an int, not {type(value).__name__}") from None


cdef int64_t _time(str name, object value) except? -1:
    cdef int64_t number
    if value is None:
        return NO_TIME
    if PyLong_CheckExact(value):
        number = PyLong_AsLongLong(value)
        if number != NO_TIME and (number != -1 or PyErr_Occurred() == NULL):
            return number
        PyErr_Clear()
    value = _index(name, value)
    if not -2**63 < value < 2**63:
        raise FieldError(f"{name} {value}: must be in {1 - 2**63} .. {2**63 - 1}; None where there is no time")
    return value


cdef inline int _member(str name, object value, uint64_t first, tuple members) except -1:
    cdef uint64_t number
    if PyLong_Check(value) and not PyBool_Check(value):
        number = PyLong_AsUnsignedLongLong(value)
        if first <= number < <uint64_t>PyTuple_GET_SIZE(members):
            return <int>number
    return _refuse_member(name, value, members)


cdef int _refuse_member(str name, object value, tuple members) except -1:
    PyErr_Clear()
    if not PyLong_Check(value) or PyBool_Check(value):
        raise TypeError(f"{name} {value!r}: must be a {type(members[1]).__name__}, not {type(value).__name__}")
    known = ", ".join([f"{m.name} ({int(m)})" for m in members if m is not None])
    raise FieldError(f"{name} {int(value)}: unknown; known are {known}")


cdef inline str _text(str name, object value):
    """A str of exactly that type: a subclass could bring code of its own, and cycles, into an event."""
    if PyUnicode_CheckExact(value):
        return <str>value
    if isinstance(value, str):
        return PyUnicode_FromObject(value)
    raise TypeError(f"{name} {value!r}: must be a str, not {type(value).__name__}")


cdef inline object _text_or_none(str name, object value):
    return None if value is None else _text(name, value)


cdef inline object _bytes_or_none(str name, object value):
    if value is None or PyBytes_CheckExact(value):
        return value
    if isinstance(value, bytes):
        return PyBytes_FromStringAndSize(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    raise TypeError(f"{name} {value!r}: must be bytes or None, not {type(value).__name__}")


@cython.final
@cython.no_gc
@cython.freelist(256)
cdef class WriteEvent:
    """WriteEvent(*, sequence, collection, op, row_id, lsn, tenant_id=0, vshard_id=0, source=EventSource.USER, \
count=None, new_value=None, old_value=None, system_time_ms=None, valid_time_ms=None, user_id=None, \
statement_digest=None)
--

    One write, as a Data Plane core reports it to the Event Plane. Immutable, hashable, picklable.

    Parameters
    ----------
    sequence : int, u64
        Assigned by the code that emits, contiguous per core; ``producer.next_sequence`` is the next.
    collection : str
        Table or collection written.
    op : WriteOp
    row_id : str
        Primary key or document id; ``""`` where no single row is named.
    lsn : int, u64
        Log sequence number of the write.
    tenant_id : int, u64, default 0
    vshard_id : int, u32, default 0
        Virtual shard that owns the row.
    source : EventSource, default USER
    count : int, u32, default 1, for a heartbeat 0
        Rows written: more than 1 for a bulk operation.
    new_value, old_value : bytes or None, default None
        The row after and before. None is not ``b""``.
    system_time_ms, valid_time_ms : int (i64) or None, default None
        Milliseconds since the Unix epoch.
    user_id, statement_digest : str or None, default None
        Who wrote, and by which statement.

    Raises
    ------
    FieldError
        An integer out of range, an unknown op or source, or a string that UTF-8 cannot hold.
    TypeError
        A value of another type.

    Thread safety
    -------------
    Immutable: share it freely.
    """

    __match_args__ = tuple([column.name for column in COLUMNS])

    def __init__(self, *args, **fields):
        with cython.critical_section(self):
            # Once, and each field once: what another thread may be reading is never replaced.
            if self.row.op != 0 or self.collection is not None:
                raise TypeError("a WriteEvent is immutable: make another")
            _fill_by_name(self, args, fields)

    @property
    def sequence(self) -> int:
        return self.row.sequence

    @property
    def op(self) -> WriteOp:
        return _OPS[self.row.op]

    @property
    def lsn(self) -> int:
        return self.row.lsn

    @property
    def tenant_id(self) -> int:
        return self.row.tenant_id

    @property
    def vshard_id(self) -> int:
        return self.row.vshard_id

    @property
    def source(self) -> EventSource:
        return _SOURCES[self.row.source]

    @property
    def count(self) -> int:
        return self.row.count

    @property
    def system_time_ms(self) -> int | None:
        return None if self.row.system_time_ms == NO_TIME else self.row.system_time_ms

    @property
    def valid_time_ms(self) -> int | None:
        return None if self.row.valid_time_ms == NO_TIME else self.row.valid_time_ms

    def __eq__(self, other):
        if type(other) is not WriteEvent:
            return NotImplemented
        return self is other or _same(self, <WriteEvent>other)

    def __hash__(self):
        # No two events of a bus agree in all of these, so the other fields would only add time.
        return hash((self.row.sequence, self.row.lsn, self.row.op, self.collection, self.row_id))

    def __repr__(self):
        if self.row.op == 0:
            return "WriteEvent.__new__(WriteEvent)"
        parts = []
        for name, kind, presence, *_ in COLUMNS:
            value = getattr(self, name)
            default = None if presence == "NULLABLE" else 0
            if name == "count" and self.row.op != HEARTBEAT:
                default = 1
            if presence == "REQUIRED" or value != default:
                shown = f"{type(value).__name__}.{value.name}" if kind == "MEMBER" else repr(value)
                parts.append(f"{name}={shown}")
        return f"WriteEvent({', '.join(parts)})"

    def __reduce__(self):
        return _restore, tuple([getattr(self, name) for name in WriteEvent.__match_args__])

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self


def _restore(*values):
    """Makes an event again from what ``__reduce__`` gave, fields in the order of ``__match_args__``."""
    return WriteEvent(**dict(zip(WriteEvent.__match_args__, values, strict=True)))


cdef int _fill_by_name(WriteEvent event, tuple args, dict fields) except -1:
    """Makes an event of what a call passed; words what is wrong with it."""
    cdef (PyObject*)[COLUMN_COUNT] given
    cdef int k
    if args:
        raise TypeError(f"WriteEvent() takes no positional arguments ({len(args)} given)")
    for k in range(COLUMN_COUNT):
        given[k] = PyDict_GetItemWithError(fields, <object>_names[k])
        if given[k] == NULL and SCHEMA[k].presence == REQUIRED:
            raise TypeError(f"WriteEvent() needs keyword-only argument {<object>_names[k]}")
    for name in fields:
        if name not in WriteEvent.__match_args__:
            raise TypeError(f"WriteEvent() got an unexpected keyword argument {name!r}")
    return _fill(event, given)


cdef int _fill(WriteEvent event, PyObject** given) except -1:
    """Makes an event of its fields, by the columns' numbers; NULL is a field left out."""
    cdef EventRow* row = &event.row
    cdef int op = _member("op", <object>given[OP], FIRST_OP, _OPS)
    row.sequence = _unsigned("sequence", <object>given[SEQUENCE], 0xFFFFFFFFFFFFFFFF)
    row.lsn = _unsigned("lsn", <object>given[LSN], 0xFFFFFFFFFFFFFFFF)
    if given[TENANT_ID] != NULL:
        row.tenant_id = _unsigned("tenant_id", <object>given[TENANT_ID], 0xFFFFFFFFFFFFFFFF)
    if given[VSHARD_ID] != NULL:
        row.vshard_id = <uint32_t>_unsigned("vshard_id", <object>given[VSHARD_ID], 0xFFFFFFFF)
    if given[SOURCE] != NULL:
        row.source = <unsigned char>_member("source", <object>given[SOURCE], 0, _SOURCES)
    if given[COUNT] == NULL or <object>given[COUNT] is None:
        row.count = 0 if op == HEARTBEAT else 1
    else:
        row.count = <uint32_t>_unsigned("count", <object>given[COUNT], 0xFFFFFFFF)
    row.system_time_ms = NO_TIME if given[SYSTEM_TIME] == NULL else _time("system_time_ms", <object>given[SYSTEM_TIME])
    row.valid_time_ms = NO_TIME if given[VALID_TIME] == NULL else _time("valid_time_ms", <object>given[VALID_TIME])
    event.collection = _text("collection", <object>given[COLLECTION])
    event.row_id = _text("row_id", <object>given[ROW_ID])
    if given[USER_ID] != NULL:
        event.user_id = _text_or_none("user_id", <object>given[USER_ID])
    if given[STATEMENT_DIGEST] != NULL:
        event.statement_digest = _text_or_none("statement_digest", <object>given[STATEMENT_DIGEST])
    if given[NEW_VALUE] != NULL:
        event.new_value = _bytes_or_none("new_value", <object>given[NEW_VALUE])
    if given[OLD_VALUE] != NULL:
        event.old_value = _bytes_or_none("old_value", <object>given[OLD_VALUE])
    lay_out(event)
    # Last: an event without an op was never made, and is not emitted.
    row.op = <unsigned char>op
    return 0


cdef PyObject* _new_event(PyObject* cls, PyObject* const* args, size_t nargsf, PyObject* names) except NULL:
    """What ``WriteEvent(...)`` calls. It finds each keyword where the last one left off, and builds no dict.

    Whatever is unusual about a call goes to ``__init__``, which words the complaint.
    """
    cdef (PyObject*)[COLUMN_COUNT] given
    cdef WriteEvent event
    cdef Py_ssize_t count = 0 if names == NULL else PyTuple_GET_SIZE(<object>names)
    cdef Py_ssize_t i
    cdef PyObject* name
    cdef int k = 0, tried
    if PyVectorcall_NARGS(nargsf) == 0:
        memset(given, 0, sizeof(given))
        for i in range(count):
            name = PyTuple_GET_ITEM(<object>names, i)
            for tried in range(COLUMN_COUNT):
                if name == _names[k]:
                    break
                k = k + 1 if k < COLUMN_COUNT - 1 else 0
            else:
                break
            given[k] = args[i]
        else:
            for k in range(_required_count):
                if given[_required[k]] == NULL:
                    break
            else:
                event = WriteEvent.__new__(WriteEvent)
                _fill(event, given)
                Py_INCREF(event)
                return <PyObject*>event
    positional = [<object>args[i] for i in range(PyVectorcall_NARGS(nargsf))]
    keywords = {
        (<tuple>names)[i]: <object>args[PyVectorcall_NARGS(nargsf) + i] for i in range(count)
    }
    event = WriteEvent.__new__(WriteEvent)
    event.__init__(*positional, **keywords)
    Py_INCREF(event)
    return <PyObject*>event


# Interned, as the names of every call are, so that finding one is comparing pointers.
cdef (PyObject*)[COLUMN_COUNT] _names
cdef tuple _interned = tuple([sys.intern(name) for name in WriteEvent.__match_args__])
cdef int[COLUMN_COUNT] _required
cdef int _required_count = 0
for _k in range(COLUMN_COUNT):
    _names[_k] = PyTuple_GET_ITEM(_interned, _k)
    if SCHEMA[_k].presence == REQUIRED:
        _required[_required_count] = _k
        _required_count += 1
(<PyTypeObject*>WriteEvent).tp_vectorcall = _new_event


cdef const char* _utf8(int k, object value, Py_ssize_t* size) except NULL:
    """The UTF-8 of a str that is not ASCII: made once and kept by the str, which the event keeps."""
    try:
        return PyUnicode_AsUTF8AndSize(value, size)
    except UnicodeEncodeError:
        name = (STRING_FIELDS + VALUE_FIELDS)[k]
        raise FieldError(f"{name} {value!r}: has a lone surrogate, which UTF-8 cannot hold") from None


cdef inline int _lay_out_field(
    WriteEvent event, int k, PyObject* value, bint is_text, uint64_t* at
) except -1:
    cdef Py_ssize_t size
    event.row.field[k].offset = <uint32_t>at[0]
    if value == <PyObject*>None:
        event.row.field[k].length = NULL_LENGTH
        return 0
    if not is_text:
        event.data[k] = PyBytes_AS_STRING(<object>value)
        size = PyBytes_GET_SIZE(<object>value)
    elif PyUnicode_IS_COMPACT_ASCII(value):
        event.data[k] = <const char*>PyUnicode_DATA(value)
        size = PyUnicode_GET_LENGTH(value)
    else:
        event.data[k] = _utf8(k, <object>value, &size)
    event.row.field[k].length = <uint32_t>size
    at[0] += <uint64_t>size
    return 0


cdef int lay_out(WriteEvent event) except -1:
    cdef uint64_t at = 0
    _lay_out_field(event, FIELD_COLLECTION, <PyObject*>event.collection, True, &at)
    _lay_out_field(event, FIELD_ROW_ID, <PyObject*>event.row_id, True, &at)
    _lay_out_field(event, FIELD_USER_ID, <PyObject*>event.user_id, True, &at)
    _lay_out_field(event, FIELD_STATEMENT_DIGEST, <PyObject*>event.statement_digest, True, &at)
    _lay_out_field(event, FIELD_NEW_VALUE, <PyObject*>event.new_value, False, &at)
    _lay_out_field(event, FIELD_OLD_VALUE, <PyObject*>event.old_value, False, &at)
    if at > 0xFFFFFFFE:
        raise FieldError(f"payload of {at} bytes: an event holds at most {2**32 - 2}; store the value elsewhere")
    event.row.span_length = <uint32_t>at
    return 0


cdef bint _same(WriteEvent one, WriteEvent other):
    """Whether two events have the same row, and then the same bytes in every field: their offsets are their own."""
    cdef uint32_t length
    cdef int k
    if memcmp(&one.row, &other.row, sizeof(EventRow)) != 0:
        return False
    for k in range(FIELD_COUNT):
        length = one.row.field[k].length
        if length != NULL_LENGTH and length != 0 and memcmp(one.data[k], other.data[k], length) != 0:
            return False
    return True
