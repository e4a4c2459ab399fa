# How the columns of an Arrow schema come.

from libc.stdint cimport int64_t

from ...core.schema cimport BYTES, SCHEMA, TEXT
from .abi cimport ArrowSchema

cdef struct Reader:
    # Of one column.
    bint is_there
    int64_t child
    char letter        # of the integer, or of the layout of text and bytes; n: all None
    int64_t width      # of fixed-size binary
    char unit          # of a timestamp: s m u n
    bint is_dictionary
    char value_letter  # the dictionary's values
    int64_t value_width


cdef inline bint is_field(int number) noexcept nogil:
    """Whether the column is text or bytes, which lie in the payload."""
    return SCHEMA[number].kind == TEXT or SCHEMA[number].kind == BYTES


# How every column comes: an entry of `readers` for each, by its number.
cdef int plan_columns(const ArrowSchema* schema, Reader* readers) except -1
cdef str text_of(const char* text)
# A type as its library would name it, for messages.
cdef str type_name(const ArrowSchema* schema)
# The extension type that a column is of, or None.
cdef str extension_name(const ArrowSchema* schema)
# The value of a key in a schema's metadata, or None.
cdef bytes metadata_value(const ArrowSchema* schema, bytes key)
