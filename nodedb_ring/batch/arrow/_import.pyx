# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
"""Batches out of Arrow arrays, whoever made them.

Two steps. The schema first: every column is known, no required one is missing, and each has a type that it can come in.
Then the data, none of which is trusted further than the interface allows: lengths, offsets, views and indices are
checked against what there is, and what becomes of them goes through the same check as ``EventBatch(records, payload)``.
(How large a buffer is that offsets are into, the interface does not tell.)
"""

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from .abi cimport ArrowArray, ArrowArrayStream, ArrowSchema
from .._row_block cimport RowBlock, check_rows, new_block
from ...core.layout cimport FIELD_COUNT, HEARTBEAT, NO_TIME, NULL_LENGTH, EventRow

from ...errors import BatchError
from ..schema import STRING_FIELDS, VALUE_FIELDS, EventSource, WriteOp
from .pandas_index import index_columns

__all__ = ["import_block"]

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    /* The bytes of one value, or NULL for None. */
    typedef struct { const uint8_t *at; int64_t size; } nodedb_span;

    static inline int nodedb_is_valid(const struct ArrowArray *array, int64_t i) {
        const uint8_t *bits = array->n_buffers > 0 ? array->buffers[0] : NULL;
        return bits == NULL || array->null_count == 0 || (bits[i >> 3] >> (i & 7) & 1);
    }

    /* Integer i of a buffer, sign-extended, by the letter of its format; whether it is below 0. It may be unaligned. */
    static inline int nodedb_integer_at(const void *data, char letter, int64_t i, uint64_t *bits) {
        const uint8_t *at = data;
        #define NODEDB_READ(type) { type one; memcpy(&one, at + i * (int64_t)sizeof one, sizeof one); \
                                    *bits = (uint64_t)one; return one < 0; }
        switch (letter) {
            case 'c': NODEDB_READ(int8_t)
            case 's': NODEDB_READ(int16_t)
            case 'i': NODEDB_READ(int32_t)
            case 'l': NODEDB_READ(int64_t)
        }
        #undef NODEDB_READ
        #define NODEDB_READ(type) { type one; memcpy(&one, at + i * (int64_t)sizeof one, sizeof one); \
                                    *bits = one; return 0; }
        switch (letter) {
            case 'C': NODEDB_READ(uint8_t)
            case 'S': NODEDB_READ(uint16_t)
            case 'I': NODEDB_READ(uint32_t)
            default: NODEDB_READ(uint64_t)
        }
        #undef NODEDB_READ
    }

    /* Value i of a column of text or bytes, by the letter of its layout: 0, or 1 if it does not lie in its buffers. */
    static inline int nodedb_span_at(
        const struct ArrowArray *array, char letter, int64_t width, int64_t i, nodedb_span *span) {
        switch (letter) {
            case 'u': case 'z': {
                int32_t ends[2];
                memcpy(ends, (const uint8_t *)array->buffers[1] + i * 4, 8);
                span->at = (const uint8_t *)array->buffers[2] + ends[0];
                span->size = (int64_t)ends[1] - ends[0];
                if (ends[0] < 0 || span->size < 0) return 1;
                break;
            }
            case 'U': case 'Z': {
                int64_t ends[2];
                memcpy(ends, (const uint8_t *)array->buffers[1] + i * 8, 16);
                if (ends[0] < 0 || ends[1] < ends[0]) return 1;
                span->at = (const uint8_t *)array->buffers[2] + ends[0];
                span->size = ends[1] - ends[0];
                break;
            }
            case 'w':
                span->at = (const uint8_t *)array->buffers[1] + i * width;
                span->size = width;
                break;
            default: {
                const uint8_t *view = (const uint8_t *)array->buffers[1] + i * 16;
                int32_t part[4];
                int64_t parts = array->n_buffers - 3, room;
                memcpy(part, view, 16);
                span->size = part[0];
                if (part[0] < 0) return 1;
                if (part[0] <= 12) {
                    span->at = view + 4;
                    return 0;
                }
                if (part[2] < 0 || part[2] >= parts || part[3] < 0) return 1;
                memcpy(&room, (const int64_t *)array->buffers[2 + parts] + part[2], 8);
                if ((int64_t)part[3] + part[0] > room) return 1;
                span->at = (const uint8_t *)array->buffers[2 + part[2]] + part[3];
                if (array->buffers[2 + part[2]] == NULL) return 1;
                return 0;
            }
        }
        /* Nothing is read of an empty value, whose buffer may be none; but NULL is None. */
        if (span->size == 0) span->at = (const uint8_t *)"";
        else if (array->buffers[letter == 'w' ? 1 : 2] == NULL) return 1;
        return 0;
    }
    """
    ctypedef struct Span "nodedb_span":
        const uint8_t* at
        int64_t size

    bint is_valid "nodedb_is_valid"(const ArrowArray* array, int64_t i) noexcept nogil
    bint integer_at "nodedb_integer_at"(const void* data, char letter, int64_t i, uint64_t* bits) noexcept nogil
    bint span_at "nodedb_span_at"(
        const ArrowArray* array, char letter, int64_t width, int64_t i, Span* span
    ) noexcept nogil

# The columns, by number: fields of a row first, in its order, then fixed columns in the order of WriteEvent's fields.
cdef enum:
    COLLECTION
    ROW_ID
    FIRST_NULLABLE
    FIRST_VALUE = 4
    SEQUENCE = FIELD_COUNT
    OP
    LSN
    TENANT_ID
    VSHARD_ID
    SOURCE
    COUNT
    SYSTEM_TIME
    VALID_TIME
    COLUMN_COUNT

cdef tuple _NAMES = STRING_FIELDS + VALUE_FIELDS + (
    "sequence", "op", "lsn", "tenant_id", "vshard_id", "source", "count", "system_time_ms", "valid_time_ms"
)
cdef dict _NUMBERS = {name: number for number, name in enumerate(_NAMES)}
cdef tuple _REQUIRED = (SEQUENCE, COLLECTION, OP, ROW_ID, LSN)
cdef tuple _MEMBERS = ([str(op).encode() for op in WriteOp], [str(source).encode() for source in EventSource])
cdef tuple _FIRST = (int(min(WriteOp)), int(min(EventSource)))

cdef dict _TYPE_NAMES = {
    "n": "null", "b": "bool", "c": "int8", "C": "uint8", "s": "int16", "S": "uint16", "i": "int32", "I": "uint32",
    "l": "int64", "L": "uint64", "e": "float16", "f": "float32", "g": "float64", "z": "binary", "Z": "large_binary",
    "vz": "binary_view", "u": "utf8", "U": "large_utf8", "vu": "utf8_view", "tdD": "date32", "tdm": "date64",
    "tts": "time32[s]", "ttm": "time32[ms]", "ttu": "time64[us]", "ttn": "time64[ns]", "+s": "struct", "+l": "list",
    "+L": "large_list", "+m": "map", "+r": "run-end encoded", "tss:": "timestamp[s]", "tsm:": "timestamp[ms]",
    "tsu:": "timestamp[us]", "tsn:": "timestamp[ns]",
}
cdef str _INTEGERS = "cCsSiIlL"
cdef dict _TEXT_LETTERS = {"u": "u", "U": "U", "vu": "v"}
cdef dict _BYTES_LETTERS = {"z": "z", "Z": "Z", "vz": "v"}

cdef str _AN_INTEGER = "an integer type"
cdef str _A_STRING = "utf8, large_utf8, utf8_view or a dictionary of one"
cdef str _SOME_BYTES = "binary, large_binary, binary_view, fixed-size binary or a dictionary of one"
cdef str _A_NAME = "names, as utf8 or a dictionary of it, or numbers of an integer type"
cdef str _A_STAMP = "timestamp, or milliseconds of an integer type"

cdef struct _Reader:
    # How one column comes.
    bint is_there
    int64_t child
    char letter        # of the integer, or of the layout of text and bytes; n: all None
    int64_t width      # of fixed-size binary
    char unit          # of a timestamp: s m u n
    bint is_dictionary
    char value_letter  # the dictionary's values
    int64_t value_width


cdef str _text(const char* text):
    return "" if text == NULL else (<bytes>text).decode("utf-8", "replace")


cdef str _type_name(const ArrowSchema* schema):
    cdef str format = _text(schema.format)
    if schema.dictionary != NULL:
        return f"dictionary of {_type_name(schema.dictionary)}"
    if format.startswith("ts") and format[4:]:
        return f"{_TYPE_NAMES.get(format[:4], format).removesuffix(']')}, {format[4:]}]"
    if format.startswith("d:"):
        return f"decimal({format[2:]})"
    if format.startswith("w:"):
        return f"fixed-size binary({format[2:]})"
    return _TYPE_NAMES.get(format, f"of the Arrow format {format!r}")


cdef str _extension_name(const ArrowSchema* schema):
    """The extension type that a column is of, or None."""
    cdef const char* at = schema.metadata
    cdef int32_t pairs, size
    cdef int64_t i
    if at == NULL:
        return None
    memcpy(&pairs, at, 4)
    at += 4
    for i in range(2 * <int64_t>max(pairs, 0)):
        memcpy(&size, at, 4)
        if size < 0:
            raise BatchError(f"column {_text(schema.name)!r}: its metadata is broken")
        at += 4
        if i % 2 == 0:
            is_name = at[:size] == b"ARROW:extension:name"
        elif is_name:
            return at[:size].decode("utf-8", "replace")
        at += size
    return None


cdef object _wrong_type(int number, const ArrowSchema* schema, str expected):
    return BatchError(f"column {_NAMES[number]!r} is {_type_name(schema)}: must be {expected}")


cdef bint _layout(str format, dict letters, char* letter, int64_t* width) except -1:
    """Whether a format is one of some, and its letter."""
    if format in letters:
        letter[0] = <char>ord(letters[format])
        return True
    if letters is _BYTES_LETTERS and format.startswith("w:") and format[2:].isdecimal() and len(format) <= 20:
        letter[0] = c"w"
        width[0] = int(format[2:])
        return True
    return False


cdef int _plan_column(int number, const ArrowSchema* schema, _Reader* reader) except -1:
    """How a column comes, or a BatchError that says which type it has and must have."""
    cdef str format = _text(schema.format)
    cdef dict letters = _TEXT_LETTERS if number < FIRST_VALUE or number in (OP, SOURCE) else _BYTES_LETTERS
    cdef str expected = (
        _A_STRING if number < FIRST_VALUE
        else _SOME_BYTES if number < FIELD_COUNT
        else _A_NAME if number in (OP, SOURCE)
        else _A_STAMP if number >= SYSTEM_TIME
        else _AN_INTEGER
    )
    cdef bint of_text = number < FIELD_COUNT or number in (OP, SOURCE)
    cdef str extension = _extension_name(schema)
    if extension is not None and number >= FIELD_COUNT:
        # What its numbers mean is the extension's to say: days, or truth values.
        raise BatchError(
            f"column {_NAMES[number]!r} is {extension!r}, an extension over {_type_name(schema)}: must be {expected}; convert"
            " it first"
        )
    if schema.dictionary != NULL:
        if not of_text or format not in _INTEGERS or len(format) != 1 or schema.dictionary.dictionary != NULL:
            raise _wrong_type(number, schema, expected)
        reader.is_dictionary = True
        reader.letter = <char>ord(format)
        if _text(schema.dictionary.format) == "n":
            reader.value_letter = c"n"
        elif not _layout(_text(schema.dictionary.format), letters, &reader.value_letter, &reader.value_width):
            raise _wrong_type(number, schema, expected)
        return 0
    if format == "n":
        reader.letter = c"n"
    elif of_text and _layout(format, letters, &reader.letter, &reader.width):
        pass
    elif number >= FIELD_COUNT and len(format) == 1 and format in _INTEGERS:
        reader.letter = <char>ord(format)
    elif number >= SYSTEM_TIME and len(format) >= 4 and format[:2] == "ts" and format[2] in "smun" and format[3] == ":":
        reader.letter = c"l"
        reader.unit = <char>ord(format[2])
    else:
        raise _wrong_type(number, schema, expected)
    return 0


cdef bytes _metadata(const ArrowSchema* schema, bytes key):
    """The value of a key in a schema's metadata, or None. It is a count, and each key and value behind its length."""
    cdef const char* at = schema.metadata
    cdef int32_t count, size
    cdef bytes part
    cdef bint is_it = False
    if at == NULL:
        return None
    memcpy(&count, at, 4)
    at += 4
    for i in range(2 * <int64_t>count):
        memcpy(&size, at, 4)
        if size < 0:
            raise BatchError(f"schema with metadata of {size} bytes: is broken")
        part = at[4:4 + <Py_ssize_t>size]
        at += 4 + <Py_ssize_t>size
        if is_it:
            return part
        is_it = i % 2 == 0 and part == key
    return None


