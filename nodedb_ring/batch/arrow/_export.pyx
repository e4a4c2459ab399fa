# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""Batches as Arrow arrays, over the capsules of the Arrow PyCapsule interface. No library is needed for that.

::

    rows (128 bytes each) ──one pass──► sheet: the structs of the interface, and the columns    (recycled)
    payload ◄──────── views of strings and values that are longer than 12 bytes
    payload ──one more pass──► text: the bytes of plain columns, which are no views              (recycled)

A *sheet* is all that an importer gets besides the payload, in one allocation, and the text of plain columns in another.
The importer may take the columns apart and release each on a thread of its own, with or without the GIL; the sheet counts
them. When the last one is released its memory is kept for the next sheet, and the reference to the batch is dropped, at
once if the thread has the GIL. Else it waits in a list until the interpreter comes by: a thread of an importer must not
wait for the GIL, whose holder may wait for it.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from ...core.layout cimport NULL_LENGTH, EventRow
from ...core.schema cimport COLUMN_COUNT, FIELD_COUNT, FIRST_OP, SCHEMA, SYSTEM_TIME
from .._event_rows cimport decode_text
from .._row_block cimport RowBlock
from ._capsules cimport array_capsule
from ._schema cimport COLUMN_NAMES, DICTIONARY, FIELD_COLUMN, FIXED, LARGE_OFFSETS, OFFSETS, VIEWS, Layout
from ._schema cimport Selected, Selection, as_requested, is_nullable
from .abi cimport ArrowArray
from .columns cimport Columns, View, Window, set_number_targets, write_columns
from .plain_columns cimport PLAIN_COUNT, PLAIN_NAME, PLAIN_STEP, Names, PlainColumns, copy_values, write_ends

import struct

from ._schema import EVERY_COLUMN, export_schema
from ...errors import BatchError
from ..schema import EventSource, WriteOp

__all__ = ["drop_released", "export_array"]

cdef enum:
    # A pass over at least this many rows releases the GIL: it takes longer than a switch of threads.
    LONG_PASS = 32768
    # A pass over at least this many bytes of text releases the GIL, for the same reason.
    LONG_TEXT = 1 << 20

cdef extern from "nodedb_arrow_hold.h":
    const size_t ZERO_BYTES "NODEDB_ZERO_BYTES"
    const void* map_zeros "nodedb_map_zeros"() noexcept
    void* take_memory "nodedb_take_memory"(size_t size, size_t* got) noexcept nogil
    void give_memory "nodedb_give_memory"(void* memory, size_t size) noexcept nogil
    void release "nodedb_release_hold"(Hold* hold) noexcept nogil
    int drop_released_holds "nodedb_drop_released"(void* unused) noexcept
    void release_dictionary "nodedb_release_dictionary"(ArrowArray* array) noexcept nogil
    void release_column "nodedb_release_column"(ArrowArray* array) noexcept nogil
    void release_struct "nodedb_release_struct"(ArrowArray* array) noexcept nogil

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
    """Drops the references that importers released without the GIL. The interpreter does it on the main thread only."""
    drop_released_holds(NULL)


cdef void release_hold(Hold* hold) noexcept nogil:
    release(hold)


cdef void* take_export_memory(size_t size, size_t* got) noexcept nogil:
    return take_memory(size, got)


cdef void give_export_memory(void* memory, size_t size) noexcept nogil:
    give_memory(memory, size)


cdef bint _has_views(const Selected* selected) noexcept:
    """Whether a column may refer to the payload. What it holds has no say: the end of a lease must not hang on that."""
    cdef int k
    for k in range(FIELD_COUNT):
        if selected.layout[FIELD_COLUMN[k]] == VIEWS:
            return True
    return False


cdef int _check_lengths(RowBlock block, const Selected* selected) except -1:
    """Views have lengths of 31 bits."""
    cdef uint64_t i
    cdef int k
    cdef uint32_t length
    for k in range(FIELD_COUNT):
        if selected.layout[FIELD_COLUMN[k]] != VIEWS:
            continue
        for i in range(block.count):
            length = block.rows[i].field[k].length
            if LONGEST < length < NULL_LENGTH:
                raise BatchError(
                    f"row {i}: {COLUMN_NAMES[FIELD_COLUMN[k]]} of {length} bytes: a view of Arrow holds at most "
                    f"{LONGEST}; ask for large_utf8 or large_binary by requested_schema, or read it from records and "
                    "payload"
                )
    return 0


