# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
# distutils: extra_compile_args = -O1
"""Which column of an Arrow schema is which field, and in which type.

Every column is known, no required one is missing, and each has a type that it can come in; else a ``BatchError`` says
which column it is, what type it has and which it must have.
"""

from libc.stdint cimport int32_t, int64_t
from libc.string cimport memcpy

from ...core.schema cimport BYTES, COLUMN_COUNT, MEMBER, REQUIRED, SCHEMA, TEXT, TIME, Kind
from ._schema cimport COLUMN_NAMES
from .abi cimport ArrowSchema

from ...errors import BatchError
from .pandas_index import index_columns

__all__ = []

cdef dict _TYPE_NAMES = {
    "n": "null", "b": "bool", "c": "int8", "C": "uint8", "s": "int16", "S": "uint16", "i": "int32", "I": "uint32",
    "l": "int64", "L": "uint64", "e": "float16", "f": "float32", "g": "float64", "z": "binary", "Z": "large_binary",
    "vz": "binary_view", "u": "utf8", "U": "large_utf8", "vu": "utf8_view", "tdD": "date32", "tdm": "date64",
    "tts": "time32[s]", "ttm": "time32[ms]", "ttu": "time64[us]", "ttn": "time64[ns]", "+s": "struct", "+l": "list",
    "+L": "large_list", "+m": "map", "+r": "run-end encoded", "+vl": "list_view", "+vL": "large_list_view",
    "tss:": "timestamp[s]", "tsm:": "timestamp[ms]", "tsu:": "timestamp[us]", "tsn:": "timestamp[ns]",
}
cdef str _INTEGERS = "cCsSiIlL"
cdef dict _TEXT_LETTERS = {"u": "u", "U": "U", "vu": "v"}
cdef dict _BYTES_LETTERS = {"z": "z", "Z": "Z", "vz": "v"}

cdef str _AN_INTEGER = "an integer type"
cdef str _A_STRING = "utf8, large_utf8, utf8_view or a dictionary of one"
cdef str _SOME_BYTES = "binary, large_binary, binary_view, fixed-size binary or a dictionary of one"
cdef str _A_NAME = "names, as utf8 or a dictionary of it, or numbers of an integer type"
cdef str _A_TIME = "timestamp, or milliseconds of an integer type"


cdef str text_of(const char* text):
    return "" if text == NULL else (<bytes>text).decode("utf-8", "replace")


cdef str type_name(const ArrowSchema* schema):
    cdef str format = text_of(schema.format)
    if schema.dictionary != NULL:
        return f"dictionary of {type_name(schema.dictionary)}"
    if format.startswith("ts") and format[4:]:
        return f"{_TYPE_NAMES.get(format[:4], format).removesuffix(']')}, {format[4:]}]"
    if format.startswith("d:"):
        return f"decimal({format[2:]})"
    if format.startswith("w:"):
        return f"fixed-size binary({format[2:]})"
    return _TYPE_NAMES.get(format, f"of the Arrow format {format!r}")


cdef str extension_name(const ArrowSchema* schema):
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
            raise BatchError(f"column {text_of(schema.name)!r}: its metadata is broken")
        at += 4
        if i % 2 == 0:
            is_name = at[:size] == b"ARROW:extension:name"
        elif is_name:
            return at[:size].decode("utf-8", "replace")
        at += size
    return None


cdef object _wrong_type(int number, const ArrowSchema* schema, str expected):
    return BatchError(f"column {COLUMN_NAMES[number]!r} is {type_name(schema)}: must be {expected}")


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


cdef int _plan_column(int number, const ArrowSchema* schema, Reader* reader) except -1:
    """How a column comes, or a BatchError that says which type it has and must have."""
    cdef str format = text_of(schema.format)
    cdef Kind kind = SCHEMA[number].kind
    cdef dict letters = _BYTES_LETTERS if kind == BYTES else _TEXT_LETTERS
    cdef str expected = (
        _A_STRING if kind == TEXT
        else _SOME_BYTES if kind == BYTES
        else _A_NAME if kind == MEMBER
        else _A_TIME if kind == TIME
        else _AN_INTEGER
    )
    cdef bint of_text = kind == TEXT or kind == BYTES or kind == MEMBER
    cdef str extension = extension_name(schema)
    if extension is not None and not is_field(number):
        # What its numbers mean is the extension's to say: days, or truth values.
        raise BatchError(
            f"column {COLUMN_NAMES[number]!r} is {extension!r}, an extension over {type_name(schema)}: must be {expected}; convert"
            " it first"
        )
    if schema.dictionary != NULL:
        if not of_text or format not in _INTEGERS or len(format) != 1 or schema.dictionary.dictionary != NULL:
            raise _wrong_type(number, schema, expected)
        reader.is_dictionary = True
        reader.letter = <char>ord(format)
        if text_of(schema.dictionary.format) == "n":
            reader.value_letter = c"n"
        elif not _layout(text_of(schema.dictionary.format), letters, &reader.value_letter, &reader.value_width):
            raise _wrong_type(number, schema, expected)
        return 0
    if format == "n":
        reader.letter = c"n"
    elif of_text and _layout(format, letters, &reader.letter, &reader.width):
        pass
    elif not is_field(number) and len(format) == 1 and format in _INTEGERS:
        reader.letter = <char>ord(format)
    elif kind == TIME and len(format) >= 4 and format[:2] == "ts" and format[2] in "smun" and format[3] == ":":
        reader.letter = c"l"
        reader.unit = <char>ord(format[2])
    else:
        raise _wrong_type(number, schema, expected)
    return 0


cdef bytes metadata_value(const ArrowSchema* schema, bytes key):
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


cdef int plan_columns(const ArrowSchema* schema, Reader* readers) except -1:
    """How every column comes."""
    cdef int64_t i
    cdef int number
    cdef str name
    cdef list names
    cdef frozenset index
    if text_of(schema.format) != "+s" or schema.dictionary != NULL:
        raise BatchError(f"{type_name(schema)}: must be columns, as of a record batch, a table or a struct array")
    if schema.n_children < 0 or (schema.n_children != 0 and schema.children == NULL):
        raise BatchError(f"schema of {schema.n_children} columns: is broken")
    index = index_columns(metadata_value(schema, b"pandas"))
    for i in range(schema.n_children):
        name = text_of(schema.children[i].name)
        if name not in COLUMN_NAMES:
            if name in index:
                # Of a frame that was filtered or sorted, say: no column of it, and no field.
                continue
            raise BatchError(f"column {name!r}: no such field; select those that are: {', '.join(sorted(COLUMN_NAMES))}")
        number = COLUMN_NAMES.index(name)
        if readers[number].is_there:
            raise BatchError(f"column {name!r}: is there twice")
        readers[number].is_there = True
        readers[number].child = i
        _plan_column(number, schema.children[i], &readers[number])
    names = [
        COLUMN_NAMES[number] for number in range(COLUMN_COUNT)
        if SCHEMA[<int>number].presence == REQUIRED and not readers[<int>number].is_there
    ]
    if names:
        raise BatchError(f"columns missing: {', '.join(names)}")
    return 0
