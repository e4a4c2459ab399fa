# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
# distutils: extra_compile_args = -O1
"""Which columns are exported to Arrow, in which order and layout: what a schema says, and what an importer may ask for.

Text and values have three layouts, operations and sources a fourth. By default they are views and dictionaries, which
are the cheapest to make; ``plain`` is utf8 and binary, which every importer knows.
"""

cimport cython
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from libc.stdlib cimport calloc, free
from libc.string cimport memset, strcmp

from ...core.schema cimport BYTES, FIELD_COUNT, MEMBER, NULLABLE, NUMBER, OP, SCHEMA, SOURCE, TEXT, TIME
from ._capsules cimport schema_capsule
from .abi cimport ARROW_FLAG_NULLABLE

from ...errors import BatchError

__all__ = ["EVERY_COLUMN", "EVERY_COLUMN_PLAIN", "Selection", "export_schema"]

cdef extern from "nodedb_arrow_schema.h":
    ctypedef struct Schema "nodedb_arrow_schema":
        unsigned long users
        ArrowSchema column[COLUMN_COUNT]
        ArrowSchema* columns[COLUMN_COUNT]
        ArrowSchema dictionary[2]

    void release_nothing "nodedb_release_nothing"(ArrowSchema* schema) noexcept nogil
    void release_schema "nodedb_release_schema"(ArrowSchema* schema) noexcept nogil

# Arrow's format strings: three for text, then three for bytes, each in the order of layouts from VIEWS on.
cdef (const char*)[6] _FORMATS = [b"vu", b"u", b"U", b"vz", b"z", b"Z"]

COLUMN_NAMES = tuple([SCHEMA[k].name.decode() for k in range(COLUMN_COUNT)])

for _k in range(COLUMN_COUNT):
    if SCHEMA[_k].kind == TEXT or SCHEMA[_k].kind == BYTES:
        FIELD_COLUMN[SCHEMA[_k].field] = _k
FIELD_COLUMN[FIELD_COUNT] = OP
FIELD_COLUMN[FIELD_COUNT + 1] = SOURCE


cdef const char* _fixed_format(int column) noexcept nogil:
    """The type of a column that is no text and no bytes; of op and source that of their dictionary's indices."""
    if SCHEMA[column].kind == TIME:
        return b"tsm:UTC"
    if SCHEMA[column].kind == MEMBER:
        return b"c"
    if SCHEMA[column].size == 4:
        return b"I"
    if SCHEMA[column].size == 8:
        return b"L"
    return b"C" if SCHEMA[column].size == 1 else b"S"


cdef bint is_nullable(int column) noexcept nogil:
    return SCHEMA[column].presence == NULLABLE


cdef Layout _default_layout(int column, bint plain) noexcept:
    if SCHEMA[column].kind == NUMBER or SCHEMA[column].kind == TIME:
        return FIXED
    if plain:
        return OFFSETS
    return DICTIONARY if SCHEMA[column].kind == MEMBER else VIEWS


@cython.final
cdef class Selection:
    """Columns to export, in the order of their names. Refuses what ``EventBatch.select`` says."""

    def __cinit__(self, tuple names not None, *, bint plain=False):
        cdef int number
        if not names:
            raise ValueError(f"no columns: name some of {', '.join(COLUMN_NAMES)}")
        for name in names:
            if not isinstance(name, str):
                raise TypeError(f"{name!r}: a column is named by a str, as in select('collection', 'op')")
            if name not in COLUMN_NAMES:
                raise ValueError(f"{name!r}: no such column; those are {', '.join(COLUMN_NAMES)}")
            if names.count(name) > 1:
                raise ValueError(f"{name!r}: asked for {names.count(name)} times; once is enough")
        self.names = names
        # They all differ, so there is room for them.
        for name in names:
            number = COLUMN_NAMES.index(name)
            self.selected.column[self.selected.count] = number
            self.selected.layout[number] = _default_layout(number, plain)
            self.selected.count += 1


EVERY_COLUMN = Selection(COLUMN_NAMES)
EVERY_COLUMN_PLAIN = Selection(COLUMN_NAMES, plain=True)


# ---- what is asked for ------------------------------------------------------------------------------------------

