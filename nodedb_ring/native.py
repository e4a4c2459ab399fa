"""A ring for compiled code that cannot cimport: Numba, ctypes, cffi.

``emit_rows``, ``take_rows`` and ``wait_rows`` are C functions, as ctypes function objects. Numba compiles calls to them
into nogil loops, ctypes calls them directly, and ``ctypes.cast(emit_rows, ctypes.c_void_p).value`` is the address
for other tools. They never raise. They check the calling thread, and ``emit_rows`` checks each row, before anything
happens. A negative result is an error, which ``check`` raises as an exception.

============================================================  ========================================================
``emit_rows(producer, rows, count, payload, payload_bytes)``  how many were enqueued, a prefix; the rest is dropped
``take_rows(consumer, rows, most, payload, payload_room)``    how many were copied out; 0 if nothing waits, ``ENDED`` if
                                                              no event will come
``wait_rows(consumer, timeout_ns)``                           1 if ``take_rows`` should be called, 0 at the timeout
============================================================  ========================================================

The first argument is the ``.ctypes`` of a ``handle``, `rows` that of an array of ``EVENT_DTYPE``, and `payload` that of
an array of uint8 to which the offsets of the rows refer. These requirements are not checked: arrays are contiguous and
at least as long as the counts passed with them, writable for ``take_rows``, and not modified during ``emit_rows``.

Thread safety
-------------
One thread at a time may use an end: call its ``bind()`` in that thread first. Do not close or bind an end, or fork,
while another thread is inside one of these functions. Only ``wait_rows`` notices a producer whose process was killed.
Signal handlers run only after the compiled code has returned to Python.
"""

from __future__ import annotations

import ctypes
from ctypes import c_int64, c_void_p
from typing import Final

import numpy as np
import numpy.typing as npt

from .ends._consumer import EventConsumer
from .ends._native import addresses, end_bytes
from .ends._producer import EventProducer
from .errors import BatchError, ClosedError, CorruptRingError, EventTooLargeError, OwnershipError

__all__ = ["ENDED", "check", "emit_rows", "handle", "take_rows", "wait_rows"]

ENDED: Final = -1
"""Result of ``take_rows`` when the producer has closed or died and all of its events were taken."""

_REFUSALS: Final[dict[int, tuple[type[Exception], str]]] = {
    -2: (TypeError, "the first argument must be handle(end).ctypes of this end"),
    -3: (ClosedError, "the end is closed, or has an open reservation"),
    -4: (OwnershipError, "the end belongs to another thread, or was inherited by fork: call its bind() in this thread"),
    -5: (
        BatchError,
        "a row is not a valid event, and nothing was emitted: EventBatch(rows, payload) raises an error that names it",
    ),
    -6: (
        EventTooLargeError,
        "an event is larger than the whole arena, and nothing was emitted: increase arena_bytes",
    ),
    -7: (ValueError, "the next event has more payload than payload_room and stays in the ring: pass a larger array"),
    -8: (CorruptRingError, "something else has written to the shared block: close the end, and create the bus again"),
}
_EMIT, _TAKE, _WAIT = addresses()
_ROWS: Final = ctypes.CFUNCTYPE(c_int64, c_void_p, c_void_p, c_int64, c_void_p, c_int64)

emit_rows: Final = _ROWS(_EMIT)
"""Emits rows in order; returns how many were enqueued."""
take_rows: Final = _ROWS(_TAKE)
"""Copies waiting events out; returns how many."""
wait_rows: Final = ctypes.CFUNCTYPE(c_int64, c_void_p, c_int64)(_WAIT)
"""Sleeps until there may be an event to take, at most ``timeout_ns`` nanoseconds."""


def handle(end: EventProducer | EventConsumer) -> npt.NDArray[np.uint8]:
    """Returns a read-only array that stands for an end: pass its ``.ctypes`` to the C functions.

    The array keeps the end alive, and so its memory valid. It is meaningless in another process.
    """
    return np.frombuffer(end_bytes(end), np.uint8)


def check(result: int) -> int:
    """Returns a count or ``ENDED`` unchanged; raises an exception for any other negative result.

    Raises
    ------
    ClosedError, OwnershipError, BatchError, EventTooLargeError, CorruptRingError
        As ``emit_batch`` and ``drain`` do.
    TypeError, ValueError
        The argument is not a handle of that end; too little room for the next event's payload.
    """
    refusal = _REFUSALS.get(result)
    if refusal is None:
        return result
    kind, why = refusal
    raise kind(why)
