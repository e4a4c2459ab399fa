# The C API of a ring, for Cython code that is compiled against this package. docs/cython.md has each part in use.
#
# Producer, one thread at a time:  ring_push, ring_push_rows; or ring_reserve, write the rows, ring_publish.
# Consumer, one thread at a time:  ring_take, read the rows, ring_release; or ring_pop; or ring_peek, ring_advance.
# Nothing here needs the GIL, raises, or checks which thread calls.

# The structs. core/nodedb_layout.h says what each field is for.
from .core.layout cimport (
    EventField,    # offset and length of a field in the payload
    EventRow,      # one event, 128 bytes
    Ring,          # what every function below takes: `&event_ring.ring`
    RingLease,     # a run of rows that ring_take handed out: `rows`, `count`
)

# Constants of a row, and what the functions answer.
from .core.layout cimport FIELD_COUNT, HEARTBEAT, NO_TIME, NULL_LENGTH, STRING_COUNT
from .core.layout cimport PUSH_CORRUPT, PUSH_DISCONNECTED, PUSH_DONE, PUSH_FULL, PUSH_TOO_LARGE, PushResult
from .core.layout cimport WAIT_INTERRUPTED, WAIT_READY, WAIT_TIMEOUT, WaitResult
from .core.layout cimport SOUND, Corruption

# Emitting.
from .core.push cimport (
    ring_publish,  # (ring, rows, count): publishes the first `count` rows of the last ring_reserve
    ring_push,     # (ring, row, payload, payload_bytes) -> PushResult: copies one event in
    ring_reserve,  # (ring, most, &rows) -> count: a run of free rows to write in place, 0 when full
)
from .core._bulk cimport (
    ring_push_rows,  # (ring, rows, count, payload) -> count: copies a prefix in; the rest is dropped and counted
)
from .core._waiting cimport (
    ring_wait_room,  # (ring, slots, payload_bytes, gather, timeout_ns, spin_ns) -> WaitResult
)

# Taking.
from .core.take cimport (
    ring_advance,    # (ring): takes and releases the row that ring_peek showed
    ring_peek,       # (ring) -> row or NULL: the next event, where it lies
    ring_peek_copy,  # (ring, row) -> found: a checked copy of it
    ring_pop,        # (ring, row, payload, payload_room) -> 1, 0 when empty, -1 when the payload does not fit
    ring_release,    # (ring, lease): releases what ring_take took, in any order among several
    ring_take,       # (ring, most, lease) -> count: takes a run to read in place, 0 when empty
)
from .core._bulk cimport (
    ring_copy_out,   # (ring, count, rows, payload, payload_room) -> bytes written: copies events out, and releases them
    ring_measure,    # (ring, most, &payload_bytes) -> count: what ring_copy_out can copy
)
from .core._waiting cimport (
    ring_wait,       # (ring, timeout_ns, spin_ns) -> WaitResult; negative means no limit
)
from .core._claims cimport (
    ring_producer_gone,  # (ring) -> whether the producer has gone and everything of it was taken
)


cdef class EventRing:
    """One bounded ring over one block of memory. `ring` is what the functions above take."""

    cdef Ring ring
    cdef Py_buffer _block, _blocks
    cdef bint _has_block, _has_blocks
    cdef bint has_producer, has_consumer  # each end is handed out once
    cdef bint is_pin_logged               # a lease that arrays outlive was logged once
    cdef bint is_over                     # the consumer is closed: its role is free with its last lease

    # Raise CorruptRingError once the end has found that the shared block is not a ring.
    cdef int check_producer(self) except -1
    cdef int check_consumer(self) except -1
