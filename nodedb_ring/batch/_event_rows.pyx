# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
# distutils: extra_compile_args = -O3
"""Events into rows, and rows into events: of a ring, and of a batch."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.ref cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.string cimport memcpy

from ..core.atomic cimport prefetch_to_write
from ..core.layout cimport NULL_LENGTH, PUSH_DONE, EventField, ProducerSide, clear_unnamed, ring_stamp, shift_fields
from ..core.push cimport ring_claim_slot, ring_publish_stamped
from ..core.schema cimport (
    FIELD_COLLECTION,
    FIELD_COUNT,
    FIELD_NEW_VALUE,
    FIELD_OLD_VALUE,
    FIELD_ROW_ID,
    FIELD_STATEMENT_DIGEST,
    FIELD_USER_ID,
)
from ._event cimport lay_out
from .utf8 cimport is_ascii

from ..errors import CorruptRingError

__all__ = []

cdef extern from "Python.h":
    object PyUnicode_New(Py_ssize_t size, unsigned int maximum)
    void* PyUnicode_DATA(PyObject* text) noexcept

cdef extern from "nodedb_recent_text.h":
    object recent_text "nodedb_recent_text"(const char* start, Py_ssize_t size)
    void keep_recent "nodedb_keep_recent"(object text) noexcept


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
    ring_stamp(row, side.published, start, <uint32_t>offset, <uint32_t>payload)
    ring_publish_stamped(ring, 1, start + payload, event.row.sequence)
    if ring.shared:
        _prefetch_ahead(ring, offset + AHEAD * payload + payload)
    return PUSH_DONE


cdef enum:
    AHEAD = 2    # events between the next one and the one whose cache lines are prefetched
    LINE = 64    # bytes of a cache line


cdef inline void _prefetch_ahead(Ring* ring, uint64_t offset) noexcept:
    """Prefetches the cache lines of an event to come, which the consumer's core read last.

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


cdef inline object _collection_of(const char* start, uint32_t length):
    """A str of UTF-8: that of the event before, if it is the same."""
    cdef object text = recent_text(start, length)
    if text is None:
        text = _text_of(start, length)
        keep_recent(text)
    return text


cdef WriteEvent event_from_row(const EventRow* row, const uint8_t* payload):
    cdef WriteEvent event = WriteEvent.__new__(WriteEvent)
    cdef EventField* field = event.row.field
    cdef const char* base = <const char*>payload
    memcpy(&event.row, row, sizeof(EventRow))
    clear_unnamed(&event.row)
    event.collection = _collection_of(base + field[FIELD_COLLECTION].offset, field[FIELD_COLLECTION].length)
    event.row_id = _text_of(base + field[FIELD_ROW_ID].offset, field[FIELD_ROW_ID].length)
    if field[FIELD_USER_ID].length != NULL_LENGTH:
        event.user_id = _text_of(base + field[FIELD_USER_ID].offset, field[FIELD_USER_ID].length)
    if field[FIELD_STATEMENT_DIGEST].length != NULL_LENGTH:
        event.statement_digest = _text_of(base + field[FIELD_STATEMENT_DIGEST].offset, field[FIELD_STATEMENT_DIGEST].length)
    if field[FIELD_NEW_VALUE].length != NULL_LENGTH:
        event.new_value = PyBytes_FromStringAndSize(base + field[FIELD_NEW_VALUE].offset, field[FIELD_NEW_VALUE].length)
    if field[FIELD_OLD_VALUE].length != NULL_LENGTH:
        event.old_value = PyBytes_FromStringAndSize(base + field[FIELD_OLD_VALUE].offset, field[FIELD_OLD_VALUE].length)
    lay_out(event)
    return event