cdef int _plan(const ArrowSchema* schema, _Reader* readers) except -1:
    """How every column comes."""
    cdef int64_t i
    cdef int number
    cdef str name
    cdef list names
    cdef frozenset index
    if _text(schema.format) != "+s" or schema.dictionary != NULL:
        raise BatchError(f"{_type_name(schema)}: must be columns, as of a record batch, a table or a struct array")
    if schema.n_children < 0 or (schema.n_children != 0 and schema.children == NULL):
        raise BatchError(f"schema of {schema.n_children} columns: is broken")
    index = index_columns(_metadata(schema, b"pandas"))
    for i in range(schema.n_children):
        name = _text(schema.children[i].name)
        if name not in _NUMBERS:
            if name in index:
                # Of a frame that was filtered or sorted, say: no column of it, and no field.
                continue
            raise BatchError(f"column {name!r}: no such field; select those that are: {', '.join(sorted(_NAMES))}")
        number = _NUMBERS[name]
        if readers[number].is_there:
            raise BatchError(f"column {name!r}: is there twice")
        readers[number].is_there = True
        readers[number].child = i
        _plan_column(number, schema.children[i], &readers[number])
    names = [_NAMES[number] for number in _REQUIRED if not readers[<int>number].is_there]
    if names:
        raise BatchError(f"columns missing: {', '.join(names)}")
    return 0


