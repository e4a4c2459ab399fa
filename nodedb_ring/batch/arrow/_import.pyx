# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
# distutils: extra_compile_args = -O1
"""Batches from Arrow arrays of any library.

Two steps. The schema first (``_import_plan.pyx``). Then the data, none of which is trusted further than the interface
allows: lengths, offsets, views and indices are checked against what there is, and what becomes of them goes through the
same check as ``EventBatch(records, payload)``. (The interface does not give the size of a buffer with offsets into it.)
"""

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from ...core.layout cimport HEARTBEAT, NO_TIME, NULL_LENGTH, EventRow
from ...core.schema cimport COLUMN_COUNT, COUNT, FIELD_COUNT, NULLABLE, OP, SCHEMA, TIME
from .._row_block cimport RowBlock, new_block
from .._row_checks cimport check_rows
from ._import_plan cimport Reader, is_field, plan_columns
from ._schema cimport COLUMN_NAMES
from ._source cimport ArrowSource, check_array, open_source
from .abi cimport ArrowArray

from ...errors import BatchError
from ..schema import EventSource, WriteOp

__all__ = ["import_block"]

cdef extern from "nodedb_arrow_values.h":
    ctypedef struct Span "nodedb_span":
        const uint8_t* at
        int64_t size

    bint is_valid "nodedb_is_valid"(const ArrowArray* array, int64_t i) noexcept nogil
    bint integer_at "nodedb_integer_at"(const void* data, char letter, int64_t i, uint64_t* bits) noexcept nogil
    bint span_at "nodedb_span_at"(
        const ArrowArray* array, char letter, int64_t width, int64_t i, Span* span
    ) noexcept nogil

# Names of operations and of sources, which have consecutive numbers from the first one's on.
cdef tuple _MEMBERS = ([str(op).encode() for op in WriteOp], [str(source).encode() for source in EventSource])
cdef tuple _FIRST = (int(min(WriteOp)), int(min(EventSource)))

cdef object _null(int number, int64_t row):
    return BatchError(f"row {row}: {COLUMN_NAMES[number]} is null: must have a value")


cdef class _Spans:
    """The values of all variable-length fields, None where a column is missing: one after another, field by field."""

    cdef Span* at
    cdef int64_t rows

    def __dealloc__(self):
        free(self.at)


cdef int _check_chunk(const ArrowArray* array, const Reader* readers) except -1:
    """That a struct array has its columns, and they their buffers."""
    cdef int number
    cdef int64_t i
    cdef const ArrowArray* column
    if array.length < 0 or array.offset < 0 or array.offset > INT64_MAX // 32 - array.length:
        raise BatchError(f"an array of {array.length} rows from {array.offset} on: is broken")
    if array.n_buffers > 0 and array.buffers != NULL and array.null_count != 0:
        for i in range(array.length):
            if not is_valid(array, array.offset + i):
                raise BatchError(f"row {i}: is null as a whole; filter such rows out first")
    for number in range(COLUMN_COUNT):
        if not readers[number].is_there:
            continue
        if readers[number].child >= array.n_children or array.children == NULL:
            raise BatchError(f"an array of {array.n_children} columns: its schema has more")
        column = array.children[readers[number].child]
        check_array(COLUMN_NAMES[number], column, readers[number].letter, array.offset + array.length)
        if readers[number].is_dictionary:
            if column.dictionary == NULL:
                raise BatchError(f"{COLUMN_NAMES[number]}: a dictionary array without its dictionary")
            values = f"dictionary of {COLUMN_NAMES[number]}"
            check_array(values, column.dictionary, readers[number].value_letter, column.dictionary.length)
    return 0


cdef int _read_span(
    int number, const ArrowArray* column, const Reader* reader, int64_t i, int64_t row, Span* span
) except -1:
    """Value i of a column of text, bytes or names. `row` is for messages."""
    cdef char letter = reader.letter
    cdef int64_t width = reader.width
    cdef uint64_t index = 0
    span.at = NULL
    span.size = 0
    if letter == c"n" or not is_valid(column, i):
        return 0
    if reader.is_dictionary:
        if integer_at(column.buffers[1], letter, i, &index) or index >= <uint64_t>column.dictionary.length:
            raise BatchError(
                f"row {row}: {COLUMN_NAMES[number]} is entry {<int64_t>index} of a dictionary of {column.dictionary.length}"
            )
        column = column.dictionary
        i = column.offset + <int64_t>index
        letter = reader.value_letter
        width = reader.value_width
        if letter == c"n" or not is_valid(column, i):
            return 0
    if span_at(column, letter, width, i, span):
        raise BatchError(f"row {row}: {COLUMN_NAMES[number]} does not lie in its buffers")
    return 0


