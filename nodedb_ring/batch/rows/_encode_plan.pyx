# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""How the columns of a frame are written as MessagePack: by their Arrow types, once, before any value is read."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from libc.string cimport memset

from ..arrow._import_plan cimport extension_name, text_of, type_name
from ..arrow._source cimport check_array

from ...errors import BatchError, RowError
from ._objects import pack_name

__all__ = ["EncodePlan"]

cdef extern from "nodedb_encode_values.h":
    const int KEY_ROOM "ENCODE_KEY_ROOM"

cdef enum:
    # Types nest no deeper: whoever goes down them recurses.
    MOST_DEPTH = 64

cdef dict _NUMBERS = {"b": ENCODE_BOOL, "e": ENCODE_HALF, "f": ENCODE_FLOAT, "g": ENCODE_DOUBLE}
cdef str _INTEGERS = "cCsSiIlL"
cdef dict _TEXTS = {"u": "u", "U": "U", "vu": "v"}
cdef dict _BINARIES = {"z": "z", "Z": "Z", "vz": "v"}
# By how a format begins.
cdef dict _REMEDIES = {
    "d:": "cast it to int64 or float64 if that holds it, or to text",
    "td": "cast it to a timestamp or to text",
    "tt": "cast it to an integer or to text",
    "tD": "cast it to an integer or to text",
    "ti": "cast it to text",
    "+r": "decode its runs, by casting it to the type of its values",
    "+v": "cast it to a list or large_list",
    "+u": "cast it to one type, or make a column of each",
}


cdef object _refused(str column, const ArrowSchema* schema, str why, str remedy):
    return RowError(f"column {column!r} is {type_name(schema)}: {why}; {remedy}, or leave it out", column=column)


cdef int64_t _number_of(str text) except -1:
    """What stands behind a format's colon; at most 32 bits of it."""
    if not text.isdecimal() or len(text) > 10 or int(text) > 0x7FFFFFFF:
        raise BatchError(f"an Arrow format with the size {text!r}: is broken")
    return int(text)


