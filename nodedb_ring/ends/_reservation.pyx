# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
# distutils: extra_compile_args = -O3
"""Rows of the ring that a producer fills in place of making events: ``Reservation``."""

cimport cython
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from ..batch._row_block cimport RowBlock, new_block
from ..batch._row_checks cimport check_rows
from ..core._bulk cimport ring_drop_rows
from ..core._room cimport ring_make_room
from ..core.atomic cimport load_acquire_u32
from ..core.copy cimport nodedb_copy
from ..core.layout cimport (
    FIELD_COUNT,
    GONE,
    NO_TIME,
    NULL_LENGTH,
    PUSH_DISCONNECTED,
    EventRow,
    ProducerSide,
    Ring,
    ring_stamp,
    shift_fields,
)
from ..core.push cimport ring_free_row, ring_publish_stamped
from ..core.sequence cimport ring_intend
from ..core.slot cimport ring_row
from ._producer_base cimport END_RESERVED, ProducerBase

from ..batch.columns import fixed_column
from ..errors import BatchError, ClosedError

__all__ = ["Reservation"]

cdef extern from "Python.h":
    bint PyBool_Check(object value)
    bint PyLong_Check(object value)
    long long PyLong_AsLongLongAndOverflow(object value, int* overflow) except? -1


@cython.final
@cython.no_gc_clear  # __dealloc__ needs the producer
cdef class Reservation:
    """Rows of the future, as writable columns: ``with producer.reserve(1000, payload_bytes=64) as rows: ...``.

    Inside the block ``rows["sequence"]`` and every other column of ``EVENT_DTYPE`` is a writable array of shape (n,), and
    ``rows.payload`` is the block of bytes that the offsets are into; events may share bytes of it. ``len(rows)`` is n:
    fewer than asked when the ring is short of slots, and 0 when it is full or the arena has no such block free, which
    drops and counts nothing. Rows begin with ``sequence`` counting on from ``producer.next_sequence``, the defaults of
    ``WriteEvent``, empty strings, and no op: that must be set. What is assigned to a column, ``rows["lsn"] = values``, is
    taken exactly or refused with a ``BatchError``, as ``EventBatch.from_columns`` does; what is assigned to a part of the
    array, ``rows["lsn"][2:] = values``, NumPy converts.

    A clean exit checks all of the rows and publishes them at once; an exception publishes nothing. The arrays are
    memory beside the ring and are copied in at the exit: an array cannot be revoked, and so
    none may refer to rows that will hold other events. After the block they are read-only.

    Raises
    ------
    BatchError
        At the exit, for a row that is not an event: unknown op or source, an offset outside the block, invalid UTF-8.

    Thread safety
    -------------
    The owner of the producer. While it is open the producer refuses every other call that emits, with a ``BusyError``.
    """

    def __cinit__(self, ProducerBase producer not None, uint64_t wanted, uint64_t payload_bytes):
        self._producer = producer
        self._wanted = wanted
        self._payload_bytes = payload_bytes
        self._arrays = {}
        self.published = 0

    def __dealloc__(self):
        # Entered and dropped without an exit, by a generator that was never resumed say.
        with cython.critical_section(self._producer):
            if self._is_open:
                self._producer._status &= ~END_RESERVED

    def __enter__(self):
        cdef Ring* ring = self._producer._ring
        cdef uint64_t free, count, sequence, i
        cdef EventRow blank
        with cython.critical_section(self._producer):
            if self._block is not None:
                raise ClosedError("a reservation serves one with block: reserve again")
            self._producer.claim()
            # Numbers are any u64, and so the last one is followed by the first.
            sequence = ((self._producer.ring.emitted_sequence or 0) + 1) & 0xFFFFFFFFFFFFFFFF
            count = 0
            if ring_make_room(ring, 1, self._payload_bytes):
                free = ring.capacity - (ring.local.producer.published - ring.local.producer.cached_released)
                count = min(self._wanted, free)
            for i in range(count):
                if ring_free_row(ring, ring.local.producer.published + i) == NULL:
                    break
            self._producer.ring.check_producer()
            # The block of payload is there without rows too, so that code which fills it needs no case for a full ring.
            self._block = new_block(count, self._payload_bytes, self._producer._pool)
            # Payload that nobody writes is copied into the ring all the same: it must not be what the heap held before.
            if self._payload_bytes:
                memset(self._block.bytes, 0, self._payload_bytes)
            self._block.writable = True
            _blank_row(&blank)
            for i in range(count):
                self._block.rows[i] = blank
                self._block.rows[i].sequence = sequence + i
            self._producer._status |= END_RESERVED
            self._is_open = True
            return self

    def __exit__(self, exc_type, exc_value, traceback):
        with cython.critical_section(self._producer):
            if not self._is_open:
                raise ClosedError("this reservation is not open")
            self._is_open = False
            self._producer._status &= ~END_RESERVED
            self._block.ended = True
            # Whoever asks the memory itself for leave to write is refused from here on, too.
            self._block.writable = False
            for array in self._arrays.values():
                array.flags.writeable = False
            if exc_type is None and self._block.count != 0:
                self._producer.claim()
                self.published = _publish_block(self._producer._ring, self._block)
                if self._producer._ring.local.producer.pending_log != 0:
                    self._producer.write_pending_log()

    def __len__(self):
        return 0 if self._block is None else self._block.count

    @property
    def records(self):
        """The rows as a writable array of ``EVENT_DTYPE``, shape (n,)."""
        return self._array("records", None)

    @property
    def payload(self):
        """The block of payload as a writable array of uint8, shape (payload_bytes,)."""
        return self._array("payload", None)

    def __getitem__(self, str column):
        return self._array("column", column)

    def __setitem__(self, str column, value):
        cdef object array = self[column]
        cdef int beyond = 0
        if PyLong_Check(value) and not PyBool_Check(value) and 0 <= PyLong_AsLongLongAndOverflow(value, &beyond) <= 255:
            # One small number for all rows, which every column holds: the case of code that fills a few rows at a time.
            array[...] = value
            return
        checked = fixed_column(column, value, check_members=False)
        if checked.ndim != 0 and len(checked) not in (1, len(array)):
            raise BatchError(f"{column} of {len(checked)} values: must be one, or one for each of the {len(array)} rows")
        array[...] = checked

    def _array(self, str kind, column):
        """The one array of its kind: the reservation must know all that it hands out, to end their writing."""
        with cython.critical_section(self._producer):
            if not self._is_open:
                raise ClosedError("a reservation's rows are there inside its with block only")
            array = self._arrays.get((kind, column))
            if array is None:
                if kind == "column":
                    array = self.records[column]
                elif kind == "records":
                    array = self._block.records()
                else:
                    array = self._block.payload()
                self._arrays[kind, column] = array
            return array


