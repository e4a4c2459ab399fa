# The checksum of a batch as a log stores it, for code that appends without making objects.

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef uint32_t batch_checksum(
    uint64_t core_id,
    uint64_t first,
    uint64_t last,
    uint64_t count,
    const uint8_t* rows,
    uint64_t rows_bytes,
    const uint8_t* payload,
    uint64_t payload_bytes,
) noexcept nogil
