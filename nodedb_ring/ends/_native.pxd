# A ring for compiled code that has no .pxd to cimport: functions with a C address, which check what they are given.
# Results at or above 0 are counts; those below are a NativeResult.

from libc.stdint cimport int64_t, uint8_t, uint64_t

from ..core.layout cimport EventRow, Ring

ctypedef enum NativeResult:
    NATIVE_ENDED = -1         # the producer has gone, and everything was taken
    NATIVE_NO_HANDLE = -2     # not what handle() returned, or that of the other end
    NATIVE_CLOSED = -3        # or a reservation is open
    NATIVE_NOT_OWNER = -4     # another thread's, or inherited by fork
    NATIVE_BAD_ROWS = -5      # one of the rows is not an event; nothing was emitted
    NATIVE_TOO_LARGE = -6     # one of the events could never fit; nothing was emitted
    NATIVE_NO_ROOM = -7       # the next event has more payload than there is room for; it is still there
    NATIVE_CORRUPT = -8       # the shared block is not a ring any more

ctypedef struct NativeEnd:
    uint64_t kind             # which end this is, by its own address: a copy, or another process's, is not a handle
    Ring* ring
    const int* status         # not 0: closed, or reserved
    const int* watched        # of a consumer, not 0: its descriptor is to show the next event

cdef int64_t emit_rows(
    const NativeEnd* producer, const EventRow* rows, int64_t count, const uint8_t* payload, int64_t payload_bytes
) noexcept nogil
cdef int64_t take_rows(
    const NativeEnd* consumer, EventRow* rows, int64_t most, uint8_t* payload, int64_t payload_room
) noexcept nogil
cdef int64_t wait_rows(const NativeEnd* consumer, int64_t timeout_ns) noexcept nogil
