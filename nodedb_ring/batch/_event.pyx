# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
"""``WriteEvent``, and its way into a row and out of one.

An event checks its fields and lays out its row when it is made, once, so that emitting it is copying it.
"""

import sys

cimport cython
from cpython.ref cimport Py_INCREF, PyObject
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from ..core.atomic cimport prefetch_to_write
from ..core.layout cimport (
    FIELD_COUNT,
    NO_TIME,
    NULL_LENGTH,
    PUSH_DONE,
    EventField,
    ProducerSide,
    clear_unnamed,
    shift_fields,
)
from ..core.push cimport ring_claim_slot, ring_publish_stamped, ring_stamp
from .utf8 cimport is_ascii

from ..errors import CorruptRingError, FieldError
from .schema import STRING_FIELDS, VALUE_FIELDS, EventSource, WriteOp
from .integers import as_int

__all__ = ["WriteEvent"]

cdef extern from "Python.h":
    object PyUnicode_New(Py_ssize_t size, unsigned int maximum)
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

# The members by their numbers. Operations count from 1, sources from 0, both without a hole.
cdef tuple _OPS = (None, *WriteOp)
cdef tuple _SOURCES = (*EventSource,)
cdef int _HEARTBEAT = WriteOp.HEARTBEAT
cdef object _USER = EventSource.USER


# Integers are checked in two steps, so that the common case neither raises nor looks for an exception.

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


cdef int64_t _stamp(str name, object value) except? -1:
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

    One write, as a Data Plane core tells it to the Event Plane. Immutable, hashable, picklable.

    Parameters
    ----------
    sequence : int, u64
        Numbered by whoever emits, contiguous per core; ``producer.next_sequence`` is the next.
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

    __match_args__ = (
        "sequence", "collection", "op", "row_id", "lsn", "tenant_id", "vshard_id", "source", "count", "new_value",
        "old_value", "system_time_ms", "valid_time_ms", "user_id", "statement_digest",
    )

    def __init__(
        self, *, sequence, collection, op, row_id, lsn, tenant_id=0, vshard_id=0, source=_USER, count=None,
        new_value=None, old_value=None, system_time_ms=None, valid_time_ms=None, user_id=None, statement_digest=None,
    ):
        cdef PyObject* given[15]
        if self.row.op != 0:
            raise TypeError("a WriteEvent is immutable: make another")
        given[:] = [
            <PyObject*>sequence, <PyObject*>collection, <PyObject*>op, <PyObject*>row_id, <PyObject*>lsn,
            <PyObject*>tenant_id, <PyObject*>vshard_id, <PyObject*>source, <PyObject*>count, <PyObject*>new_value,
            <PyObject*>old_value, <PyObject*>system_time_ms, <PyObject*>valid_time_ms, <PyObject*>user_id,
            <PyObject*>statement_digest,
        ]
        _fill(self, given)

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
        # These tell apart any two events that a bus carries; the rest would only cost.
        return hash((self.row.sequence, self.row.lsn, self.row.op, self.collection, self.row_id))

    def __repr__(self):
        if self.row.op == 0:
            return "WriteEvent.__new__(WriteEvent)"
        parts = []
        for name in WriteEvent.__match_args__:
            value = getattr(self, name)
            if name == "op" or (name == "source" and value is not _USER):
                parts.append(f"{name}={type(value).__name__}.{value.name}")
            elif name == "count":
                if value != (0 if self.row.op == _HEARTBEAT else 1):
                    parts.append(f"count={value}")
            elif name in ("sequence", "collection", "row_id", "lsn"):
                parts.append(f"{name}={value!r}")
            elif name in ("tenant_id", "vshard_id"):
                if value:
                    parts.append(f"{name}={value}")
            elif name != "source" and value is not None:
                parts.append(f"{name}={value!r}")
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


