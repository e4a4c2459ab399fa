# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
"""Batches as Arrow arrays, over the capsules of the Arrow PyCapsule interface. No library is needed for that.

::

    rows (128 bytes each) ──one pass──► sheet: the structs of the interface, and the columns    (recycled)
    payload ◄──────── views of strings and values that are longer than 12 bytes
    payload ──one more pass──► text: the bytes of plain columns, which are no views              (recycled)

A *sheet* is all that an importer gets besides the payload, in one allocation, and the text of plain columns in another.
The importer may take the columns apart
and let go of each on a thread of its own, with or without the GIL; the sheet counts them. When the last one is gone its
memory is kept for the next sheet, and the batch is let go of, at once if the thread has the GIL. Else it waits in a list
until the interpreter comes by: a thread of an importer must not wait for the GIL, whose holder may wait for it.
"""

cimport cython
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from cpython.ref cimport Py_INCREF
from libc.errno cimport EINTR, EINVAL, EIO, ENOMEM
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset, strdup

from .abi cimport ArrowArray, ArrowArrayStream, ArrowSchema
from ._schema cimport (
    COLLECTION,
    COLUMN_COUNT,
    COLUMN_NAMES,
    COUNT,
    DICTIONARY,
    FIXED,
    LARGE_OFFSETS,
    LSN,
    NEW_VALUE,
    OFFSETS,
    OLD_VALUE,
    OP,
    ROW_ID,
    SEQUENCE,
    SOURCE,
    STATEMENT_DIGEST,
    SYSTEM_TIME,
    TENANT_ID,
    USER_ID,
    VIEWS,
    VSHARD_ID,
    Layout,
    Selected,
    Selection,
    as_requested,
    is_nullable,
    write_schema,
)
from ...core.atomic cimport exchange_u32, store_release_u32
from .._row_block cimport RowBlock
from .columns cimport Columns, View, Window, write_columns
from .._event cimport decode_text
from .plain_columns cimport PLAIN_COUNT, PLAIN_NAME, PLAIN_STEP, Names, PlainColumns, copy_values, write_ends
from ...core.layout cimport FIELD_COUNT, NULL_LENGTH, EventRow

import struct

from ._schema import EVERY_COLUMN, export_schema
from ...errors import BatchError, BusyError, ClosedError
from ..schema import EventSource, WriteOp

__all__ = ["StreamClaim", "drop_released", "export_array", "export_stream"]

cdef enum:
    # Buffers of views begin so far apart (1 << 28): one that begins there may end up to 2 GiB later.
    WINDOW_SHIFT = 28
    # Rows from which on the pass lets other threads run: it takes longer than a switch costs.
    LONG_PASS = 32768
    # Bytes of text from which on its pass does.
    LONG_TEXT = 1 << 20
    # Offsets of 32 bits reach so far, and views are so long.
    LONGEST = 0x7FFFFFFF

cdef extern from "hold.h":
    ctypedef struct Hold "nodedb_hold":
        PyObject* object
        size_t size

    ctypedef struct Sheet "nodedb_sheet":
        Hold hold
        void* text
        size_t text_size
        uint64_t users
        ArrowArray column[COLUMN_COUNT]
        ArrowArray* columns[COLUMN_COUNT]
        ArrowArray dictionary[2]
        const void* no_validity[1]

    const size_t ZERO_BYTES "NODEDB_ZERO_BYTES"
    const void* map_zeros "nodedb_map_zeros"() noexcept
    void* take_memory "nodedb_take_memory"(size_t size, size_t* got) noexcept nogil
    void give_memory "nodedb_give_memory"(void* memory, size_t size) noexcept nogil
    void let_go "nodedb_let_go"(Hold* hold) noexcept nogil
    int drop_left "nodedb_drop_left"(void* unused) noexcept
    void release_dictionary "nodedb_release_dictionary"(ArrowArray* array) noexcept nogil
    void release_column "nodedb_release_column"(ArrowArray* array) noexcept nogil
    void release_struct "nodedb_release_struct"(ArrowArray* array) noexcept nogil
    bint is_ending "nodedb_is_ending"() noexcept nogil

cdef struct Stream:
    # Its Python object has the batches.
    Hold hold
    Selected selected
    uint64_t longest
    uint32_t* claim  # of a StreamClaim; NULL without one
    char* error      # of the last call, or NULL