# ---- data -------------------------------------------------------------------------------------------------------

cdef int _check_array(str name, const ArrowArray* array, char letter, int64_t need) except -1:
    """That an array has as many rows as are asked of it, and the buffers of its layout."""
    cdef int64_t buffers = 0 if letter == c"n" else 2
    if letter in b"uUzZ":
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
    if need != 0 and array.buffers[1] == NULL:
        raise BatchError(f"{name}: no buffer of data for {need} rows")
    if letter == c"v" and buffers > 3 and array.buffers[buffers - 1] == NULL:
        raise BatchError(f"{name}: {buffers - 3} buffers of text, and not the sizes of them")
    return 0


cdef object _null(int number, int64_t row):
    return BatchError(f"row {row}: {_NAMES[number]} is null: must have a value")


cdef class _Chunks:
    """The arrays of one object, kept until they are copied."""

    cdef ArrowArray* arrays
    cdef Py_ssize_t count
    cdef Py_ssize_t room
    cdef object owner  # a capsule that releases its array itself

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.count):
            if self.owner is None and self.arrays[i].release != NULL:
                self.arrays[i].release(&self.arrays[i])
        free(self.arrays)

    cdef ArrowArray* add(self) except NULL:
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


cdef class _Spans:
    """The values of all variable-length fields, None where a column is missing: one after another, field by field."""

    cdef Span* at
    cdef int64_t rows

    def __dealloc__(self):
        free(self.at)