cdef int _fill(WriteEvent event, PyObject** given) except -1:
    """Makes an event of its fields, in the order of ``__match_args__``; NULL is a field left out."""
    cdef EventRow* row = &event.row
    cdef int op = _member("op", <object>given[2], 1, _OPS)
    row.sequence = _unsigned("sequence", <object>given[0], 0xFFFFFFFFFFFFFFFF)
    row.lsn = _unsigned("lsn", <object>given[4], 0xFFFFFFFFFFFFFFFF)
    if given[5] != NULL:
        row.tenant_id = _unsigned("tenant_id", <object>given[5], 0xFFFFFFFFFFFFFFFF)
    if given[6] != NULL:
        row.vshard_id = <uint32_t>_unsigned("vshard_id", <object>given[6], 0xFFFFFFFF)
    if given[7] != NULL:
        row.source = <unsigned char>_member("source", <object>given[7], 0, _SOURCES)
    if given[8] == NULL or <object>given[8] is None:
        row.count = 0 if op == _HEARTBEAT else 1
    else:
        row.count = <uint32_t>_unsigned("count", <object>given[8], 0xFFFFFFFF)
    row.system_time_ms = NO_TIME if given[11] == NULL else _stamp("system_time_ms", <object>given[11])
    row.valid_time_ms = NO_TIME if given[12] == NULL else _stamp("valid_time_ms", <object>given[12])
    event.collection = _text("collection", <object>given[1])
    event.row_id = _text("row_id", <object>given[3])
    if given[13] != NULL:
        event.user_id = _text_or_none("user_id", <object>given[13])
    if given[14] != NULL:
        event.statement_digest = _text_or_none("statement_digest", <object>given[14])
    if given[9] != NULL:
        event.new_value = _bytes_or_none("new_value", <object>given[9])
    if given[10] != NULL:
        event.old_value = _bytes_or_none("old_value", <object>given[10])
    _lay_out(event)
    # Last: an event without an op was never made, and is not emitted.
    row.op = <unsigned char>op
    return 0


cdef PyObject* _new_event(PyObject* cls, PyObject* const* args, size_t nargsf, PyObject* names) except NULL:
    """What ``WriteEvent(...)`` calls. It finds each keyword where the last one left off, and builds no dict.

    Whatever is unusual about a call goes to ``__init__``, which words the complaint.
    """
    cdef PyObject* given[15]
    cdef WriteEvent event
    cdef Py_ssize_t count = 0 if names == NULL else PyTuple_GET_SIZE(<object>names)
    cdef Py_ssize_t i
    cdef PyObject* name
    cdef int k = 0, tried
    if PyVectorcall_NARGS(nargsf) == 0:
        memset(given, 0, sizeof(given))
        for i in range(count):
            name = PyTuple_GET_ITEM(<object>names, i)
            for tried in range(15):
                if name == _names[k]:
                    break
                k = k + 1 if k < 14 else 0
            else:
                break
            given[k] = args[i]
        else:
            if given[0] != NULL and given[1] != NULL and given[2] != NULL and given[3] != NULL and given[4] != NULL:
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
cdef PyObject* _names[15]
cdef tuple _interned = tuple([sys.intern(name) for name in WriteEvent.__match_args__])
for _k in range(15):
    _names[_k] = PyTuple_GET_ITEM(_interned, _k)
(<PyTypeObject*>WriteEvent).tp_vectorcall = _new_event


cdef inline object _object(WriteEvent event, int k):
    if k == 0:
        return event.collection
    if k == 1:
        return event.row_id
    if k == 2:
        return event.user_id
    if k == 3:
        return event.statement_digest
    if k == 4:
        return event.new_value
    return event.old_value


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


cdef inline int _lay_out(WriteEvent event) except -1:
    """Fills in where each field lies in the event's payload, and where its bytes are now."""
    cdef uint64_t at = 0
    _lay_out_field(event, 0, <PyObject*>event.collection, True, &at)
    _lay_out_field(event, 1, <PyObject*>event.row_id, True, &at)
    _lay_out_field(event, 2, <PyObject*>event.user_id, True, &at)
    _lay_out_field(event, 3, <PyObject*>event.statement_digest, True, &at)
    _lay_out_field(event, 4, <PyObject*>event.new_value, False, &at)
    _lay_out_field(event, 5, <PyObject*>event.old_value, False, &at)
    if at > 0xFFFFFFFE:
        raise FieldError(f"payload of {at} bytes: an event holds at most {2**32 - 2}; store the value elsewhere")
    event.row.span_length = <uint32_t>at
    return 0


cdef bint _same(WriteEvent one, WriteEvent other):
    cdef const EventRow* a = &one.row
    cdef const EventRow* b = &other.row
    cdef int k
    if not (
        a.sequence == b.sequence and a.lsn == b.lsn and a.tenant_id == b.tenant_id and a.vshard_id == b.vshard_id
        and a.op == b.op and a.source == b.source and a.count == b.count
        and a.system_time_ms == b.system_time_ms and a.valid_time_ms == b.valid_time_ms
    ):
        return False
    for k in range(FIELD_COUNT):
        if _object(one, k) != _object(other, k):
            return False
    return True