# Where the variable-length fields of a row stand among the columns, and operations and sources behind them.
cdef int[PLAIN_COUNT] _FIELD_COLUMN = [
    COLLECTION, ROW_ID, USER_ID, STATEMENT_DIGEST, NEW_VALUE, OLD_VALUE, OP, SOURCE
]

cdef const void* _ZEROS = map_zeros()

# The names of op and of source, which stay as long as the process: as a dictionary (validity, offsets, text), as views
# (over that text) and as plain text. An index is the member's number, less that of the first.
cdef (const void*)[2][3] _DICTIONARY
cdef int64_t[2] _NAME_COUNT
cdef int64_t[2] _TEXT_SIZE
cdef View[2][256] _NAME_VIEWS
cdef Names[2] _NAMES


cdef int _set_names(int which, members) except -1:
    cdef list names = [str(member).encode() for member in members]
    cdef bytes text = b"".join(names), view
    cdef Py_ssize_t count = len(names), i
    cdef int32_t* offsets = <int32_t*>calloc(count + 1, 4)
    cdef char* kept = <char*>calloc(1, len(text))
    if offsets == NULL or kept == NULL:
        raise MemoryError("no memory for the names of operations and sources")
    memcpy(kept, <const char*>text, len(text))
    for i in range(count):
        offsets[i + 1] = offsets[i] + <int32_t>len(names[i])
        _NAMES[which].length[i] = <uint8_t>len(names[i])
        memcpy(_NAMES[which].text + PLAIN_NAME * i, kept + offsets[i], len(names[i]))
        rest = names[i] if len(names[i]) <= 12 else names[i][:4] + struct.pack("=ii", 0, offsets[i])
        view = struct.pack("=i12s", len(names[i]), rest)
        memcpy(&_NAME_VIEWS[which][i], <const char*>view, sizeof(View))
    _DICTIONARY[which] = [NULL, offsets, kept]
    _NAME_COUNT[which] = count
    _TEXT_SIZE[which] = len(text)
    return 0

_set_names(0, WriteOp)
_set_names(1, EventSource)


def drop_released():
    """Lets go of what importers have let go of without the GIL. The interpreter does it on the main thread alone."""
    drop_left(NULL)


# ---- capsules ---------------------------------------------------------------------------------------------------

cdef void _free_array_capsule(object capsule) noexcept:
    cdef ArrowArray* array = <ArrowArray*>PyCapsule_GetPointer(capsule, "arrow_array")
    if array.release != NULL:
        array.release(array)
    free(array)


cdef void _free_stream_capsule(object capsule) noexcept:
    cdef ArrowArrayStream* stream = <ArrowArrayStream*>PyCapsule_GetPointer(capsule, "arrow_array_stream")
    if stream.release != NULL:
        stream.release(stream)
    free(stream)


# ---- arrays -----------------------------------------------------------------------------------------------------

cdef inline size_t _place(size_t* at, size_t size) noexcept:
    """Where a column of `size` bytes goes. Columns a multiple of a page apart would push each other out of the cache."""
    cdef size_t here = (at[0] + 63) & ~<size_t>63
    at[0] = here + size + 5 * 64
    return here


cdef bint _has_views(const Selected* selected) noexcept:
    """Whether a column may refer to the payload. What it holds has no say: the end of a lease must not hang on that."""
    cdef int k
    for k in range(FIELD_COUNT):
        if selected.layout[_FIELD_COLUMN[k]] == VIEWS:
            return True
    return False


cdef int _check_lengths(RowBlock block, const Selected* selected) except -1:
    """Views have lengths of 31 bits."""
    cdef uint64_t i
    cdef int k
    cdef uint32_t length
    for k in range(FIELD_COUNT):
        if selected.layout[_FIELD_COLUMN[k]] != VIEWS:
            continue
        for i in range(block.count):
            length = block.rows[i].field[k].length
            if LONGEST < length < NULL_LENGTH:
                raise BatchError(
                    f"row {i}: {COLUMN_NAMES[_FIELD_COLUMN[k]]} of {length} bytes: a view of Arrow holds at most "
                    f"{LONGEST}; ask for large_utf8 or large_binary by requested_schema, or read it from records and "
                    "payload"
                )
    return 0


