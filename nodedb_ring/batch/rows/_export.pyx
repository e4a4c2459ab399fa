# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
# distutils: extra_compile_args = -O3
"""Rows as Arrow arrays, over the capsules of the Arrow PyCapsule interface: a struct of nullable columns.

What was decoded is what an importer gets: numbers and views where they lie. It holds that memory, and of a batch with
columns of views the batch, too.
"""

cimport cython
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid, PyCapsule_New
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset, strcmp

from .._event_rows cimport decode_text
from .._row_block cimport RowBlock
from ..arrow._capsules cimport array_capsule, schema_capsule, stream_capsule
from ..arrow._export cimport LONGEST, WINDOW_SHIFT, Hold, release_hold, rows_within, write_array
from ..arrow._schema cimport Selection, as_requested, write_schema
from ..arrow.abi cimport ARROW_FLAG_NULLABLE, ArrowArray, ArrowArrayStream, ArrowSchema
from ._decode cimport RowColumns
from .rows cimport (
    ROW_BOOL,
    ROW_BYTES,
    ROW_NULL,
    ROW_RAW,
    ROW_STR,
    ROW_TYPES,
    RowColumn,
    RowPayload,
    RowType,
    RowView,
    count_valid,
    row_width,
)

from ...errors import RowError

__all__ = ["RowExport"]

cdef extern from "nodedb_row_arrow.h" nogil:
    ctypedef struct Sheet "nodedb_row_sheet":
        Hold hold
        void (*drop)(Hold*) noexcept nogil
        void* text
        uint64_t users
        const void* no_validity[1]
        ArrowArray* column
        ArrowArray** columns

    ctypedef struct RowStream "nodedb_row_stream":
        ArrowSchema schema
        int64_t count, next
        ArrowArray array[1]

    void release_row_column "nodedb_release_row_column"(ArrowArray* array) noexcept
    void release_rows "nodedb_release_rows"(ArrowArray* array) noexcept
    void pack_bits "nodedb_row_pack_bits"(const uint8_t* bytes, uint64_t count, uint64_t wanted, uint8_t* bits) noexcept
    uint64_t fitting "nodedb_row_fitting"(const RowView* views, uint64_t count, uint64_t most, uint64_t* size) noexcept
    uint64_t copy_text "nodedb_row_copy_text"(
        const RowView* views, uint64_t count, const RowPayload* payload, bint is_text, bint is_large, void* ends,
        uint8_t* text
    ) noexcept
    const uint8_t* bytes_of "nodedb_row_bytes"(const RowView* view, const RowPayload* payload) noexcept
    bint make_schema "nodedb_make_schema"(
        ArrowSchema* schema, const char* format, const char* name, int64_t flags, int64_t children
    ) noexcept
    bint copy_leaf "nodedb_copy_leaf"(const ArrowSchema* source, ArrowSchema* to) noexcept
    void free_stream "nodedb_free_row_stream"(RowStream* rows) noexcept
    void fill_stream "nodedb_fill_row_stream"(ArrowArrayStream* stream, RowStream* rows) noexcept

cdef enum Layout:
    FIXED          # values as they lie; bools as bits
    VIEWS
    OFFSETS        # of 32 bits, into text
    LARGE_OFFSETS  # of 64 bits

cdef uint64_t ALL_VALID = 0x0303030303030303
cdef uint64_t ALL_TRUE = 0x0101010101010101

# By type; of text, and of binary, by layout from VIEWS on.
cdef (const char*)[9] _FORMATS = [b"b", b"l", b"L", b"g", b"vu", b"vz", b"tsu:UTC", b"vz", b"n"]
cdef (const char*)[6] _LAYOUTS = [b"vu", b"u", b"U", b"vz", b"z", b"Z"]


cdef inline bint _has_views(RowType type) noexcept nogil:
    return type == ROW_STR or type == ROW_BYTES or type == ROW_RAW


cdef const char* _format_of(RowType type, Layout layout) noexcept:
    if layout == FIXED:
        return _FORMATS[<int>type]
    return _LAYOUTS[(0 if type == ROW_STR else 3) + <int>layout - <int>VIEWS]


