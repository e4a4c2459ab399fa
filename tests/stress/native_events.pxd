# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Events of the native traffic: every byte follows from the sequence number.

So the consumer can tell a torn, stale or misplaced row or payload from the right one.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from nodedb_ring._ring cimport FIELD_COUNT, NULL_LENGTH, EventRow


cdef inline uint64_t mix(uint64_t x) noexcept nogil:
    """Scatters the bits of a number (the finalizer of splitmix64)."""
    x += 0x9E3779B97F4A7C15ULL
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL
    return x ^ (x >> 31)


cdef inline uint8_t payload_byte(uint64_t word, uint32_t at) noexcept nogil:
    return <uint8_t>((word >> ((at & 7) * 8)) + (at >> 3))


cdef inline uint32_t payload_size(uint64_t sequence, uint32_t most) noexcept nogil:
    return <uint32_t>(mix(~sequence) % (<uint64_t>most + 1))


cdef inline uint32_t field_length(uint64_t sequence, uint32_t size, int k, uint32_t before) noexcept nogil:
    """Length of field `k` of an event of `size` bytes of payload, `before` of them in the fields before it."""
    if k == FIELD_COUNT - 1:
        return size - before
    if (mix(sequence + k) & 7) == 0 and k >= 2:
        return NULL_LENGTH
    return <uint32_t>(mix(sequence ^ <uint64_t>k) % (<uint64_t>(size - before) + 1)) // 2


cdef inline void write_event(
    EventRow* row, uint64_t sequence, uint32_t most, uint8_t* payload, uint32_t offset, uint32_t* size
) noexcept nogil:
    """Fills in a row, and its payload at `payload + offset`."""
    cdef uint64_t word = mix(sequence)
    cdef uint32_t before = 0, length, i
    cdef int k
    size[0] = payload_size(sequence, most)
    row.sequence = sequence
    row.lsn = word
    row.tenant_id = ~sequence
    row.system_time_ms = <int64_t>(word >> 1)
    row.valid_time_ms = -<int64_t>(word >> 1)
    row.vshard_id = <uint32_t>word
    row.count = most
    row.op = <uint8_t>(1 + sequence % 6)
    row.source = <uint8_t>(sequence % 5)
    for k in range(FIELD_COUNT):
        length = field_length(sequence, size[0], k, before)
        row.field[k].offset = offset + before
        row.field[k].length = length
        if length != NULL_LENGTH:
            before += length
    for i in range(size[0]):
        payload[offset + i] = payload_byte(word, i)


cdef inline bint is_event(const EventRow* row, const uint8_t* payload, uint32_t most) noexcept nogil:
    """Whether a row and its payload are what write_event makes of its sequence number."""
    cdef uint64_t sequence = row.sequence, word = mix(row.sequence)
    cdef uint32_t before = 0, length, size, i
    cdef int k
    if row.count != most and row.count != 0:
        return False
    size = payload_size(sequence, row.count)
    if not (
        row.lsn == word and row.tenant_id == ~sequence and row.system_time_ms == <int64_t>(word >> 1)
        and row.valid_time_ms == -<int64_t>(word >> 1) and row.vshard_id == <uint32_t>word
        and row.op == 1 + sequence % 6 and row.source == sequence % 5
    ):
        return False
    for k in range(FIELD_COUNT):
        length = field_length(sequence, size, k, before)
        if row.field[k].length != length or row.field[k].offset != row.field[0].offset + before:
            return False
        if length != NULL_LENGTH:
            for i in range(length):
                if payload[row.field[k].offset + i] != payload_byte(word, before + i):
                    return False
            before += length
    return True