cdef Window _window_of(RowBlock block, uint32_t shift) noexcept:
    """The payload, or of a slice its own part where that is one."""
    cdef Window window
    cdef uint64_t end
    window.base = 0
    window.size = block.payload_bytes
    window.shift = shift
    if block.parent is not None and block.count != 0 and block.is_packed(&end):
        window.base = block.rows[0].field[0].offset
        window.size = end - window.base
    window.bytes = block.bytes + window.base
    return window


cdef struct Targets:
    # What the passes write to: each column's buffers, and the same by kind of pass.
    uint8_t* data[COLUMN_COUNT]    # numbers, views or offsets; NULL: not asked for
    uint64_t* valid[COLUMN_COUNT]
    int8_t* number[2]              # of operations and sources, whatever their layout
    Columns columns
    PlainColumns plain
    bint has_plain


cdef size_t _width(int column, Layout layout) noexcept:
    """Bytes a row of the buffer of numbers, views or offsets."""
    if layout == FIXED:
        return 4 if column == VSHARD_ID or column == COUNT else 8
    return 1 if layout == DICTIONARY else 16 if layout == VIEWS else 4 if layout == OFFSETS else 8


cdef Sheet* _place_columns(
    const Selected* selected, uint64_t n, uint64_t parts, Targets* to, const void*** pointers
) except NULL:
    """A sheet with room for the columns of `n` rows, and for the pointers to their buffers."""
    cdef size_t size = sizeof(Sheet), got, pointers_at
    cdef size_t[COLUMN_COUNT] at, bits_at
    cdef size_t[2] number_at
    cdef Layout layout
    cdef Sheet* sheet
    cdef uint8_t* memory
    cdef int place, k
    memset(to, 0, sizeof(Targets))
    # Validity and data of every column, and for views the parts of the payload and their sizes.
    pointers_at = _place(&size, selected.count * (4 + parts) * sizeof(void*) + parts * sizeof(int64_t))
    for place in range(selected.count):
        k = selected.column[place]
        layout = selected.layout[k]
        at[k] = _place(&size, (n + (1 if layout >= OFFSETS else 0)) * _width(k, layout))
        # Bitmaps are written by whole words.
        bits_at[k] = _place(&size, (n + 63) // 64 * 8) if is_nullable(k) else 0
    for k in range(2):
        number_at[k] = _place(&size, n) if selected.layout[_FIELD_COLUMN[FIELD_COUNT + k]] >= VIEWS else 0
    memory = <uint8_t*>take_memory(size, &got)
    if memory == NULL:
        raise MemoryError(f"no memory for the columns of {n} events, {size} bytes")
    for place in range(selected.count):
        k = selected.column[place]
        to.data[k] = memory + at[k]
        if bits_at[k] != 0:
            to.valid[k] = <uint64_t*>(memory + bits_at[k])
    for k in range(2):
        to.number[k] = <int8_t*>to.data[_FIELD_COLUMN[FIELD_COUNT + k]]
        if number_at[k] != 0:
            to.number[k] = <int8_t*>(memory + number_at[k])
    pointers[0] = <const void**>(memory + pointers_at)
    sheet = <Sheet*>memory
    sheet.users = 1
    sheet.hold.size = got
    sheet.hold.object = NULL
    sheet.text = NULL
    return sheet


cdef void _drop_sheet(Sheet* sheet) noexcept:
    """Gives back one that nobody was handed."""
    if sheet.text != NULL:
        give_memory(sheet.text, sheet.text_size)
    give_memory(sheet, sheet.hold.size)


cdef void _aim(const Selected* selected, Targets* to) noexcept:
    """Has each pass write to the buffers of its columns."""
    cdef Layout layout
    cdef int k, column
    to.columns.sequence = <uint64_t*>to.data[SEQUENCE]
    to.columns.lsn = <uint64_t*>to.data[LSN]
    to.columns.tenant_id = <uint64_t*>to.data[TENANT_ID]
    to.columns.vshard_id = <uint32_t*>to.data[VSHARD_ID]
    to.columns.count = <uint32_t*>to.data[COUNT]
    to.columns.op = to.number[0]
    to.columns.source = to.number[1]
    for k in range(2):
        to.columns.time[k] = <int64_t*>to.data[SYSTEM_TIME + k]
        to.columns.time_valid[k] = to.valid[SYSTEM_TIME + k]
        to.plain.number[k] = to.number[k]
        to.plain.names[k] = &_NAMES[k]
    for k in range(PLAIN_COUNT):
        column = _FIELD_COLUMN[k]
        layout = selected.layout[column]
        if layout >= OFFSETS:
            to.has_plain = True
            to.plain.ends[k] = to.data[column]
            to.plain.is_large[k] = layout == LARGE_OFFSETS
            if k < FIELD_COUNT:
                to.plain.valid[k] = to.valid[column]
        elif layout == VIEWS and k < FIELD_COUNT:
            to.columns.view[k] = <View*>to.data[column]
            to.columns.valid[k] = to.valid[column]


cdef uint64_t _pass_over_rows(
    const Selected* selected, Targets* to, const EventRow* rows, uint64_t count, const Window* window, int* field,
    bint portable
) noexcept nogil:
    """Writes everything but the text of plain columns. As ``write_columns``."""
    cdef uint64_t bad = write_columns(&to.columns, rows, count, window, field, portable), i
    cdef View* views
    cdef int k, column
    if bad != count:
        return bad
    if to.has_plain:
        write_ends(&to.plain, rows, count)
    for k in range(2):
        column = _FIELD_COLUMN[FIELD_COUNT + k]
        if selected.layout[column] == VIEWS:
            views = <View*>to.data[column]
            for i in range(count):
                views[i] = _NAME_VIEWS[k][<uint8_t>to.number[k][i]]
    return count


cdef uint64_t _copy_text(
    Sheet* sheet, PlainColumns* plain, RowBlock block, const Window* window, int* field
) except? 0xFFFFFFFFFFFFFFFF:
    """Copies what the ends are of into memory of the sheet's own. As ``copy_values``."""
    cdef size_t[PLAIN_COUNT] at
    cdef size_t size = 0
    cdef uint64_t bad
    cdef int k
    for k in range(PLAIN_COUNT):
        at[k] = _place(&size, plain.size[k] + PLAIN_STEP) if plain.ends[k] != NULL else 0
    sheet.text = take_memory(size, &sheet.text_size)
    if sheet.text == NULL:
        raise MemoryError(f"no memory for the text and values of {block.count} events, {size} bytes")
    for k in range(PLAIN_COUNT):
        plain.bytes[k] = <uint8_t*>sheet.text + at[k]
    if block.count >= LONG_PASS or size >= LONG_TEXT:
        with nogil:
            bad = copy_values(plain, block.rows, block.count, window, field)
    else:
        bad = copy_values(plain, block.rows, block.count, window, field)
    return bad


cdef Sheet* _make_sheet(
    RowBlock block, const Selected* selected, uint32_t shift, bint portable, uint64_t longest
) except? NULL:
    """The selected columns of a block. Its one user is the caller, and it holds no batch yet.

    NULL without an exception when a column with offsets of 32 bits has more than `longest` bytes.
    """
    cdef Window window = _window_of(block, shift)
    cdef uint64_t n = block.count, bad
    cdef uint64_t parts = (window.size + (<uint64_t>1 << shift) - 1) >> shift
    cdef Targets to
    cdef const void** pointers
    cdef Sheet* sheet
    cdef int k, field = 0
    if window.size > LONGEST:
        _check_lengths(block, selected)
    sheet = _place_columns(selected, n, parts, &to, &pointers)
    _aim(selected, &to)
    try:
        if n >= LONG_PASS:
            with nogil:
                bad = _pass_over_rows(selected, &to, block.rows, n, &window, &field, portable)
        else:
            bad = _pass_over_rows(selected, &to, block.rows, n, &window, &field, portable)
        if bad == n and to.has_plain:
            for k in range(PLAIN_COUNT):
                if to.plain.size[k] > longest and not to.plain.is_large[k]:
                    _drop_sheet(sheet)
                    return NULL
            bad = _copy_text(sheet, &to.plain, block, &window, &field)
        if bad != n:
            # Only who shares the ring can have written it; and this says so.
            decode_text(
                <const char*>block.bytes + block.rows[bad].field[field].offset, block.rows[bad].field[field].length
            )
            raise BatchError(f"row {bad}: text that changed while it was read")
    except:
        _drop_sheet(sheet)
        raise
    _fill_arrays(sheet, selected, &to, n, pointers, parts, &window)
    return sheet


cdef void _fill_arrays(
    Sheet* sheet, const Selected* selected, Targets* to, uint64_t n, const void** buffers, uint64_t parts,
    const Window* window
) noexcept:
    """The arrays over what was written. `buffers` has room for all of their pointers."""
    cdef int64_t* sizes = <int64_t*>(buffers + selected.count * (4 + parts))
    cdef ArrowArray* column
    cdef Layout layout
    cdef uint64_t longs, i
    cdef int place, k, number
    for i in range(parts):
        sizes[i] = <int64_t>(window.size - (i << window.shift))
    memset(sheet.column, 0, sizeof(sheet.column))
    for place in range(selected.count):
        number = selected.column[place]
        column = &sheet.column[number]
        column.length = n
        column.n_buffers = 2
        column.buffers = buffers + place * (4 + parts)
        column.buffers[0] = NULL
        column.buffers[1] = to.data[number]
        column.release = release_column
        column.private_data = sheet
        sheet.columns[place] = column
    for k in range(2):
        if to.columns.time[k] != NULL:
            _set_nulls(&sheet.column[SYSTEM_TIME + k], to.columns.time_nulls[k], to.columns.time_valid[k], n * 8)
    for k in range(PLAIN_COUNT):
        layout = selected.layout[_FIELD_COLUMN[k]]
        column = &sheet.column[_FIELD_COLUMN[k]]
        if layout >= OFFSETS:
            if k < FIELD_COUNT and to.plain.valid[k] != NULL:
                _set_nulls(column, to.plain.nulls[k], to.plain.valid[k], (n + 1) * _width(_FIELD_COLUMN[k], layout))
            column.buffers[2] = to.plain.bytes[k]
            column.n_buffers = 3
        elif layout == VIEWS and k < FIELD_COUNT:
            if to.columns.valid[k] != NULL:
                _set_nulls(column, to.columns.nulls[k], to.columns.valid[k], n * 16)
            # A column without a long value has no use for the payload.
            longs = parts if to.columns.longs[k] != 0 else 0
            for i in range(longs):
                column.buffers[2 + i] = window.bytes + (i << window.shift)
            column.buffers[2 + longs] = sizes
            column.n_buffers = 3 + longs
        elif layout == VIEWS:
            column.buffers[2] = _DICTIONARY[k - FIELD_COUNT][2]
            column.buffers[3] = &_TEXT_SIZE[k - FIELD_COUNT]
            column.n_buffers = 4
        elif layout == DICTIONARY:
            column.dictionary = &sheet.dictionary[k - FIELD_COUNT]
    for k in range(2):
        column = &sheet.dictionary[k]
        memset(column, 0, sizeof(ArrowArray))
        column.length = _NAME_COUNT[k]
        column.n_buffers = 3
        column.buffers = _DICTIONARY[k]
        column.release = release_dictionary
    sheet.no_validity[0] = NULL


cdef void _set_nulls(ArrowArray* column, uint64_t nulls, uint64_t* valid, size_t size) noexcept:
    """Notes the nulls of a nullable column, whose data has `size` bytes."""
    column.null_count = nulls
    if nulls == 0:
        return
    column.buffers[0] = valid
    if nulls != <uint64_t>column.length:
        return
    # Nothing was written. The bitmap is smaller than the data.
    if _ZEROS != NULL and size <= ZERO_BYTES:
        column.buffers[0] = _ZEROS
        column.buffers[1] = _ZEROS
    else:
        memset(valid, 0, (column.length + 63) // 64 * 8)
        memset(<void*>column.buffers[1], 0, size)


cdef bint _write_array(
    RowBlock block, const Selected* selected, uint32_t shift, bint portable, uint64_t longest, ArrowArray* out
) except -1:
    """Whether it could be: False when a column with offsets of 32 bits has more than `longest` bytes."""
    cdef RowBlock held
    cdef Sheet* sheet
    drop_left(NULL)
    # A part of the block keeps it as a view does, and its lease.
    held = block.slice(0, block.count)
    sheet = _make_sheet(block, selected, shift, portable, longest)
    if sheet == NULL:
        return False
    if _has_views(selected):
        Py_INCREF(held)
        sheet.hold.object = <PyObject*>held
    sheet.users = 1 + selected.count
    memset(out, 0, sizeof(ArrowArray))
    out.length = block.count
    out.n_buffers = 1
    out.buffers = sheet.no_validity
    out.n_children = selected.count
    out.children = sheet.columns
    out.release = release_struct
    out.private_data = sheet
    return True


cdef uint64_t _rows_within(RowBlock block, const Selected* selected, uint64_t longest) except 0:
    """How many rows have at most `longest` bytes in each column with offsets of 32 bits: a batch that is too large."""
    cdef uint64_t[PLAIN_COUNT] sizes
    cdef uint64_t length, i
    cdef int k
    memset(sizes, 0, sizeof(sizes))
    for i in range(block.count):
        for k in range(PLAIN_COUNT):
            if selected.layout[_FIELD_COLUMN[k]] != OFFSETS:
                continue
            if k < FIELD_COUNT:
                length = block.rows[i].field[k].length
                if length == NULL_LENGTH:
                    continue
            elif k == FIELD_COUNT:
                length = _NAMES[0].length[<uint8_t>(block.rows[i].op - 1)]
            else:
                length = _NAMES[1].length[block.rows[i].source]
            sizes[k] += length
            if sizes[k] <= longest:
                continue
            if i == 0:
                raise BatchError(
                    f"{COLUMN_NAMES[_FIELD_COLUMN[k]]} of {length} bytes: utf8 and binary of Arrow hold at most "
                    f"{longest}; ask for large_utf8 or large_binary by requested_schema"
                )
            return i
    return block.count


def export_array(
    RowBlock block not None, Selection selection not None=EVERY_COLUMN, requested_schema=None, *,
    uint32_t window_shift=WINDOW_SHIFT, bint portable=False, uint64_t longest=LONGEST
):
    """A block as a struct array of its columns: the capsule of the schema, and the array's.

    Views are over parts of the payload that begin ``1 << window_shift`` bytes apart. `portable` does without the
    instructions that not every processor has. Plain columns with offsets of 32 bits have at most `longest` bytes.
    """
    cdef Selection given = as_requested(selection, requested_schema)
    cdef ArrowArray* array = <ArrowArray*>calloc(1, sizeof(ArrowArray))
    if array == NULL:
        raise MemoryError("no memory for an array")
    try:
        if not _write_array(block, &given.selected, window_shift, portable, longest, array):
            raise BatchError(
                f"{_rows_within(block, &given.selected, longest)} of {block.count} events fit one array: utf8 and binary "
                f"of Arrow hold at most {longest} bytes; export parts of the batch, which its stream does by itself, or "
                "ask for large_utf8 and large_binary by requested_schema"
            )
        capsule = PyCapsule_New(array, "arrow_array", _free_array_capsule)
    except:
        if array.release != NULL:
            array.release(array)
        free(array)
        raise
    return export_schema(given), capsule


# ---- streams ----------------------------------------------------------------------------------------------------

cdef int _fail(ArrowArrayStream* stream, int code, str message) noexcept:
    cdef Stream* state = <Stream*>stream.private_data
    try:
        free(state.error)
        state.error = NULL
        text = message.encode("utf-8", "replace")
        state.error = strdup(<const char*>text)
    except BaseException:
        # No memory for the message; the code has to do.
        pass
    return code


cdef int _stream_schema(ArrowArrayStream* stream, ArrowSchema* out) noexcept nogil:
    if not write_schema(&(<Stream*>stream.private_data).selected, out):
        return ENOMEM
    return 0


cdef const char* _last_error(ArrowArrayStream* stream) noexcept nogil:
    return (<Stream*>stream.private_data).error


cdef void _release_stream(ArrowArrayStream* stream) noexcept nogil:
    cdef Stream* state = <Stream*>stream.private_data
    stream.release = NULL
    # At once, without the GIL: what is let go of below, and keeps the claim, may wait for a thread that has it.
    if state.claim != NULL and not is_ending():
        store_release_u32(state.claim, 0)
    free(state.error)
    let_go(&state.hold)


cdef int _stream_next(ArrowArrayStream* stream, ArrowArray* out) noexcept nogil:
    if is_ending():
        return EIO
    return _next_array(stream, out)


cdef int _next_array(ArrowArrayStream* stream, ArrowArray* out) noexcept with gil:
    cdef Stream* state = <Stream*>stream.private_data
    memset(out, 0, sizeof(ArrowArray))
    try:
        (<_Batches>state.hold.object).write_next(state, out)
        return 0
    except MemoryError as error:
        return _fail(stream, ENOMEM, f"MemoryError: {error}")
    except KeyboardInterrupt as error:
        return _fail(stream, EINTR, f"KeyboardInterrupt: {error}")
    except ValueError as error:
        return _fail(stream, EINVAL, f"{type(error).__name__}: {error}")
    except BaseException as error:
        return _fail(stream, EIO, f"{type(error).__name__}: {error}")


cdef class _Batches:
    """What a stream is of, and what of it was taken and could not be handed over yet."""

    cdef object next_batch  # None: the stream is at its end
    cdef object batch
    cdef RowBlock rest
    cdef StreamClaim claim

    cdef int write_next(self, Stream* state, ArrowArray* out) except -1:
        """The next array; none, and `out` stays as it is, at the end."""
        cdef RowBlock part
        if self.rest is None:
            if self.batch is None and self.next_batch is not None:
                self.batch = self.next_batch()
            if self.batch is None:
                self.next_batch = None
                return 0
            self.rest = <RowBlock?>self.batch._block
            self.batch = None
        if _write_array(self.rest, &state.selected, WINDOW_SHIFT, False, state.longest, out):
            self.rest = None
            self.was_read()
            return 0
        # More text than one array takes: what fits, and the rest when the importer asks again.
        part = self.rest.slice(0, _rows_within(self.rest, &state.selected, state.longest))
        _write_array(part, &state.selected, WINDOW_SHIFT, False, state.longest, out)
        self.rest = self.rest.slice(part.count, self.rest.count)
        self.was_read()
        return 0

    cdef void was_read(self) noexcept:
        if self.claim is not None:
            self.claim.was_read = True


@cython.final
@cython.no_gc
cdef class StreamClaim:
    """Whose owner is read by one stream at a time, which holds this until its importer lets go of it.

    Its end does not do: of an importer that scans twice, one scan behind the other, the second would find nothing.
    """

    cdef uint32_t is_held
    cdef bint was_read  # an array was handed over, by whichever stream


def export_stream(
    next_batch not None, Selection selection not None=EVERY_COLUMN, requested_schema=None, *,
    StreamClaim claim=None, str owner="", is_over=None, uint64_t longest=LONGEST
):
    """A stream of the columns of what `next_batch()` returns, batch for batch until it is None: a capsule.

    The importer calls it on whatever thread it likes, one call at a time. An exception is the stream's error; the
    importer may ask again. While another stream holds the `claim`, it is a BusyError that names its `owner`. When
    `is_over()`, and another stream was handed something, it is a ClosedError: this one would have nothing.
    """
    cdef Selection given = as_requested(selection, requested_schema)
    cdef ArrowArrayStream* stream = <ArrowArrayStream*>calloc(1, sizeof(ArrowArrayStream))
    cdef Stream* state = <Stream*>calloc(1, sizeof(Stream))
    cdef _Batches batches
    if stream == NULL or state == NULL:
        free(stream)
        free(state)
        raise MemoryError("no memory for a stream")
    batches = _Batches.__new__(_Batches)
    batches.next_batch = next_batch
    batches.claim = claim
    Py_INCREF(batches)
    state.hold.object = <PyObject*>batches
    state.selected = given.selected
    state.longest = longest
    stream.get_schema = _stream_schema
    stream.get_next = _stream_next
    stream.get_last_error = _last_error
    stream.release = _release_stream
    stream.private_data = state
    try:
        if claim is not None:
            if exchange_u32(&claim.is_held, 1) != 0:
                raise BusyError(
                    f"{owner}: a stream of it is there already, and a second would take events away from it; read it "
                    "into a table first if it is needed twice, or let go of the other stream"
                )
            state.claim = &claim.is_held
            if claim.was_read and is_over():
                raise ClosedError(
                    f"{owner}: its events were handed to another stream, and the producer has gone: there are none for "
                    "a second; read it into a table first if it is needed twice"
                )
        return PyCapsule_New(stream, "arrow_array_stream", _free_stream_capsule)
    except:
        stream.release(stream)
        free(stream)
        raise

