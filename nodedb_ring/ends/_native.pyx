# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""The compiled half of ``native``: what Numba, ctypes and cffi call, by address and without the GIL.

The functions of ``_ring.pxd`` check nothing, which is right for code that is compiled against the types. What comes out of
a script is checked: who calls, whether the end is open, and whether each row is an event. That is done for all rows before
the first is emitted, and costs about as much as copying them.
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo

from ..core._bulk cimport ring_copy_out, ring_measure, ring_push_rows, ring_too_large
from ..core._claims cimport ring_producer_gone, thread_token
from ..core._waiting cimport ring_arm, ring_wait
from ..core._waking cimport ring_wake
from ..core.atomic cimport store_relaxed, unlikely
from ..core.layout cimport NULL_LENGTH, SOUND, WAIT_READY
from ..batch._row_checks cimport check_row
from ._consumer cimport EventConsumer
from ._producer cimport EventProducer
from .timeout cimport DEFAULT_SPIN_NS

__all__ = ["addresses", "end_bytes"]

cdef enum:
    PRODUCER_KIND = 0x70646E65  # "endp" and "endc", so that no other array passes for a handle
    CONSUMER_KIND = 0x63646E65


cdef int64_t emit_rows(
    const NativeEnd* producer, const EventRow* rows, int64_t count, const uint8_t* payload, int64_t payload_bytes
) noexcept nogil:
    """Emits rows in order; how many went in, a prefix. The rest is dropped and counted, as by ``emit_batch``."""
    cdef Ring* ring
    cdef uint64_t done
    cdef int64_t i
    cdef int field
    if producer == NULL or producer.kind != PRODUCER_KIND ^ <uint64_t>producer:
        return NATIVE_NO_HANDLE
    ring = producer.ring
    if unlikely(ring.local.producer.corrupt != SOUND):
        return NATIVE_CORRUPT
    if unlikely(producer.status[0]):
        return NATIVE_CLOSED
    if unlikely(ring.local.producer.owner != thread_token()):
        return NATIVE_NOT_OWNER
    if count < 0 or payload_bytes < 0 or payload_bytes >= <int64_t>NULL_LENGTH:
        return NATIVE_BAD_ROWS
    for i in range(count):
        if unlikely(check_row(rows + i, payload, payload_bytes, &field) != 0):
            return NATIVE_BAD_ROWS
    if ring_too_large(ring, rows, count, payload_bytes) != 0:
        return NATIVE_TOO_LARGE
    done = ring_push_rows(ring, rows, count, payload)
    return NATIVE_CORRUPT if unlikely(ring.local.producer.corrupt != SOUND) else <int64_t>done


cdef inline int64_t _refusal(const NativeEnd* consumer) noexcept nogil:
    if consumer == NULL or consumer.kind != CONSUMER_KIND ^ <uint64_t>consumer:
        return NATIVE_NO_HANDLE
    if unlikely(consumer.ring.local.consumer.corrupt != SOUND):
        return NATIVE_CORRUPT
    if unlikely(consumer.status[0]):
        return NATIVE_CLOSED
    if unlikely(consumer.ring.local.consumer.owner != thread_token()):
        return NATIVE_NOT_OWNER
    return 0


cdef int64_t take_rows(
    const NativeEnd* consumer, EventRow* rows, int64_t most, uint8_t* payload, int64_t payload_room
) noexcept nogil:
    """Takes what waits, at most `most` events and no more payload than there is room for, as copies; how many."""
    cdef int64_t refused = _refusal(consumer)
    cdef Ring* ring
    cdef uint64_t count, fits, beyond, middle, size
    if refused:
        return refused
    ring = consumer.ring
    if most <= 0 or payload_room < 0:
        return 0
    count = ring_measure(ring, most, &size)
    if unlikely(ring.local.consumer.corrupt != SOUND):
        return NATIVE_CORRUPT
    if count == 0:
        if unlikely(consumer.watched[0]) and ring_arm(ring):
            ring_wake(ring)
        return NATIVE_ENDED if ring_producer_gone(ring) else 0
    if size > <uint64_t>payload_room:
        # The most events whose payload fits: it grows with their number.
        fits, beyond = 0, count
        while beyond - fits > 1:
            middle = (fits + beyond) // 2
            ring_measure(ring, middle, &size)
            if size > <uint64_t>payload_room:
                beyond = middle
            else:
                fits = middle
        if fits == 0:
            return NATIVE_NO_ROOM
        count = fits
    ring_copy_out(ring, count, rows, payload, payload_room)
    if unlikely(ring.local.consumer.corrupt != SOUND):
        return NATIVE_CORRUPT
    store_relaxed(&ring.header.batches, ring.header.batches + 1)
    return count


cdef int64_t wait_rows(const NativeEnd* consumer, int64_t timeout_ns) noexcept nogil:
    """Sleeps until there is something to take or an end has gone: 1, or 0 when the time is over, or a signal came."""
    cdef int64_t refused = _refusal(consumer)
    if refused:
        return refused
    return 1 if ring_wait(consumer.ring, max(timeout_ns, <int64_t>0), DEFAULT_SPIN_NS) == WAIT_READY else 0


@cython.final
cdef class _Handle:
    """The bytes of a ``NativeEnd``, to be seen through an array. They live as long as it does, and the end with them."""

    cdef NativeEnd _end
    cdef object _kept

    def __cinit__(self, end):
        cdef EventProducer producer
        cdef EventConsumer consumer
        if isinstance(end, EventProducer):
            producer = end
            self._end.kind = PRODUCER_KIND ^ <uint64_t>&self._end
            self._end.ring = &producer.ring.ring
            self._end.status = &producer._status
        elif isinstance(end, EventConsumer):
            consumer = end
            self._end.kind = CONSUMER_KIND ^ <uint64_t>&self._end
            self._end.ring = &consumer.ring.ring
            self._end.status = <const int*>&consumer._closed
            self._end.watched = <const int*>&consumer._is_watched
        else:
            raise TypeError(f"{end!r}: must be an EventProducer or an EventConsumer")
        self._kept = end

    def __reduce__(self):
        raise TypeError("a handle is an address in this process, and cannot be pickled")

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, &self._end, sizeof(NativeEnd), True, flags)


def end_bytes(end):
    """The ``NativeEnd`` of a producer or a consumer, read-only."""
    return memoryview(_Handle(end))


def addresses():
    """The C addresses of ``emit_rows``, ``take_rows`` and ``wait_rows``."""
    return <size_t>&emit_rows, <size_t>&take_rows, <size_t>&wait_rows