cdef Window _window_of(RowBlock block, uint32_t shift) noexcept:
    cdef Window window
    cdef uint64_t base
    window.size = block.stretch(&base)
    window.base = <uint32_t>base
    window.shift = shift
    window.bytes = block.bytes + base
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
        return SCHEMA[column].size
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
    pointers_at = place_array(&size, selected.count * (4 + parts) * sizeof(void*) + parts * sizeof(int64_t))
    for place in range(selected.count):
        k = selected.column[place]
        layout = selected.layout[k]
        at[k] = place_array(&size, (n + (1 if layout >= OFFSETS else 0)) * _width(k, layout))
        # Bitmaps are written by whole words.
        bits_at[k] = place_array(&size, (n + 63) // 64 * 8) if is_nullable(k) else 0
    for k in range(2):
        number_at[k] = place_array(&size, n) if selected.layout[FIELD_COLUMN[FIELD_COUNT + k]] >= VIEWS else 0
    memory = <uint8_t*>take_memory(size, &got)
    if memory == NULL:
        raise MemoryError(f"no memory for the columns of {n} events, {size} bytes")
    for place in range(selected.count):
        k = selected.column[place]
        to.data[k] = memory + at[k]
        if bits_at[k] != 0:
            to.valid[k] = <uint64_t*>(memory + bits_at[k])
    for k in range(2):
        to.number[k] = <int8_t*>to.data[FIELD_COLUMN[FIELD_COUNT + k]]
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
    """Releases one that was not handed out."""
    if sheet.text != NULL:
        give_memory(sheet.text, sheet.text_size)
    give_memory(sheet, sheet.hold.size)


cdef void _aim(const Selected* selected, Targets* to) noexcept:
    """Has each pass write to the buffers of its columns."""
    cdef Layout layout
    cdef int k, column
    set_number_targets(&to.columns, to.data)
    to.columns.op = to.number[0]
    to.columns.source = to.number[1]
    for k in range(2):
        to.columns.time[k] = <int64_t*>to.data[SYSTEM_TIME + k]
        to.columns.time_valid[k] = to.valid[SYSTEM_TIME + k]
        to.plain.number[k] = to.number[k]
        to.plain.names[k] = &_NAMES[k]
    for k in range(PLAIN_COUNT):
        column = FIELD_COLUMN[k]
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
        column = FIELD_COLUMN[FIELD_COUNT + k]
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
        at[k] = place_array(&size, plain.size[k] + PLAIN_STEP) if plain.ends[k] != NULL else 0
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
        layout = selected.layout[FIELD_COLUMN[k]]
        column = &sheet.column[FIELD_COLUMN[k]]
        if layout >= OFFSETS:
            if k < FIELD_COUNT and to.plain.valid[k] != NULL:
                _set_nulls(column, to.plain.nulls[k], to.plain.valid[k], (n + 1) * _width(FIELD_COLUMN[k], layout))
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
    """Sets the nulls of a nullable column, whose data has `size` bytes."""
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


cdef bint write_array(
    RowBlock block, const Selected* selected, uint32_t shift, bint portable, uint64_t longest, ArrowArray* out
) except -1:
    cdef RowBlock held
    cdef Sheet* sheet
    drop_released_holds(NULL)
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


cdef uint64_t rows_within(RowBlock block, const Selected* selected, uint64_t longest) except 0:
    cdef uint64_t[PLAIN_COUNT] sizes
    cdef uint64_t length, i
    cdef int k
    block = block.pinned()
    memset(sizes, 0, sizeof(sizes))
    for i in range(block.count):
        for k in range(PLAIN_COUNT):
            if selected.layout[FIELD_COLUMN[k]] != OFFSETS:
                continue
            if k < FIELD_COUNT:
                length = block.rows[i].field[k].length
                if length == NULL_LENGTH:
                    continue
            elif k == FIELD_COUNT:
                length = _NAMES[0].length[<uint8_t>(block.rows[i].op - FIRST_OP)]
            else:
                length = _NAMES[1].length[block.rows[i].source]
            sizes[k] += length
            if sizes[k] <= longest:
                continue
            if i == 0:
                raise BatchError(
                    f"{COLUMN_NAMES[FIELD_COLUMN[k]]} of {length} bytes: utf8 and binary of Arrow hold at most "
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
        if not write_array(block, &given.selected, window_shift, portable, longest, array):
            raise BatchError(
                f"{rows_within(block, &given.selected, longest)} of {block.count} events fit one array: utf8 and binary "
                f"of Arrow hold at most {longest} bytes; export parts of the batch, which its stream does by itself, or "
                "ask for large_utf8 and large_binary by requested_schema"
            )
        capsule = array_capsule(array)
    except:
        if array.release != NULL:
            array.release(array)
        free(array)
        raise
    return export_schema(given), capsule