cdef int _read_spans(
    const ArrowArray* array, const Reader* readers, int64_t before, _Spans spans, uint64_t* total
) except -1:
    cdef int number
    cdef int64_t i
    cdef Span* span
    cdef const ArrowArray* column
    for number in range(COLUMN_COUNT):
        if not readers[number].is_there or not is_field(number):
            continue
        column = array.children[readers[number].child]
        span = spans.at + SCHEMA[number].field * spans.rows + before
        for i in range(array.length):
            _read_span(number, column, &readers[number], column.offset + array.offset + i, before + i, &span[i])
            if span[i].at == NULL and SCHEMA[number].presence != NULLABLE:
                raise _null(number, before + i)
            # Two of these fit an u64, and more are refused.
            if span[i].size >= NULL_LENGTH:
                raise BatchError(
                    f"row {before + i}: {COLUMN_NAMES[number]} of {span[i].size} bytes: at most {NULL_LENGTH - 1} fit"
                )
            total[0] += span[i].size
    return 0


cdef int _member(int number, const Span* span, int64_t row) except -1:
    """The number that a name of an operation or a source has."""
    cdef list names = _MEMBERS[number != OP]
    cdef Py_ssize_t i
    for i in range(len(names)):
        if len(<bytes>names[i]) == span.size and memcmp(<const char*><bytes>names[i], span.at, span.size) == 0:
            return _FIRST[number != OP] + i
    shown = (<const char*>span.at)[:min(span.size, 64)]
    raise BatchError(
        f"row {row}: {COLUMN_NAMES[number]} {shown.decode('utf-8', 'replace')!r}: unknown; known are "
        f"{', '.join([name.decode() for name in names])}"
    )


cdef int _read_names(
    int number, const ArrowArray* column, const Reader* reader, int64_t first, int64_t before, EventRow* rows,
    int64_t count
) except -1:
    cdef Span span, last
    cdef int64_t i
    cdef int member = 0
    last.at = NULL
    last.size = -1
    for i in range(count):
        _read_span(number, column, reader, first + i, before + i, &span)
        if span.at == NULL:
            raise _null(number, before + i)
        # Neighbours are often alike.
        if span.size != last.size or memcmp(span.at, last.at, span.size) != 0:
            member = _member(number, &span, before + i)
            last = span
        (<uint8_t*>(rows + i))[SCHEMA[number].offset] = <uint8_t>member
    return 0


cdef object _out_of_range(int number, int64_t row, uint64_t bits, bint is_negative, object least, object most):
    cdef object value = bits
    if is_negative:
        value = <int64_t>bits
    return BatchError(f"row {row}: {COLUMN_NAMES[number]} {value}: must be in {least} .. {most}")


cdef int _read_integers(
    int number, const ArrowArray* column, const Reader* reader, int64_t first, int64_t before, EventRow* rows,
    int64_t count
) except -1:
    cdef int size = SCHEMA[number].size
    cdef uint64_t most = 0xFFFFFFFFFFFFFFFF >> (64 - 8 * size)
    cdef uint64_t bits = 0
    cdef uint8_t* to
    cdef int64_t i
    cdef bint is_negative
    for i in range(count):
        if reader.letter == c"n" or not is_valid(column, first + i):
            raise _null(number, before + i)
        is_negative = integer_at(column.buffers[1], reader.letter, first + i, &bits)
        if is_negative or bits > most:
            raise _out_of_range(number, before + i, bits, is_negative, 0, most)
        to = <uint8_t*>(rows + i) + SCHEMA[number].offset
        if size == 8:
            (<uint64_t*>to)[0] = bits
        elif size == 4:
            (<uint32_t*>to)[0] = <uint32_t>bits
        elif size == 2:
            (<uint16_t*>to)[0] = <uint16_t>bits
        else:
            to[0] = <uint8_t>bits
    return 0