cdef inline void _copy_payload(WriteEvent event, uint8_t* to) noexcept:
    cdef uint32_t length
    cdef int k
    for k in range(FIELD_COUNT):
        length = event.row.field[k].length
        if length != NULL_LENGTH and length != 0:
            memcpy(to, event.data[k], length)
            to += length


cdef PushResult push_event(Ring* ring, WriteEvent event) noexcept:
    cdef ProducerSide* side = &ring.local.producer
    cdef uint64_t payload = event.row.span_length
    cdef EventRow* row
    cdef PushResult result = ring_claim_slot(ring, event.row.sequence, payload, &row)
    cdef uint64_t start, offset
    if result != PUSH_DONE:
        return result
    start = side.arena_head
    offset = start - side.arena_lap
    memcpy(row, &event.row, sizeof(EventRow))
    if offset != 0:
        shift_fields(row, <uint32_t>offset)
    _copy_payload(event, ring.arena + offset)
    ring_stamp(row, side.published, start, offset, payload)
    ring_publish_stamped(ring, 1, start + payload, event.row.sequence)
    if ring.shared:
        _prefetch_ahead(ring, offset + AHEAD * payload + payload)
    return PUSH_DONE


cdef enum:
    AHEAD = 2    # events between the next one and the one whose lines are asked for
    LINE = 64


cdef inline void _prefetch_ahead(Ring* ring, uint64_t offset) noexcept:
    """Asks for the lines of an event to come, which the consumer's core read last.

    Making an event takes some 200 stores, and stores retire in order: those of the next event would each wait for their
    line with nothing else on the way. Which row it will be is a guess, right while releases come in order.
    """
    cdef EventRow* row = ring.rows + ((ring.local.producer.published + AHEAD) & ring.mask)
    prefetch_to_write(row)
    prefetch_to_write(row.field)
    if offset + 2 * LINE < ring.arena_bytes:
        prefetch_to_write(ring.arena + offset)
        prefetch_to_write(ring.arena + offset + LINE)


cdef void write_event(WriteEvent event, EventRow* row, uint8_t* payload, uint64_t offset) noexcept:
    memcpy(row, &event.row, sizeof(EventRow))
    clear_unnamed(row)
    if offset != 0:
        shift_fields(row, <uint32_t>offset)
    _copy_payload(event, payload + offset)


cdef object decode_text(const char* start, uint32_t length):
    try:
        return PyUnicode_DecodeUTF8(start, length, NULL)
    except UnicodeDecodeError as error:
        raise CorruptRingError(
            f"text {error.object[:64]!r}: is not UTF-8, as all that was emitted is; something else has written to the "
            "shared block that it was read from"
        ) from None


cdef inline object _text_of(const char* start, uint32_t length):
    """A str of UTF-8. Most is ASCII, whose bytes are the str's own."""
    cdef object text
    if not is_ascii(<const uint8_t*>start, length):
        return decode_text(start, length)
    text = PyUnicode_New(length, 127)
    memcpy(PyUnicode_DATA(<PyObject*>text), start, length)
    return text


# The collection of the last event that was decoded: the next one is mostly of the same table. The GIL guards it.
cdef str _recent_collection = ""


cdef inline str _collection_of(const char* start, uint32_t length):
    global _recent_collection
    cdef PyObject* recent = <PyObject*>_recent_collection
    if (
        not PyUnicode_IS_COMPACT_ASCII(recent)
        or PyUnicode_GET_LENGTH(recent) != length
        or memcmp(PyUnicode_DATA(recent), start, length) != 0
    ):
        _recent_collection = _text_of(start, length)
    return _recent_collection


cdef WriteEvent event_from_row(const EventRow* row, const uint8_t* payload):
    cdef WriteEvent event = WriteEvent.__new__(WriteEvent)
    cdef EventField* field = event.row.field
    cdef const char* base = <const char*>payload
    memcpy(&event.row, row, sizeof(EventRow))
    clear_unnamed(&event.row)
    event.collection = _collection_of(base + field[0].offset, field[0].length)
    event.row_id = _text_of(base + field[1].offset, field[1].length)
    if field[2].length != NULL_LENGTH:
        event.user_id = _text_of(base + field[2].offset, field[2].length)
    if field[3].length != NULL_LENGTH:
        event.statement_digest = _text_of(base + field[3].offset, field[3].length)
    if field[4].length != NULL_LENGTH:
        event.new_value = PyBytes_FromStringAndSize(base + field[4].offset, field[4].length)
    if field[5].length != NULL_LENGTH:
        event.old_value = PyBytes_FromStringAndSize(base + field[5].offset, field[5].length)
    _lay_out(event)
    return event
