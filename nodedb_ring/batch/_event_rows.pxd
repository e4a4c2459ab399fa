# The way between an event and a row.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ..core.layout cimport EventRow, PushResult, Ring
from ._event cimport WriteEvent


# Emits one event: no Python code runs, and nothing is allocated.
cdef PushResult push_event(Ring* ring, WriteEvent event) noexcept
# The event that a row describes; `payload` is what its offsets are into. Raises MemoryError, or as decode_text.
cdef WriteEvent event_from_row(const EventRow* row, const uint8_t* payload)
# A str of UTF-8. CorruptRingError where it is not: what is in a ring was checked when it was emitted.
cdef object decode_text(const char* start, uint32_t length)
# Writes an event's row and payload, back to back from `offset` on.
cdef void write_event(WriteEvent event, EventRow* row, uint8_t* payload, uint64_t offset) noexcept