cdef _Chunks _chunks_of(source, _Reader* readers):
    """Takes the arrays of an object, once its schema is known to be one."""
    cdef _Chunks chunks = _Chunks.__new__(_Chunks)
    cdef ArrowArrayStream* stream
    cdef ArrowSchema schema
    cdef ArrowSchema* given
    cdef ArrowArray* array
    cdef int code
    if hasattr(source, "__arrow_c_array__"):
        schema_capsule, chunks.owner = source.__arrow_c_array__()
        given = <ArrowSchema*>PyCapsule_GetPointer(schema_capsule, "arrow_schema")
        if given.release == NULL:
            raise _taken(source)
        _plan(given, readers)
        array = chunks.add()
        array[0] = (<ArrowArray*>PyCapsule_GetPointer(chunks.owner, "arrow_array"))[0]
        if array.release == NULL:
            raise _taken(source)
        chunks.count = 1
        return chunks
    if not hasattr(source, "__arrow_c_stream__"):
        raise TypeError(
            f"{type(source).__name__}: has neither __arrow_c_array__ nor __arrow_c_stream__; pass a record batch, a"
            " table or a data frame"
        )
    capsule = source.__arrow_c_stream__()
    stream = <ArrowArrayStream*>PyCapsule_GetPointer(capsule, "arrow_array_stream")
    if stream.release == NULL:
        raise _taken(source)
    memset(&schema, 0, sizeof(schema))
    with nogil:
        code = stream.get_schema(stream, &schema)
    _check_call(source, stream, code)
    try:
        _plan(&schema, readers)
    finally:
        if schema.release != NULL:
            schema.release(&schema)
    while True:
        array = chunks.add()
        with nogil:
            code = stream.get_next(stream, array)
        _check_call(source, stream, code)
        if array.release == NULL:
            return chunks
        chunks.count += 1