cdef void _blank_row(EventRow* row) noexcept:
    cdef int k
    memset(row, 0, sizeof(EventRow))
    row.system_time_ms = row.valid_time_ms = NO_TIME
    row.count = 1
    for k in range(FIELD_COUNT):
        row.field[k].length = 0 if k < 2 else NULL_LENGTH


cdef uint64_t _publish_block(Ring* ring, RowBlock block) except? 0:
    """Copies rows and their shared payload into the ring, checks the copies, and publishes them together.

    Each row's span is the stretch of the block from the lowest byte that it or a later row uses to the highest that it
    or an earlier one does. So spans neither start nor end before those of earlier rows, as the arena's tail needs.
    """
    cdef ProducerSide* side = &ring.local.producer
    cdef uint64_t count = block.count, size = block.payload_bytes
    cdef uint64_t published = side.published, start, offset, end, i
    cdef uint64_t highest = 0
    cdef uint32_t low, high
    cdef EventRow checked
    cdef EventRow* row
    cdef int k
    if load_acquire_u32(&ring.header.consumer_claim) & GONE:
        ring_drop_rows(ring, block.rows, 0, count, PUSH_DISCONNECTED)
        return 0
    # Only this thread takes room, so what was free when the reservation began still is.
    if not ring_make_room(ring, count, size):
        # Or the block is corrupt by now, which the caller logs.
        return 0
    start = side.arena_head
    offset = start - side.arena_lap
    if size != 0:
        nodedb_copy(ring.arena + offset, block.bytes, size)
    high = 0
    for i in range(count):
        # Checked in a copy that nobody else can write to, and so used as it was checked.
        memcpy(&checked, block.rows + i, sizeof(EventRow))
        check_rows(&checked, 1, ring.arena + offset, size, i)
        highest = max(highest, checked.sequence)
        low = NULL_LENGTH
        for k in range(FIELD_COUNT):
            if checked.field[k].length != 0 and checked.field[k].length != NULL_LENGTH:
                low = min(low, checked.field[k].offset)
                high = max(high, checked.field[k].offset + checked.field[k].length)
        checked.span_offset = low
        checked.span_length = high
        memcpy(ring_row(ring, published + i), &checked, sizeof(EventRow))
    low = high
    for i in range(count, 0, -1):
        row = ring_row(ring, published + i - 1)
        low = min(low, row.span_offset)
        end = max(row.span_length, low)
        for k in range(FIELD_COUNT):
            if row.field[k].length == 0 or row.field[k].length == NULL_LENGTH:
                row.field[k].offset = low
        shift_fields(row, <uint32_t>offset)
        ring_stamp(row, published + i - 1, start + low, <uint32_t>(offset + low), <uint32_t>(end - low))
    ring_intend(ring, highest)
    ring_publish_stamped(ring, count, start + high, highest)
    return count
