# Events in bulk: rows and payload copied in and out in as few pieces as they lie in.

from libc.stdint cimport uint8_t, uint64_t

from .layout cimport EventRow, PushResult, Ring

# Returns how many went in, a prefix; the rest is dropped and counted. Offsets are into `payload`.
cdef uint64_t ring_push_rows(
    Ring* ring, const EventRow* rows, uint64_t count, const uint8_t* payload
) noexcept nogil
# The same without the dropping: what finds no room, or no consumer, as `why` then says, is left to the caller.
cdef uint64_t ring_fit_rows(
    Ring* ring, const EventRow* rows, uint64_t count, const uint8_t* payload, PushResult* why
) noexcept nogil
# And that for rows that lie packed in `payload`, one behind the other, the last up to `end`.
cdef uint64_t ring_fit_packed(
    Ring* ring, const EventRow* rows, uint64_t count, const uint8_t* payload, uint64_t end, PushResult* why
) noexcept nogil
cdef void ring_drop_rows(
    Ring* ring, const EventRow* rows, uint64_t done, uint64_t count, PushResult why
) noexcept nogil
# The payload of the first of the rows that no arena of this size could ever hold; 0 where each may fit.
cdef uint64_t ring_too_large(
    Ring* ring, const EventRow* rows, uint64_t count, uint64_t payload_bytes
) noexcept nogil

# How many events ring_copy_out can copy, at most `most`, and the payload bytes that takes.
cdef uint64_t ring_measure(Ring* ring, uint64_t most, uint64_t* payload_bytes) noexcept nogil
# Returns the bytes of payload written; the offsets of the copied rows are into it. On a shared ring every row is checked
# in its copy: one that cannot be makes this end corrupt, and nothing is released.
cdef uint64_t ring_copy_out(
    Ring* ring, uint64_t count, EventRow* rows, uint8_t* payload, uint64_t payload_room
) noexcept nogil