cdef object _taken(source):
    return BatchError(f"{type(source).__name__}: somebody else has taken what its capsule held; ask for a new one")


cdef int _check_call(source, ArrowArrayStream* stream, int code) except -1:
    if code != 0:
        said = _text(stream.get_last_error(stream)) or "no reason given"
        raise BatchError(f"the stream of {type(source).__name__} failed with error {code}: {said}")
    return 0


cdef int _check_chunk(const ArrowArray* array, const _Reader* readers) except -1:
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
        _check_array(_NAMES[number], column, readers[number].letter, array.offset + array.length)
        if readers[number].is_dictionary:
            if column.dictionary == NULL:
                raise BatchError(f"{_NAMES[number]}: a dictionary array without its dictionary")
            values = f"dictionary of {_NAMES[number]}"
            _check_array(values, column.dictionary, readers[number].value_letter, column.dictionary.length)
    return 0


cdef int _read_span(
    int number, const ArrowArray* column, const _Reader* reader, int64_t i, int64_t row, Span* span
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
                f"row {row}: {_NAMES[number]} is entry {<int64_t>index} of a dictionary of {column.dictionary.length}"
            )
        column = column.dictionary
        i = column.offset + <int64_t>index
        letter = reader.value_letter
        width = reader.value_width
        if letter == c"n" or not is_valid(column, i):
            return 0
    if span_at(column, letter, width, i, span):
        raise BatchError(f"row {row}: {_NAMES[number]} does not lie in its buffers")
    return 0


cdef int _read_spans(
    const ArrowArray* array, const _Reader* readers, int64_t before, _Spans spans, uint64_t* total
) except -1:
    cdef int number
    cdef int64_t i
    cdef Span* span
    cdef const ArrowArray* column
    for number in range(FIELD_COUNT):
        if not readers[number].is_there:
            continue
        column = array.children[readers[number].child]
        span = spans.at + number * spans.rows + before
        for i in range(array.length):
            _read_span(number, column, &readers[number], column.offset + array.offset + i, before + i, &span[i])
            if span[i].at == NULL and number < FIRST_NULLABLE:
                raise _null(number, before + i)
            # Two of these fit an u64, and more are refused.
            if span[i].size >= NULL_LENGTH:
                raise BatchError(
                    f"row {before + i}: {_NAMES[number]} of {span[i].size} bytes: at most {NULL_LENGTH - 1} fit"
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
        f"row {row}: {_NAMES[number]} {shown.decode('utf-8', 'replace')!r}: unknown; known are "
        f"{', '.join([name.decode() for name in names])}"
    )