@cython.final
cdef class EncodePlan:
    """The columns by name and type, and the memory of what describes them."""

    def __cinit__(self):
        self.names = []
        self._memory = []

    cdef EncodeType* _new_types(self, Py_ssize_t count) except NULL:
        cdef bytearray memory = bytearray(max(count, 1) * sizeof(EncodeType))
        self._memory.append(memory)
        return <EncodeType*><char*>memory

    cdef int _set_key(self, EncodeType* type, str name, bytes value) except -1:
        """Gives a type its packed name, with a packed value behind it."""
        cdef bytes key = pack_name(name) + value
        cdef bytes padded = key + bytes(KEY_ROOM)
        self._memory.append(padded)
        type.key = <const uint8_t*>PyBytes_AS_STRING(padded)
        type.key_size = len(key)
        return 0

    cdef int name_columns(self, list names) except -1:
        cdef Py_ssize_t k
        seen = set()
        self.types = self._new_types(len(names))
        for k in range(len(names)):
            name = names[k]
            if not isinstance(name, str):
                raise TypeError(f"column {name!r}: a name must be a str, not {type(name).__name__}; rename it")
            if not name:
                raise RowError("column '': the name is empty; rename it", column=name)
            if "\0" in name:
                raise RowError(f"column {name!r}: its name has a NUL, which no schema of rows can have; rename it", column=name)
            if name in seen:
                raise RowError(f"column {name!r}: is there twice; rename one", column=name)
            seen.add(name)
            self._set_key(&self.types[k], name, b"")
        self.names = names
        self.count = len(names)
        return 0

    cdef int plan(self, Py_ssize_t column, const ArrowSchema* schema) except -1:
        return self._plan_value(self.names[column], schema, &self.types[column], 0)

    cdef int set_constant(self, Py_ssize_t column, bytes value) except -1:
        self._set_key(&self.types[column], self.names[column], value)
        self.types[column].kind = ENCODE_CONSTANT
        return 0

    cdef int _plan_value(self, str column, const ArrowSchema* schema, EncodeType* type, int depth) except -1:
        cdef str format = text_of(schema.format)
        cdef str extension = extension_name(schema)
        cdef const ArrowSchema* values = schema if schema.dictionary == NULL else schema.dictionary
        if depth == MOST_DEPTH:
            raise RowError(f"column {column!r}: its type nests more than {MOST_DEPTH} deep; flatten it", column=column)
        if extension is not None and text_of(values.format) not in _TEXTS and not _is_binary(text_of(values.format)):
            # What its numbers mean is the extension's to say.
            raise _refused(column, schema, f"as {extension!r}, an extension type, it has a meaning of its own", "cast it")
        if schema.dictionary != NULL:
            if len(format) != 1 or format not in _INTEGERS or schema.dictionary.dictionary != NULL:
                raise BatchError(f"column {column!r} is {type_name(schema)} with indices {format!r}: is broken")
            type.kind = ENCODE_DICTIONARY
            type.letter = <char>ord(format)
            type.count = 1
            type.child = self._new_types(1)
            return self._plan_value(column, schema.dictionary, type.child, depth + 1)
        if format == "n":
            type.kind = ENCODE_NULL
        elif format in _NUMBERS:
            type.kind = <EncodeKind><int>_NUMBERS[format]
            type.letter = <char>ord(format)
        elif len(format) == 1 and format in _INTEGERS:
            type.kind = ENCODE_INTEGER
            type.letter = <char>ord(format)
        elif format in _TEXTS:
            type.kind = ENCODE_TEXT
            type.letter = <char>ord(_TEXTS[format])
        elif format in _BINARIES:
            type.kind = ENCODE_BINARY
            type.letter = <char>ord(_BINARIES[format])
        elif format.startswith("w:"):
            type.kind = ENCODE_BINARY
            type.letter = c"w"
            type.width = _number_of(format[2:])
        elif len(format) >= 4 and format[:2] == "ts" and format[2] in "smun" and format[3] == ":":
            type.kind = ENCODE_TIMESTAMP
            type.letter = <char>ord(format[2])
        else:
            return self._plan_children(column, schema, type, depth)
        return 0

    cdef int _plan_children(self, str column, const ArrowSchema* schema, EncodeType* type, int depth) except -1:
        cdef str format = text_of(schema.format)
        cdef const ArrowSchema* holder = schema
        cdef int64_t k
        if format == "+s":
            type.kind = ENCODE_STRUCT
        elif format == "+l" or format == "+L":
            type.kind = ENCODE_LIST
            type.letter = <char>ord(format[1])
        elif format.startswith("+w:"):
            type.kind = ENCODE_LIST
            type.letter = c"w"
            type.width = _number_of(format[3:])
        elif format == "+m":
            type.kind = ENCODE_MAP
            type.letter = c"l"
        else:
            remedy = _REMEDIES.get(format[:2], "cast it")
            raise _refused(column, schema, "is no type of MessagePack", remedy)
        if type.kind == ENCODE_MAP:
            # The pairs are structs.
            if schema.n_children != 1 or schema.children == NULL or text_of(schema.children[0].format) != "+s":
                raise BatchError(f"column {column!r} is a map of {schema.n_children} columns: is broken")
            holder = schema.children[0]
        if holder.n_children < 0 or holder.n_children > 0x7FFFFFFF or (holder.n_children != 0 and holder.children == NULL):
            raise BatchError(f"column {column!r} is {type_name(schema)} of {holder.n_children} columns: is broken")
        if type.kind != ENCODE_STRUCT and holder.n_children != (1 if type.kind == ENCODE_LIST else 2):
            raise BatchError(f"column {column!r} is {type_name(schema)} of {holder.n_children} columns: is broken")
        type.count = <uint32_t>holder.n_children
        type.child = self._new_types(holder.n_children)
        seen = set()
        for k in range(holder.n_children):
            self._plan_value(column, holder.children[k], &type.child[k], depth + 1)
            if type.kind == ENCODE_STRUCT:
                name = text_of(holder.children[k].name)
                if name in seen:
                    raise RowError(f"column {column!r}: its field {name!r} is there twice; rename one", column=column)
                seen.add(name)
                self._set_key(&type.child[k], name, b"")
        return 0


cdef bint _is_binary(str format):
    return format in _BINARIES or format.startswith("w:")


# ---- what an array must have ------------------------------------------------------------------------------------

cdef char _layout(const EncodeType* type) noexcept:
    """The letter of the layout, as ``check_array`` has them."""
    if type.kind == ENCODE_NULL:
        return c"n"
    if type.kind == ENCODE_STRUCT or (type.kind == ENCODE_LIST and type.letter == c"w"):
        return c"+"
    if type.kind == ENCODE_TEXT or type.kind == ENCODE_BINARY or type.kind == ENCODE_RAW:
        return type.letter
    return c"b"


cdef int check_values(str name, const EncodeType* type, const ArrowArray* array, int64_t need) except -1:
    cdef const ArrowArray* child
    cdef int64_t children = type.count, k
    check_array(name, array, _layout(type), need)
    if type.kind == ENCODE_DICTIONARY:
        if array.dictionary == NULL:
            raise BatchError(f"{name}: a dictionary array without its dictionary")
        return check_values(f"dictionary of {name}", type.child, array.dictionary, array.dictionary.length)
    if type.kind == ENCODE_MAP:
        # The pairs are one column, of two.
        check_children(name, array, 1)
        array = array.children[0]
        check_array(name, array, c"+", array.length)
    if children == 0:
        return 0
    check_children(name, array, children)
    for k in range(children):
        child = array.children[k]
        # Lists say where their items are: those are looked at one by one.
        check_values(name, &type.child[k], child, child.length if type.kind == ENCODE_LIST else array.offset + array.length)
    return 0


cdef int check_children(str name, const ArrowArray* array, int64_t children) except -1:
    cdef int64_t k
    if array.n_children != children or array.children == NULL:
        raise BatchError(f"{name}: an array of {array.n_children} columns; its type has {children}")
    for k in range(children):
        if array.children[k] == NULL:
            raise BatchError(f"{name}: column {k} of its {children} is no array")
    return 0