cdef int _read_times(
    int number, const ArrowArray* column, const Reader* reader, int64_t first, int64_t before, EventRow* rows,
    int64_t count
) except -1:
    cdef int64_t divisor = 1000 if reader.unit == c"u" else 1000000 if reader.unit == c"n" else 1
    cdef int64_t i, timestamp
    cdef uint64_t bits = 0
    cdef bint is_negative
    for i in range(count):
        timestamp = NO_TIME
        if reader.letter != c"n" and is_valid(column, first + i):
            is_negative = integer_at(column.buffers[1], reader.letter, first + i, &bits)
            if not is_negative and bits > <uint64_t>INT64_MAX:
                raise _out_of_range(number, before + i, bits, False, NO_TIME, INT64_MAX)
            timestamp = <int64_t>bits
            if timestamp == NO_TIME:
                pass
            elif reader.unit == c"s":
                if not -INT64_MAX // 1000 <= timestamp <= INT64_MAX // 1000:
                    raise BatchError(
                        f"row {before + i}: {COLUMN_NAMES[number]} {timestamp} s: does not fit 64 bits of ms"
                    )
                timestamp *= 1000
            elif timestamp % divisor != 0:
                raise BatchError(
                    f"row {before + i}: {COLUMN_NAMES[number]} {timestamp} {chr(reader.unit)}s: is not a whole number"
                    " of milliseconds; truncate or round it to ms first"
                )
            else:
                timestamp //= divisor
        (<int64_t*>(<uint8_t*>(rows + i) + SCHEMA[number].offset))[0] = timestamp
    return 0


cdef void _fill_defaults(RowBlock block) noexcept:
    cdef uint64_t i
    cdef int number
    memset(block.rows, 0, block.count * sizeof(EventRow))
    for number in range(COLUMN_COUNT):
        if SCHEMA[number].kind == TIME:
            for i in range(block.count):
                (<int64_t*>(<uint8_t*>(block.rows + i) + SCHEMA[number].offset))[0] = NO_TIME


cdef void _fill_payload(RowBlock block, _Spans spans) noexcept:
    """Event after event, each one's fields back to back, as a ring takes them in one copy."""
    cdef uint32_t offset = 0
    cdef uint64_t i
    cdef int k
    cdef Span* span
    for i in range(block.count):
        for k in range(FIELD_COUNT):
            span = spans.at + k * spans.rows + i
            block.rows[i].field[k].offset = offset
            if span.at == NULL:
                block.rows[i].field[k].length = NULL_LENGTH
                continue
            block.rows[i].field[k].length = <uint32_t>span.size
            memcpy(block.bytes + offset, span.at, span.size)
            offset += <uint32_t>span.size


def import_block(source):
    """A checked block of the events of an object with the Arrow PyCapsule interface."""
    cdef Reader[COLUMN_COUNT] readers
    cdef ArrowSource chunks
    cdef _Spans spans
    cdef RowBlock block
    cdef ArrowArray* array
    cdef const ArrowArray* column
    cdef EventRow* rows
    cdef int64_t total = 0, before = 0, first
    cdef uint64_t payload = 0, i
    cdef Py_ssize_t c
    cdef int number
    memset(readers, 0, sizeof(readers))
    chunks = open_source(source)
    plan_columns(chunks.schema, readers)
    chunks.read()
    for c in range(chunks.count):
        _check_chunk(&chunks.arrays[c], readers)
        total += chunks.arrays[c].length
    spans = _Spans.__new__(_Spans)
    spans.rows = total
    spans.at = <Span*>calloc(max(total, 1), FIELD_COUNT * sizeof(Span))
    if spans.at == NULL:
        raise MemoryError(f"no memory for the values of {total} events")
    for c in range(chunks.count):
        _read_spans(&chunks.arrays[c], readers, before, spans, &payload)
        before += chunks.arrays[c].length
    if payload >= NULL_LENGTH:
        raise BatchError(f"payload of {payload} bytes: a batch holds at most {NULL_LENGTH - 1}; use several")
    block = new_block(total, payload, None)
    _fill_defaults(block)
    _fill_payload(block, spans)
    before = 0
    for c in range(chunks.count):
        array = &chunks.arrays[c]
        rows = block.rows + before
        for number in range(COLUMN_COUNT):
            if not readers[number].is_there or is_field(number):
                continue
            column = array.children[readers[number].child]
            first = column.offset + array.offset
            if SCHEMA[number].kind == TIME:
                _read_times(number, column, &readers[number], first, before, rows, array.length)
            elif readers[number].is_dictionary or readers[number].letter in b"uUv":
                _read_names(number, column, &readers[number], first, before, rows, array.length)
            else:
                _read_integers(number, column, &readers[number], first, before, rows, array.length)
        before += array.length
    if not readers[COUNT].is_there:
        for i in range(block.count):
            block.rows[i].count = block.rows[i].op != HEARTBEAT
    check_rows(block.rows, block.count, block.bytes, block.payload_bytes, 0)
    return block