cdef int _read_names(
    int number, const ArrowArray* column, const _Reader* reader, int64_t first, int64_t before, EventRow* rows,
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
        if number == OP:
            rows[i].op = <uint8_t>member
        else:
            rows[i].source = <uint8_t>member
    return 0


cdef object _out_of_range(int number, int64_t row, uint64_t bits, bint is_negative, object least, object most):
    cdef object value = bits
    if is_negative:
        value = <int64_t>bits
    return BatchError(f"row {row}: {_NAMES[number]} {value}: must be in {least} .. {most}")


cdef int _read_integers(
    int number, const ArrowArray* column, const _Reader* reader, int64_t first, int64_t before, EventRow* rows,
    int64_t count
) except -1:
    cdef uint64_t most = 0xFFFFFFFFFFFFFFFF
    cdef uint64_t bits = 0
    cdef int64_t i
    cdef bint is_negative
    if number == VSHARD_ID or number == COUNT:
        most = 0xFFFFFFFF
    elif number == OP or number == SOURCE:
        most = 0xFF
    for i in range(count):
        if reader.letter == c"n" or not is_valid(column, first + i):
            raise _null(number, before + i)
        is_negative = integer_at(column.buffers[1], reader.letter, first + i, &bits)
        if is_negative or bits > most:
            raise _out_of_range(number, before + i, bits, is_negative, 0, most)
        if number == SEQUENCE:
            rows[i].sequence = bits
        elif number == LSN:
            rows[i].lsn = bits
        elif number == TENANT_ID:
            rows[i].tenant_id = bits
        elif number == VSHARD_ID:
            rows[i].vshard_id = <uint32_t>bits
        elif number == COUNT:
            rows[i].count = <uint32_t>bits
        elif number == OP:
            rows[i].op = <uint8_t>bits
        else:
            rows[i].source = <uint8_t>bits
    return 0


cdef int _read_stamps(
    int number, const ArrowArray* column, const _Reader* reader, int64_t first, int64_t before, EventRow* rows,
    int64_t count
) except -1:
    cdef int64_t divisor = 1000 if reader.unit == c"u" else 1000000 if reader.unit == c"n" else 1
    cdef int64_t i, stamp
    cdef uint64_t bits = 0
    cdef bint is_negative
    for i in range(count):
        stamp = NO_TIME
        if reader.letter != c"n" and is_valid(column, first + i):
            is_negative = integer_at(column.buffers[1], reader.letter, first + i, &bits)
            if not is_negative and bits > <uint64_t>INT64_MAX:
                raise _out_of_range(number, before + i, bits, False, NO_TIME, INT64_MAX)
            stamp = <int64_t>bits
            if stamp == NO_TIME:
                pass
            elif reader.unit == c"s":
                if not -INT64_MAX // 1000 <= stamp <= INT64_MAX // 1000:
                    raise BatchError(f"row {before + i}: {_NAMES[number]} {stamp} s: does not fit 64 bits of ms")
                stamp *= 1000
            elif stamp % divisor != 0:
                raise BatchError(
                    f"row {before + i}: {_NAMES[number]} {stamp} {chr(reader.unit)}s: is no whole number of "
                    "milliseconds; truncate or round it to ms first"
                )
            else:
                stamp //= divisor
        if number == SYSTEM_TIME:
            rows[i].system_time_ms = stamp
        else:
            rows[i].valid_time_ms = stamp
    return 0


cdef void _fill_defaults(RowBlock block) noexcept:
    cdef uint64_t i
    memset(block.rows, 0, block.count * sizeof(EventRow))
    for i in range(block.count):
        block.rows[i].system_time_ms = NO_TIME
        block.rows[i].valid_time_ms = NO_TIME


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
    cdef _Reader[COLUMN_COUNT] readers
    cdef _Chunks chunks
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
    chunks = _chunks_of(source, readers)
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
        for number in range(FIELD_COUNT, COLUMN_COUNT):
            if not readers[number].is_there:
                continue
            column = array.children[readers[number].child]
            first = column.offset + array.offset
            if number >= SYSTEM_TIME:
                _read_stamps(number, column, &readers[number], first, before, rows, array.length)
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