cdef Layout _requested_layout(int column, const ArrowSchema* asked, Layout otherwise) noexcept:
    """The layout of a type that is asked for; `otherwise` where a column cannot be had in that type."""
    cdef int first = 3 if SCHEMA[column].kind == BYTES else 0, i
    if SCHEMA[column].kind == NUMBER or SCHEMA[column].kind == TIME or asked.format == NULL:
        return otherwise
    if asked.dictionary != NULL:
        if (
            SCHEMA[column].kind == MEMBER and strcmp(asked.format, b"c") == 0
            and asked.dictionary.format != NULL and strcmp(asked.dictionary.format, b"u") == 0
        ):
            return DICTIONARY
        return otherwise
    for i in range(3):
        if strcmp(asked.format, _FORMATS[first + i]) == 0:
            return <Layout>(VIEWS + i)
    return otherwise


cdef Selection as_requested(Selection selection, object requested_schema):
    """The columns in the layouts of a requested schema, a capsule or None.

    As the interface says: a column that is unavailable in the requested type has its default type, to be cast; and
    a schema of other columns is refused. The capsule stays the importer's.
    """
    cdef const ArrowSchema* schema
    cdef Selection given
    cdef int i, column
    if requested_schema is None:
        return selection
    if not PyCapsule_IsValid(requested_schema, "arrow_schema"):
        raise TypeError(
            f"requested_schema {requested_schema!r}: must be the capsule of an ArrowSchema, as __arrow_c_schema__() "
            "returns it"
        )
    schema = <const ArrowSchema*>PyCapsule_GetPointer(requested_schema, "arrow_schema")
    if schema.release == NULL:
        raise BatchError("requested_schema: its capsule was already consumed; request a new one")
    if schema.format == NULL or strcmp(schema.format, b"+s") != 0:
        raise BatchError(f"requested_schema of the Arrow format {_shown(schema.format)}: must be '+s', columns")
    if schema.n_children != selection.selected.count or schema.children == NULL:
        raise BatchError(
            f"requested_schema of {schema.n_children} columns: must be of {', '.join(selection.names)}; "
            "select(...) makes a batch of fewer"
        )
    given = Selection(selection.names)
    for i in range(schema.n_children):
        column = selection.selected.column[i]
        if schema.children[i].name == NULL or strcmp(schema.children[i].name, SCHEMA[column].name) != 0:
            raise BatchError(
                f"requested_schema: column {i} is {_shown(schema.children[i].name)}, and here it is "
                f"{selection.names[i]!r}; select(...) makes them in another order"
            )
        given.selected.layout[column] = _requested_layout(
            column, schema.children[i], selection.selected.layout[column]
        )
    return given


cdef str _shown(const char* text):
    return "''" if text == NULL else repr((<bytes>text).decode("utf-8", "replace"))


# ---- the schema -------------------------------------------------------------------------------------------------

cdef void _fill_schema(ArrowSchema* schema, const char* name, const char* format, int64_t flags) noexcept nogil:
    memset(schema, 0, sizeof(ArrowSchema))
    schema.name = name
    schema.format = format
    schema.flags = flags


cdef bint write_schema(const Selected* selected, ArrowSchema* out) noexcept nogil:
    cdef Schema* all = <Schema*>calloc(1, sizeof(Schema))
    cdef ArrowSchema* column
    cdef const char* format
    cdef int i, k
    if all == NULL:
        return False
    all.users = 1 + selected.count
    for i in range(2):
        _fill_schema(&all.dictionary[i], b"", b"u", 0)
        all.dictionary[i].release = release_nothing
    for i in range(selected.count):
        k = selected.column[i]
        column = &all.column[k]
        format = _fixed_format(k)
        if selected.layout[k] >= VIEWS:
            format = _FORMATS[(3 if SCHEMA[k].kind == BYTES else 0) + <int>selected.layout[k] - <int>VIEWS]
        _fill_schema(column, SCHEMA[k].name, format, ARROW_FLAG_NULLABLE if is_nullable(k) else 0)
        if selected.layout[k] == DICTIONARY:
            column.dictionary = &all.dictionary[k == SOURCE]
        column.release = release_schema
        column.private_data = all
        all.columns[i] = column
    _fill_schema(out, b"", b"+s", 0)
    out.n_children = selected.count
    out.children = all.columns
    out.release = release_schema
    out.private_data = all
    return True


def export_schema(Selection selection not None=EVERY_COLUMN):
    """The schema of what is exported, as a capsule."""
    cdef ArrowSchema* schema = <ArrowSchema*>calloc(1, sizeof(ArrowSchema))
    if schema == NULL or not write_schema(&selection.selected, schema):
        free(schema)
        raise MemoryError("no memory for a schema")
    try:
        return schema_capsule(schema)
    except:
        schema.release(schema)
        free(schema)
        raise