@cython.final
@cython.no_gc
cdef class _Held:
    """What an importer of views holds: where they lie, and the block that they are over."""

    cdef RowColumns columns
    cdef RowBlock block


cdef str _shown(const char* text):
    return "''" if text == NULL else repr((<bytes>text).decode("utf-8", "replace"))


cdef inline size_t _place(size_t* at, size_t size) noexcept nogil:
    cdef size_t here = (at[0] + 63) & ~<size_t>63
    at[0] = here + size
    return here


@cython.final
cdef class RowExport:
    """Columns of rows for one importer: which, in which layout, of which events, and what of the events is in front.

    `block` is of the same events. Text and binary are views, or with `plain` utf8 and binary, and then the events' names
    are, too. Plain columns have at most `longest` bytes in an array.
    """

    cdef RowColumns columns
    cdef RowBlock block
    cdef Selection events   # or None
    cdef tuple names        # of all columns
    cdef tuple numbers
    cdef list layouts
    cdef uint64_t start, count, longest
    cdef int events_count

    def __cinit__(
        self, RowColumns columns not None, RowBlock block not None, tuple numbers not None, uint64_t start,
        uint64_t stop, *, bint plain=False, Selection events=None, requested_schema=None, uint64_t longest=LONGEST
    ):
        cdef Layout views = OFFSETS if plain else VIEWS
        columns.block.check_open()
        self.columns = columns
        self.block = block
        self.events = events
        self.events_count = 0 if events is None else events.selected.count
        self.numbers = numbers
        self.names = tuple([columns.plan.names[k] for k in numbers])
        if events is not None:
            self.names = events.names + self.names
        self.layouts = [views if _has_views(columns.plan.types[k]) else FIXED for k in numbers]
        self.start = start
        self.count = stop - start
        self.longest = longest
        if requested_schema is not None:
            self.follow(requested_schema)

    cdef int follow(self, object requested_schema) except -1:
        """Takes the layouts of a requested schema, as far as there are such. The capsule stays the importer's."""
        cdef const ArrowSchema* asked
        cdef const char* format
        cdef ArrowSchema front
        cdef RowType type
        cdef int i, k, first
        if not PyCapsule_IsValid(requested_schema, "arrow_schema"):
            raise TypeError(
                f"requested_schema {requested_schema!r}: must be the capsule of an ArrowSchema, as __arrow_c_schema__() "
                "returns it"
            )
        asked = <const ArrowSchema*>PyCapsule_GetPointer(requested_schema, "arrow_schema")
        if asked.release == NULL:
            raise RowError("requested_schema: its capsule was already consumed; request a new one")
        if asked.format == NULL or strcmp(asked.format, b"+s") != 0:
            raise RowError(f"requested_schema of the Arrow format {_shown(asked.format)}: must be '+s', columns")
        if asked.n_children != <int64_t>len(self.names) or (asked.n_children != 0 and asked.children == NULL):
            raise RowError(
                f"requested_schema of {asked.n_children} columns: must be of {', '.join(self.names)}; select(...) makes "
                "rows of fewer"
            )
        for i in range(asked.n_children):
            if asked.children[i].name == NULL or asked.children[i].name != self.names[i].encode():
                raise RowError(
                    f"requested_schema: column {i} is {_shown(asked.children[i].name)}, and here it is {self.names[i]!r}; "
                    "select(...) makes them in another order",
                    column=self.names[i],
                )
        if self.events is not None:
            # The events' own columns, as a schema of their own that nobody releases.
            front = asked[0]
            front.n_children = self.events_count
            self.events = as_requested(self.events, PyCapsule_New(&front, "arrow_schema", NULL))
        for k in range(<int>len(self.numbers)):
            type = self.columns.plan.types[self.numbers[k]]
            format = asked.children[self.events_count + k].format
            if not _has_views(type) or format == NULL:
                continue
            first = 0 if type == ROW_STR else 3
            for i in range(3):
                if strcmp(format, _LAYOUTS[first + i]) == 0:
                    self.layouts[k] = <int>VIEWS + i
        return 0

    # ---- the schema ----

    cdef int write_schema(self, ArrowSchema* out) except -1:
        """To be released in any case."""
        cdef ArrowSchema of_events
        cdef bint done
        cdef int k
        done = make_schema(out, b"+s", b"", 0, len(self.names))
        if done and self.events is not None:
            done = write_schema(&self.events.selected, &of_events)
            if done:
                for k in range(self.events_count):
                    done = done and copy_leaf(of_events.children[k], out.children[k])
                of_events.release(&of_events)
        for k in range(<int>len(self.numbers)):
            name = self.columns.plan.names[self.numbers[k]].encode()
            done = done and make_schema(
                out.children[self.events_count + k],
                _format_of(self.columns.plan.types[self.numbers[k]], self.layouts[k]), name, ARROW_FLAG_NULLABLE, 0,
            )
        if not done:
            raise MemoryError(f"no memory for a schema of {len(self.names)} columns")
        return 0

    def schema(self):
        """The capsule of the schema."""
        cdef ArrowSchema* schema = <ArrowSchema*>calloc(1, sizeof(ArrowSchema))
        if schema == NULL:
            raise MemoryError("no memory for a schema")
        try:
            self.write_schema(schema)
            return schema_capsule(schema)
        except:
            if schema.release != NULL:
                schema.release(schema)
            free(schema)
            raise

    # ---- arrays ----

    cdef uint64_t fits(self, uint64_t first, uint64_t count) except? 0:
        """How many of `count` rows from `first` on fit one array."""
        cdef uint64_t n = count, size
        cdef int k
        for k in range(<int>len(self.numbers)):
            if <Layout>self.layouts[k] == OFFSETS:
                n = fitting(
                    <const RowView*>self.columns.columns[<uint32_t>self.numbers[k]].values + (self.start + first), n,
                    self.longest, &size,
                )
                if n == 0 and count != 0:
                    raise RowError(
                        f"column {self.columns.plan.names[self.numbers[k]]!r}: a value of more than the {self.longest} "
                        "bytes that utf8 and binary of Arrow hold; ask for large_utf8 or large_binary by requested_schema",
                        column=self.columns.plan.names[self.numbers[k]],
                    )
        return n

    cdef RowBlock events_from(self, uint64_t first, uint64_t count):
        if first == 0 and count == self.block.count:
            return self.block
        return self.block.slice(first, first + count, pin=False)

    cdef Sheet* make_sheet(self, uint64_t count) except NULL:
        """A sheet with room for the bitmaps and pointers of so many rows."""
        cdef uint64_t parts = self.parts()
        cdef size_t size = sizeof(Sheet), columns_at, pointers_at, bits_at, at
        cdef size_t buffers = 4 + parts
        cdef int n = len(self.names), k
        cdef Sheet* sheet
        cdef uint8_t* memory
        columns_at = _place(&size, n * sizeof(ArrowArray))
        pointers_at = _place(&size, n * sizeof(ArrowArray*))
        # Of each: its buffers, and the sizes of the parts of the payload that views are over.
        bits_at = _place(&size, n * buffers * sizeof(void*) + parts * sizeof(int64_t))
        at = size
        for k in range(<int>len(self.numbers)):
            # Validity, and bools.
            _place(&size, 2 * ((count + 63) // 64 * 8))
        memory = <uint8_t*>calloc(1, size)
        if memory == NULL:
            raise MemoryError(f"no memory for {n} columns of {count} rows")
        sheet = <Sheet*>memory
        sheet.drop = release_hold
        sheet.users = 1
        sheet.column = <ArrowArray*>(memory + columns_at)
        sheet.columns = <ArrowArray**>(memory + pointers_at)
        for k in range(n):
            sheet.columns[k] = sheet.column + k
            sheet.column[k].buffers = <const void**>(memory + bits_at) + k * buffers
        for k in range(<int>len(self.numbers)):
            sheet.column[self.events_count + k].private_data = memory + _place(&at, 2 * ((count + 63) // 64 * 8))
        return sheet

    cdef uint64_t parts(self) noexcept:
        cdef uint64_t size = self.columns.payload.end - self.columns.payload.bytes
        return (size + (<uint64_t>1 << self.columns.payload.shift) - 1) >> self.columns.payload.shift

    cdef int fill_column(self, ArrowArray* array, int k, uint64_t first, uint64_t count) except -1:
        """One column but for its text. Its memory for bitmaps is where `private_data` says."""
        cdef const RowColumn* column = self.columns.columns + <uint32_t>self.numbers[k]
        cdef const uint8_t* state = column.state + first
        cdef uint8_t* bits = <uint8_t*>array.private_data
        cdef uint64_t parts, i
        cdef int64_t* sizes
        array.length = count
        if column.type == ROW_NULL:
            array.null_count = count
            return 0
        array.n_buffers = 2
        array.buffers[1] = <uint8_t*>column.values + first * row_width(column.type)
        if self.columns.valid[<uint32_t>self.numbers[k]] != self.columns.count:
            array.null_count = count - count_valid(state, count)
            if array.null_count != 0:
                pack_bits(state, count, ALL_VALID, bits)
                array.buffers[0] = bits
        if column.type == ROW_BOOL:
            bits += (count + 63) // 64 * 8
            pack_bits(<const uint8_t*>array.buffers[1], count, ALL_TRUE, bits)
            array.buffers[1] = bits
        elif <Layout>self.layouts[k] == VIEWS:
            # A column without a long value has no use for the payload.
            parts = self.parts() if column.has_long else 0
            sizes = <int64_t*>(array.buffers + 3 + parts)
            for i in range(parts):
                array.buffers[2 + i] = self.columns.payload.bytes + (i << self.columns.payload.shift)
                sizes[i] = self.columns.payload.end - <const uint8_t*>array.buffers[2 + i]
            array.buffers[2 + parts] = sizes
            array.n_buffers = 3 + parts
        return 0

    cdef int fill_text(self, Sheet* sheet, uint64_t first, uint64_t count) except -1:
        """The text of plain columns, and where each value of it ends."""
        cdef uint64_t size, bad
        cdef size_t all = 0, at = 0
        cdef const RowColumn* column
        cdef const RowView* views
        cdef ArrowArray* array
        cdef Layout layout
        cdef void* ends
        cdef uint8_t* text
        cdef int k
        for k in range(<int>len(self.numbers)):
            if <Layout>self.layouts[k] >= OFFSETS:
                column = self.columns.columns + <uint32_t>self.numbers[k]
                fitting(<const RowView*>column.values + first, count, <uint64_t>-1, &size)
                _place(&all, (count + 1) * 8)
                _place(&all, size)
        if all == 0:
            return 0
        sheet.text = malloc(all)
        if sheet.text == NULL:
            raise MemoryError(f"no memory for the text of {count} rows, {all} bytes")
        for k in range(<int>len(self.numbers)):
            layout = self.layouts[k]
            if layout < OFFSETS:
                continue
            column = self.columns.columns + <uint32_t>self.numbers[k]
            array = sheet.column + self.events_count + k
            views = <const RowView*>column.values + first
            fitting(views, count, <uint64_t>-1, &size)
            ends = <uint8_t*>sheet.text + _place(&at, (count + 1) * 8)
            text = <uint8_t*>sheet.text + _place(&at, size)
            with nogil:
                bad = copy_text(
                    views, count, &self.columns.payload, column.type == ROW_STR, layout == LARGE_OFFSETS, ends, text
                )
            if bad != count:
                # Only who shares the ring can have written it; and this says so.
                decode_text(<const char*>bytes_of(views + bad, &self.columns.payload), views[bad].size)
                raise RowError(f"column {self.columns.plan.names[self.numbers[k]]!r}: text that changed while it was read")
            array.n_buffers = 3
            array.buffers[1] = ends
            array.buffers[2] = text
        return 0

    cdef object held(self):
        """What an importer is to hold."""
        cdef _Held held
        for k, layout in enumerate(self.layouts):
            if layout == VIEWS:
                held = _Held.__new__(_Held)
                held.columns = self.columns
                # A part of the block keeps it as a view does, and its lease.
                held.block = self.columns.block.slice(0, self.columns.block.count)
                return held
        return self.columns

    cdef int write_array(self, uint64_t first, uint64_t count, ArrowArray* out) except -1:
        """The array of `count` rows from `first` on; nothing is written where it is an exception."""
        # Text is copied without the GIL, and a lease that ends meanwhile keeps its rows until this has gone.
        cdef RowBlock pinned = self.columns.block.pinned()
        cdef Sheet* sheet = self.make_sheet(count)
        cdef ArrowArray of_events
        cdef int k
        memset(&of_events, 0, sizeof(of_events))
        try:
            for k in range(<int>len(self.numbers)):
                self.fill_column(sheet.column + self.events_count + k, k, self.start + first, count)
            self.fill_text(sheet, self.start + first, count)
            held = self.held()
            if self.events is not None:
                write_array(
                    self.events_from(first, count), &self.events.selected, WINDOW_SHIFT, False, self.longest, &of_events
                )
        except:
            free(sheet.text)
            free(sheet)
            raise
        # From here on nothing fails. An array may be moved, which is what becomes of the events' own.
        for k in range(self.events_count):
            sheet.column[k] = of_events.children[k][0]
            of_events.children[k].release = NULL
        if self.events is not None:
            of_events.release(&of_events)
        for k in range(<int>len(self.numbers)):
            sheet.column[self.events_count + k].release = release_row_column
            sheet.column[self.events_count + k].private_data = sheet
        Py_INCREF(held)
        sheet.hold.object = <PyObject*>held
        sheet.users = 1 + len(self.numbers)
        memset(out, 0, sizeof(ArrowArray))
        out.length = count
        out.n_buffers = 1
        out.buffers = sheet.no_validity
        out.n_children = len(self.names)
        out.children = sheet.columns
        out.release = release_rows
        out.private_data = sheet
        return 0

    cdef uint64_t fits_with_events(self, uint64_t first, uint64_t count) except? 0:
        cdef uint64_t n = self.fits(first, count)
        if self.events is not None and n != 0:
            n = min(n, rows_within(self.events_from(first, n), &self.events.selected, self.longest))
        return n

    def array(self):
        """The capsules of the schema and of one array."""
        cdef ArrowArray* array
        cdef uint64_t n = self.fits_with_events(0, self.count)
        if n != self.count:
            raise RowError(
                f"{n} of {self.count} rows fit one array: utf8 and binary of Arrow hold at most {self.longest} bytes; "
                "export parts of the rows, which their stream does by itself, or ask for large_utf8 and large_binary by "
                "requested_schema"
            )
        array = <ArrowArray*>calloc(1, sizeof(ArrowArray))
        if array == NULL:
            raise MemoryError("no memory for an array")
        try:
            self.write_array(0, self.count, array)
            capsule = array_capsule(array)
        except:
            if array.release != NULL:
                array.release(array)
            free(array)
            raise
        return self.schema(), capsule

    def stream(self):
        """The capsule of a stream: of one array, or of as many as plain columns need."""
        cdef ArrowArrayStream* stream
        cdef RowStream* rows
        cdef list parts = []
        cdef uint64_t first = 0, n
        cdef Py_ssize_t i
        while first < self.count or not parts:
            n = self.fits_with_events(first, self.count - first)
            parts.append((first, n))
            first += n
        stream = <ArrowArrayStream*>calloc(1, sizeof(ArrowArrayStream))
        rows = <RowStream*>calloc(1, sizeof(RowStream) + len(parts) * sizeof(ArrowArray))
        if stream == NULL or rows == NULL:
            free(stream)
            free(rows)
            raise MemoryError("no memory for a stream")
        rows.count = len(parts)
        try:
            self.write_schema(&rows.schema)
            for i in range(len(parts)):
                self.write_array(parts[i][0], parts[i][1], <ArrowArray*>(<uint8_t*>rows + sizeof(RowStream)) + i)
            fill_stream(stream, rows)
            return stream_capsule(stream)
        except:
            free_stream(rows)
            free(stream)
            raise
