# Whether rows from outside are events.

from libc.stdint cimport uint8_t, uint64_t

from ..core.layout cimport EventRow


# Refuses the first row that is not an event, with a BatchError that prints its value. `number` is the first row's.
cdef int check_rows(
    const EventRow* rows, uint64_t count, const uint8_t* payload, uint64_t payload_bytes, uint64_t number
) except -1
# 0 for a row that is an event, else what is wrong with it, in which field.
cdef int check_row(const EventRow* row, const uint8_t* payload, uint64_t payload_bytes, int* field) noexcept nogil
# Refuses a payload that is too large for one batch, with a BatchError.
cdef int check_payload_size(uint64_t size) except -1
# Copies rows and their payload, the payload to `offset` on, and then checks the copy. Whether all of them are events; if
# not, the copy is not to be used.
cdef bint copy_rows(
    EventRow* to,
    const void* rows,
    uint64_t count,
    uint8_t* base,
    uint64_t offset,
    const void* payload,
    uint64_t payload_bytes,
) noexcept nogil
