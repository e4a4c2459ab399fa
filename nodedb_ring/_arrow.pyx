# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
"""Batches as Arrow arrays, over the capsules of the Arrow PyCapsule interface. No library is needed for that.

::

    rows (128 bytes each) ──one pass──► sheet: the structs of the interface, and the columns    (recycled)
    payload ◄──────── views of strings and values that are longer than 12 bytes

A *sheet* is all that an importer gets besides the payload, in one allocation. The importer may take the columns apart
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
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset, strdup

from ._arrow_abi cimport ARROW_FLAG_NULLABLE, ArrowArray, ArrowArrayStream, ArrowSchema
from ._batch cimport RowBlock
from ._columns cimport Columns, View, Window, write_columns
from ._event cimport decode_text
from ._ring cimport EventRow

from .errors import BatchError
from .events import EventSource, WriteOp

__all__ = ["Selection", "drop_released", "export_array", "export_schema", "export_stream"]

cdef enum:
    COLUMN_COUNT = 15
    FIELD_COUNT = 6
    # Buffers of views begin so far apart (1 << 28): one that begins there may end up to 2 GiB later.
    WINDOW_SHIFT = 28
    # Rows from which on the pass lets other threads run: it takes longer than a switch costs.
    LONG_PASS = 32768

cdef extern from *:
    """
    #include <stdlib.h>
    #include <sys/mman.h>

    #define NODEDB_COLUMN_COUNT 15

    /* The numbers of the columns that are exported, in their order. */
    typedef struct {
        int count, column[NODEDB_COLUMN_COUNT];
    } nodedb_selected;

    /* What goes when an importer lets go of something: a Python object, and the memory that this is the head of. */
    typedef struct nodedb_hold {
        PyObject *object;                    /* or NULL */
        size_t size;
        struct nodedb_hold *next;            /* in the list of those that wait for a thread with the GIL */
    } nodedb_hold;

    /* What an importer has of one batch. The columns lie behind it, in the same memory. */
    typedef struct {
        nodedb_hold hold;                    /* of the batch whose payload the views are over, if there are any */
        uint64_t users;                      /* the struct array and its columns that are not released yet */
        struct ArrowArray column[NODEDB_COLUMN_COUNT];      /* by their numbers; `columns` are those that are exported */
        struct ArrowArray *columns[NODEDB_COLUMN_COUNT];
        struct ArrowArray dictionary[2];     /* of op, of source */
        const void *no_validity[1];
    } nodedb_sheet;

    /* ---- memory of released sheets, for the next ones ---- */

    enum { NODEDB_KEPT_SHEETS = 8 };
    #define NODEDB_KEPT_BYTES ((size_t)64 << 20)
    #define NODEDB_LARGE_SHEET ((size_t)64 << 10)    /* smaller ones are malloc's business */
    #define NODEDB_HUGE_PAGE ((size_t)2 << 20)

    static struct {
        uint32_t busy;
        size_t bytes;
        void *memory[NODEDB_KEPT_SHEETS];
        size_t size[NODEDB_KEPT_SHEETS];
    } nodedb_kept;

    /* Nobody waits: who finds it busy does without. (A child may have been forked at that moment, too.) */
    static inline int nodedb_kept_enter(void) {
        return __atomic_exchange_n(&nodedb_kept.busy, 1, __ATOMIC_ACQUIRE) == 0;
    }
    static inline void nodedb_kept_leave(void) { __atomic_store_n(&nodedb_kept.busy, 0, __ATOMIC_RELEASE); }

    static void *nodedb_take_memory(size_t size, size_t *got) {
        void *memory = NULL;
        if (size < NODEDB_LARGE_SHEET) {
            *got = size;
            return aligned_alloc(64, (size + 63) & ~(size_t)63);
        }
        if (nodedb_kept_enter()) {
            int best = -1;
            for (int i = 0; i < NODEDB_KEPT_SHEETS; i++)
                if (nodedb_kept.size[i] >= size && nodedb_kept.size[i] / 4 <= size &&
                    (best < 0 || nodedb_kept.size[i] < nodedb_kept.size[best])) best = i;
            if (best >= 0) {
                memory = nodedb_kept.memory[best];
                *got = nodedb_kept.size[best];
                nodedb_kept.bytes -= *got;
                nodedb_kept.memory[best] = NULL;
                nodedb_kept.size[best] = 0;
            }
            nodedb_kept_leave();
        }
        if (memory == NULL) {
            size_t step = size >= NODEDB_HUGE_PAGE ? NODEDB_HUGE_PAGE : NODEDB_LARGE_SHEET;
            *got = (size + step - 1) & ~(step - 1);
            memory = aligned_alloc(size >= NODEDB_HUGE_PAGE ? NODEDB_HUGE_PAGE : 4096, *got);
            if (memory != NULL && size >= NODEDB_HUGE_PAGE) madvise(memory, *got, MADV_HUGEPAGE);
        }
        return memory;
    }

    /* Keeps it in the place of the smallest one, or frees it. */
    static void nodedb_give_memory(void *memory, size_t size) {
        void *rest = memory;
        if (size >= NODEDB_LARGE_SHEET && nodedb_kept_enter()) {
            int least = 0;
            for (int i = 1; i < NODEDB_KEPT_SHEETS; i++)
                if (nodedb_kept.size[i] < nodedb_kept.size[least]) least = i;
            const size_t others = nodedb_kept.bytes - nodedb_kept.size[least];
            if (size > nodedb_kept.size[least] && others + size <= NODEDB_KEPT_BYTES) {
                rest = nodedb_kept.memory[least];
                nodedb_kept.bytes = others + size;
                nodedb_kept.memory[least] = memory;
                nodedb_kept.size[least] = size;
            }
            nodedb_kept_leave();
        }
        free(rest);
    }

    /* ---- zeros, for columns in which everything is None: pages that nobody can write to, and that take no memory */

    #define NODEDB_ZERO_BYTES ((size_t)64 << 20)
    static const void *nodedb_map_zeros(void) {
        void *zeros = mmap(NULL, NODEDB_ZERO_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        return zeros == MAP_FAILED ? NULL : zeros;
    }

    /* ---- letting go of Python objects, from any thread ---- */

    static nodedb_hold *nodedb_left;         /* what waits for a thread with the GIL */

    static int nodedb_has_gil(void) {
    #if PY_VERSION_HEX < 0x030D0000
        PyThreadState *now = _PyThreadState_UncheckedGet();
    #else
        PyThreadState *now = PyThreadState_GetUnchecked();
    #endif
        return now != NULL && now == PyGILState_GetThisThreadState();
    }

    static void nodedb_drop(nodedb_hold *hold) {
        PyObject *object = hold->object;
        nodedb_give_memory(hold, hold->size);
        Py_XDECREF(object);
    }

    static int nodedb_drop_left(void *unused) {
        nodedb_hold *hold = __atomic_exchange_n(&nodedb_left, NULL, __ATOMIC_ACQUIRE);
        (void)unused;
        while (hold != NULL) {
            nodedb_hold *next = hold->next;
            nodedb_drop(hold);
            hold = next;
        }
        return 0;
    }

    static void nodedb_let_go(nodedb_hold *hold) {
        /* Without an interpreter the process is about to end, and its memory with it. */
        if (!Py_IsInitialized()) return;
        if (nodedb_has_gil()) {
            nodedb_drop(hold);
            return;
        }
        nodedb_hold *first = __atomic_load_n(&nodedb_left, __ATOMIC_RELAXED);
        do hold->next = first;
        while (!__atomic_compare_exchange_n(&nodedb_left, &first, hold, 1, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
        /* The first of a list calls for the interpreter. Should that have no room for the call, the next export comes. */
        if (first == NULL) Py_AddPendingCall(nodedb_drop_left, NULL);
    }

    /* ---- what the importer calls ---- */

    static void nodedb_leave_sheet(nodedb_sheet *sheet) {
        if (__atomic_sub_fetch(&sheet->users, 1, __ATOMIC_ACQ_REL) == 0) nodedb_let_go(&sheet->hold);
    }

    static void nodedb_release_dictionary(struct ArrowArray *array) { array->release = NULL; }

    static void nodedb_release_column(struct ArrowArray *array) {
        if (array->dictionary != NULL && array->dictionary->release != NULL)
            array->dictionary->release(array->dictionary);
        array->release = NULL;
        nodedb_leave_sheet(array->private_data);
    }

    static void nodedb_release_struct(struct ArrowArray *array) {
        nodedb_sheet *sheet = array->private_data;
        array->release = NULL;
        for (int i = 0; i < NODEDB_COLUMN_COUNT; i++)
            if (sheet->column[i].release != NULL) sheet->column[i].release(&sheet->column[i]);
        nodedb_leave_sheet(sheet);
    }

    /* The schema: one allocation as well, and counted as well. */
    typedef struct {
        uint64_t users;
        struct ArrowSchema column[NODEDB_COLUMN_COUNT], *columns[NODEDB_COLUMN_COUNT], dictionary[2];
    } nodedb_schema;

    static void nodedb_release_nothing(struct ArrowSchema *schema) { schema->release = NULL; }

    static void nodedb_release_schema(struct ArrowSchema *schema) {
        nodedb_schema *all = schema->private_data;
        if (schema->dictionary != NULL && schema->dictionary->release != NULL)
            schema->dictionary->release(schema->dictionary);
        for (int64_t i = 0; i < schema->n_children; i++)
            if (schema->children[i]->release != NULL) schema->children[i]->release(schema->children[i]);
        schema->release = NULL;
        if (__atomic_sub_fetch(&all->users, 1, __ATOMIC_ACQ_REL) == 0) free(all);
    }

    /* A stream: its Python object has the batches. */
    typedef struct {
        nodedb_hold hold;
        nodedb_selected selected;
        char *error;                         /* of the last call, or NULL */
    } nodedb_stream;

    static const char *nodedb_last_error(struct ArrowArrayStream *stream) {
        return ((nodedb_stream *)stream->private_data)->error;
    }

    static void nodedb_release_stream(struct ArrowArrayStream *stream) {
        nodedb_stream *state = stream->private_data;
        stream->release = NULL;
        free(state->error);
        nodedb_let_go(&state->hold);
    }

    /* Whether Python can be called: a thread that asked for the GIL while the interpreter ends would not come back. */
    static int nodedb_is_ending(void) {
    #if PY_VERSION_HEX < 0x030D0000
        return !Py_IsInitialized() || _Py_IsFinalizing();
    #else
        return !Py_IsInitialized() || Py_IsFinalizing();
    #endif
    }
    """
    ctypedef struct Selected "nodedb_selected":
        int count
        int column[COLUMN_COUNT]

    ctypedef struct Hold "nodedb_hold":
        PyObject* object
        size_t size

    ctypedef struct Sheet "nodedb_sheet":
        Hold hold
        uint64_t users
        ArrowArray column[COLUMN_COUNT]
        ArrowArray* columns[COLUMN_COUNT]
        ArrowArray dictionary[2]
        const void* no_validity[1]

    ctypedef struct Schema "nodedb_schema":
        uint64_t users
        ArrowSchema column[COLUMN_COUNT]
        ArrowSchema* columns[COLUMN_COUNT]
        ArrowSchema dictionary[2]

    const size_t ZERO_BYTES "NODEDB_ZERO_BYTES"
    const void* map_zeros "nodedb_map_zeros"() noexcept
    void* take_memory "nodedb_take_memory"(size_t size, size_t* got) noexcept nogil
    void give_memory "nodedb_give_memory"(void* memory, size_t size) noexcept nogil
    int drop_left "nodedb_drop_left"(void* unused) noexcept
    void release_dictionary "nodedb_release_dictionary"(ArrowArray* array) noexcept nogil
    void release_column "nodedb_release_column"(ArrowArray* array) noexcept nogil
    void release_struct "nodedb_release_struct"(ArrowArray* array) noexcept nogil
    void release_nothing "nodedb_release_nothing"(ArrowSchema* schema) noexcept nogil
    void release_schema "nodedb_release_schema"(ArrowSchema* schema) noexcept nogil

    ctypedef struct Stream "nodedb_stream":
        Hold hold
        Selected selected
        char* error

    const char* last_error "nodedb_last_error"(ArrowArrayStream* stream) noexcept nogil
    void release_stream "nodedb_release_stream"(ArrowArrayStream* stream) noexcept nogil
    bint is_ending "nodedb_is_ending"() noexcept nogil

cdef enum:  # the columns, in the order of WriteEvent's fields
    SEQUENCE
    COLLECTION
    OP
    ROW_ID
    LSN
    TENANT_ID
    VSHARD_ID
    SOURCE
    COUNT
    NEW_VALUE
    OLD_VALUE
    SYSTEM_TIME
    VALID_TIME
    USER_ID
    STATEMENT_DIGEST

# Name, format and whether None may stand in it, of each.
cdef (const char*)[3 * COLUMN_COUNT] _COLUMNS = [
    b"sequence", b"L", NULL,
    b"collection", b"vu", NULL,
    b"op", b"c", NULL,
    b"row_id", b"vu", NULL,
    b"lsn", b"L", NULL,
    b"tenant_id", b"L", NULL,
    b"vshard_id", b"I", NULL,
    b"source", b"c", NULL,
    b"count", b"I", NULL,
    b"new_value", b"vz", b"null",
    b"old_value", b"vz", b"null",
    b"system_time_ms", b"tsm:UTC", b"null",
    b"valid_time_ms", b"tsm:UTC", b"null",
    b"user_id", b"vu", b"null",
    b"statement_digest", b"vu", b"null",
]
# Where the variable-length fields of a row stand among the columns.
cdef int[FIELD_COUNT] _FIELD_COLUMN = [COLLECTION, ROW_ID, USER_ID, STATEMENT_DIGEST, NEW_VALUE, OLD_VALUE]

cdef tuple _COLUMN_NAMES = tuple([_COLUMNS[3 * number].decode() for number in range(COLUMN_COUNT)])


@cython.final
cdef class Selection:
    """Columns to export, in the order of their names. Refuses what ``EventBatch.select`` says."""

    cdef Selected selected

    def __cinit__(self, tuple names not None):
        if not names:
            raise ValueError(f"no columns: name some of {', '.join(_COLUMN_NAMES)}")
        for name in names:
            if not isinstance(name, str):
                raise TypeError(f"{name!r}: a column is named by a str, as in select('collection', 'op')")
            if name not in _COLUMN_NAMES:
                raise ValueError(f"{name!r}: no such column; those are {', '.join(_COLUMN_NAMES)}")
            if names.count(name) > 1:
                raise ValueError(f"{name!r}: asked for {names.count(name)} times; once is enough")
        # They all differ, so there is room for them.
        for name in names:
            self.selected.column[self.selected.count] = _COLUMN_NAMES.index(name)
            self.selected.count += 1


cdef Selection _EVERY = Selection(_COLUMN_NAMES)

cdef const void* _ZEROS = map_zeros()

# The names of op and of source: offsets and text, which stay as long as the process.
cdef (const void*)[2][3] _NAMES
cdef int64_t[2] _NAME_COUNT


cdef int _set_names(int which, members) except -1:
    cdef list names = [str(member).encode() for member in members]
    cdef bytes text = b"".join(names)
    cdef int32_t* offsets = <int32_t*>calloc(len(names) + 1, 4)
    cdef char* kept = <char*>malloc(len(text))
    cdef Py_ssize_t i
    if offsets == NULL or kept == NULL:
        raise MemoryError("no memory for the names of operations and sources")
    for i in range(len(names)):
        offsets[i + 1] = offsets[i] + <int32_t>len(names[i])
    memcpy(kept, <const char*>text, len(text))
    _NAMES[which][0] = NULL
    _NAMES[which][1] = offsets
    _NAMES[which][2] = kept
    _NAME_COUNT[which] = len(names)
    return 0

# An index is the member's number, less that of the first.
_set_names(0, WriteOp)
_set_names(1, EventSource)


def drop_released():
    """Lets go of what importers have let go of without the GIL. The interpreter does it on the main thread alone."""
    drop_left(NULL)


# ---- capsules ---------------------------------------------------------------------------------------------------

cdef void _free_schema_capsule(object capsule) noexcept:
    cdef ArrowSchema* schema = <ArrowSchema*>PyCapsule_GetPointer(capsule, "arrow_schema")
    if schema.release != NULL:
        schema.release(schema)
    free(schema)


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


# ---- schema -----------------------------------------------------------------------------------------------------

cdef void _fill_schema(ArrowSchema* schema, const char* name, const char* format, int64_t flags) noexcept nogil:
    memset(schema, 0, sizeof(ArrowSchema))
    schema.name = name
    schema.format = format
    schema.flags = flags


cdef bint _write_schema(const Selected* selected, ArrowSchema* out) noexcept nogil:
    """The schema of the selected columns; False when there is no memory."""
    cdef Schema* all = <Schema*>calloc(1, sizeof(Schema))
    cdef ArrowSchema* column
    cdef int i, k
    if all == NULL:
        return False
    all.users = 1 + selected.count
    for i in range(selected.count):
        k = selected.column[i]
        column = &all.column[k]
        _fill_schema(column, _COLUMNS[3 * k], _COLUMNS[3 * k + 1], ARROW_FLAG_NULLABLE if _COLUMNS[3 * k + 2] else 0)
        column.release = release_schema
        column.private_data = all
        all.columns[i] = column
    for i in range(2):
        _fill_schema(&all.dictionary[i], b"", b"u", 0)
        all.dictionary[i].release = release_nothing
    all.column[OP].dictionary = &all.dictionary[0]
    all.column[SOURCE].dictionary = &all.dictionary[1]
    _fill_schema(out, b"", b"+s", 0)
    out.n_children = selected.count
    out.children = all.columns
    out.release = release_schema
    out.private_data = all
    return True


def export_schema(Selection selection not None=_EVERY):
    """The schema of what is exported, as a capsule."""
    cdef ArrowSchema* schema = <ArrowSchema*>calloc(1, sizeof(ArrowSchema))
    if schema == NULL or not _write_schema(&selection.selected, schema):
        free(schema)
        raise MemoryError("no memory for a schema")
    try:
        return PyCapsule_New(schema, "arrow_schema", _free_schema_capsule)
    except:
        schema.release(schema)
        free(schema)
        raise


# ---- arrays -----------------------------------------------------------------------------------------------------

cdef inline size_t _place(size_t* at, size_t size) noexcept:
    """Where a column of `size` bytes goes. Columns a multiple of a page apart would push each other out of the cache."""
    cdef size_t here = (at[0] + 63) & ~<size_t>63
    at[0] = here + size + 5 * 64
    return here


cdef bint _is_selected(const Selected* selected, int number) noexcept:
    cdef int place
    for place in range(selected.count):
        if selected.column[place] == number:
            return True
    return False


cdef bint _has_views(const Selected* selected) noexcept:
    """Whether a column may refer to the payload. What it holds has no say: the end of a lease must not hang on that."""
    cdef int k
    for k in range(FIELD_COUNT):
        if _is_selected(selected, _FIELD_COLUMN[k]):
            return True
    return False


cdef int _check_lengths(RowBlock block, const Selected* selected, uint32_t most) except -1:
    """Views have lengths of 31 bits."""
    cdef uint64_t i
    cdef int k
    cdef uint32_t length
    for k in range(FIELD_COUNT):
        if not _is_selected(selected, _FIELD_COLUMN[k]):
            continue
        for i in range(block.count):
            length = block.rows[i].field[k].length
            if most < length < 0xFFFFFFFF:
                raise BatchError(
                    f"row {i}: {_COLUMN_NAMES[_FIELD_COLUMN[k]]} of {length} bytes: a view of Arrow holds at most {most}; "
                    "read it from records and payload"
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


cdef Sheet* _make_sheet(RowBlock block, const Selected* selected, uint32_t shift, bint portable) except NULL:
    """The selected columns of a block. Its one user is the caller, and it holds no batch yet."""
    cdef Window window = _window_of(block, shift)
    cdef uint64_t n = block.count, bad
    # Bitmaps are written by whole words.
    cdef size_t bits = (n + 63) // 64 * 8
    cdef uint64_t parts = (window.size + (<uint64_t>1 << shift) - 1) >> shift
    cdef size_t size = sizeof(Sheet), got, pointers_at
    cdef size_t[COLUMN_COUNT] at, bits_at
    cdef (uint8_t*)[COLUMN_COUNT] data
    cdef (uint64_t*)[COLUMN_COUNT] valid
    cdef Columns columns
    cdef Sheet* sheet
    cdef uint8_t* memory
    cdef const void** buffers
    cdef int64_t* sizes
    cdef ArrowArray* column
    cdef int k, place, field = 0
    cdef uint64_t longs, i
    cdef size_t[COLUMN_COUNT] width = [8, 16, 1, 16, 8, 8, 4, 1, 4, 16, 16, 8, 8, 16, 16]
    if window.size > 0x7FFFFFFF:
        _check_lengths(block, selected, 0x7FFFFFFF)
    # Validity and data of every column, and for views the parts of the payload and their sizes.
    pointers_at = _place(&size, selected.count * (3 + parts) * sizeof(void*) + parts * sizeof(int64_t))
    for place in range(selected.count):
        k = selected.column[place]
        at[k] = _place(&size, n * width[k])
        bits_at[k] = _place(&size, bits) if _COLUMNS[3 * k + 2] else 0
    memory = <uint8_t*>take_memory(size, &got)
    if memory == NULL:
        raise MemoryError(f"no memory for the columns of {n} events, {size} bytes")
    memset(data, 0, sizeof(data))
    memset(valid, 0, sizeof(valid))
    for place in range(selected.count):
        k = selected.column[place]
        data[k] = memory + at[k]
        if bits_at[k] != 0:
            valid[k] = <uint64_t*>(memory + bits_at[k])
    sheet = <Sheet*>memory
    sheet.users = 1
    sheet.hold.size = got
    sheet.hold.object = NULL
    memset(&columns, 0, sizeof(columns))
    columns.sequence = <uint64_t*>data[SEQUENCE]
    columns.lsn = <uint64_t*>data[LSN]
    columns.tenant_id = <uint64_t*>data[TENANT_ID]
    columns.vshard_id = <uint32_t*>data[VSHARD_ID]
    columns.count = <uint32_t*>data[COUNT]
    columns.op = <int8_t*>data[OP]
    columns.source = <int8_t*>data[SOURCE]
    for k in range(2):
        columns.time[k] = <int64_t*>data[SYSTEM_TIME + k]
        columns.time_valid[k] = valid[SYSTEM_TIME + k]
    for k in range(FIELD_COUNT):
        columns.view[k] = <View*>data[_FIELD_COLUMN[k]]
        columns.valid[k] = valid[_FIELD_COLUMN[k]]
    if n >= LONG_PASS:
        with nogil:
            bad = write_columns(&columns, block.rows, n, &window, &field, portable)
    else:
        bad = write_columns(&columns, block.rows, n, &window, &field, portable)
    if bad != n:
        give_memory(memory, got)
        # Only who shares the ring can have written it; and this says so.
        decode_text(
            <const char*>block.bytes + block.rows[bad].field[field].offset, block.rows[bad].field[field].length
        )
        raise BatchError(f"row {bad}: text that changed while it was read")
    buffers = <const void**>(memory + pointers_at)
    sizes = <int64_t*>(buffers + selected.count * (3 + parts))
    for i in range(parts):
        sizes[i] = <int64_t>(window.size - (i << shift))
    memset(sheet.column, 0, sizeof(sheet.column))
    for place in range(selected.count):
        k = selected.column[place]
        column = &sheet.column[k]
        column.length = n
        column.n_buffers = 2
        column.buffers = buffers
        column.release = release_column
        column.private_data = sheet
        sheet.columns[place] = column
        buffers[0] = NULL
        buffers[1] = data[k]
        buffers += 2
        if width[k] == 16:
            buffers += 1 + parts
    for k in range(2):
        if columns.time[k] != NULL:
            _set_nulls(&sheet.column[SYSTEM_TIME + k], columns.time_nulls[k], columns.time_valid[k], n * 8)
    for k in range(FIELD_COUNT):
        if columns.view[k] == NULL:
            continue
        column = &sheet.column[_FIELD_COLUMN[k]]
        if columns.valid[k] != NULL:
            _set_nulls(column, columns.nulls[k], columns.valid[k], n * 16)
        # A column without a long value has no use for the payload.
        longs = parts if columns.longs[k] != 0 else 0
        for i in range(longs):
            column.buffers[2 + i] = window.bytes + (i << shift)
        column.buffers[2 + longs] = sizes
        column.n_buffers = 3 + longs
    for k in range(2):
        column = &sheet.dictionary[k]
        memset(column, 0, sizeof(ArrowArray))
        column.length = _NAME_COUNT[k]
        column.n_buffers = 3
        column.buffers = _NAMES[k]
        column.release = release_dictionary
    sheet.column[OP].dictionary = &sheet.dictionary[0]
    sheet.column[SOURCE].dictionary = &sheet.dictionary[1]
    sheet.no_validity[0] = NULL
    return sheet


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


cdef int _write_array(
    RowBlock block, const Selected* selected, uint32_t shift, bint portable, ArrowArray* out
) except -1:
    cdef RowBlock held
    cdef Sheet* sheet
    drop_left(NULL)
    # A part of the block keeps it as a view does, and its lease.
    held = block.slice(0, block.count)
    sheet = _make_sheet(block, selected, shift, portable)
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
    return 0


def export_array(
    RowBlock block not None, Selection selection not None=_EVERY, uint32_t window_shift=WINDOW_SHIFT, *,
    bint portable=False
):
    """A block as a struct array of its columns: the capsule of the schema, and the array's.

    Views are over parts of the payload that begin ``1 << window_shift`` bytes apart. `portable` does without the
    instructions that not every processor has.
    """
    cdef ArrowArray* array = <ArrowArray*>calloc(1, sizeof(ArrowArray))
    if array == NULL:
        raise MemoryError("no memory for an array")
    try:
        _write_array(block, &selection.selected, window_shift, portable, array)
        capsule = PyCapsule_New(array, "arrow_array", _free_array_capsule)
    except:
        if array.release != NULL:
            array.release(array)
        free(array)
        raise
    return export_schema(selection), capsule


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
    if not _write_schema(&(<Stream*>stream.private_data).selected, out):
        return ENOMEM
    return 0


cdef int _stream_next(ArrowArrayStream* stream, ArrowArray* out) noexcept nogil:
    if is_ending():
        return EIO
    return _next_array(stream, out)


cdef int _next_array(ArrowArrayStream* stream, ArrowArray* out) noexcept with gil:
    cdef _Batches batches
    memset(out, 0, sizeof(ArrowArray))
    try:
        batches = <_Batches>(<Stream*>stream.private_data).hold.object
        if batches.batch is None:
            batches.batch = batches.next_batch()
        if batches.batch is not None:
            _write_array(
                <RowBlock?>batches.batch._block, &(<Stream*>stream.private_data).selected, WINDOW_SHIFT, False, out
            )
            batches.batch = None
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
    """What a stream is of, and the batch that was taken and could not be handed over."""

    cdef object next_batch
    cdef object batch


def export_stream(next_batch not None, Selection selection not None=_EVERY):
    """A stream of the columns of what `next_batch()` returns, batch for batch until it is None: a capsule.

    The importer calls it on whatever thread it likes, one call at a time. An exception is the stream's error; the
    importer may ask again.
    """
    cdef ArrowArrayStream* stream = <ArrowArrayStream*>calloc(1, sizeof(ArrowArrayStream))
    cdef Stream* state = <Stream*>calloc(1, sizeof(Stream))
    cdef _Batches batches
    if stream == NULL or state == NULL:
        free(stream)
        free(state)
        raise MemoryError("no memory for a stream")
    batches = _Batches.__new__(_Batches)
    batches.next_batch = next_batch
    Py_INCREF(batches)
    state.hold.object = <PyObject*>batches
    state.selected = selection.selected
    stream.get_schema = _stream_schema
    stream.get_next = _stream_next
    stream.get_last_error = last_error
    stream.release = release_stream
    stream.private_data = state
    try:
        return PyCapsule_New(stream, "arrow_array_stream", _free_stream_capsule)
    except:
        stream.release(stream)
        free(stream)
        raise
