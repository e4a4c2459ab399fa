"""A ring for compiled code that cannot cimport: Numba, ctypes, cffi.

``emit_rows``, ``take_rows`` and ``wait_rows`` are C functions, as ctypes function objects: Numba compiles calls to them
into nogil loops, ctypes calls them as they are, and ``ctypes.cast(emit_rows, ctypes.c_void_p).value`` is the address
for everything else. They never raise. They check who calls, and ``emit_rows`` each row, before anything happens; a
negative result is what was wrong, and ``check`` raises it as an exception.

============================================================  ========================================================
``emit_rows(producer, rows, count, payload, payload_bytes)``  how many went in, a prefix; the rest is dropped, counted
``take_rows(consumer, rows, most, payload, payload_room)``    how many were copied out; 0 when nothing waits, ``ENDED``
                                                              when nothing will
``wait_rows(consumer, timeout_ns)``                           1 when it is time to take, 0 when the time is over
============================================================  ========================================================

The first argument is the ``.ctypes`` of a ``handle``, `rows` that of an array of ``EVENT_DTYPE``, `payload` that of an
array of uint8 which the offsets of the rows are into. What cannot be checked is left to you: arrays as long as the
counts beside them say, contiguous, writable for ``take_rows``, and that nobody writes to them during ``emit_rows``.

Thread safety
-------------
One thread works an end, as everywhere: call its ``bind()`` in that thread first. Do not close or bind an end, or fork,
while another thread is inside one of these functions. A producer whose process was killed is noticed by ``wait_rows``
alone; and signal handlers run only once the compiled code has returned to Python.
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
"""What ``take_rows`` returns once the producer has gone and everything of it was taken."""

_REFUSALS: Final[dict[int, tuple[type[Exception], str]]] = {
    -2: (TypeError, "the first argument: must be the .ctypes of what handle() returned for this end"),
    -3: (ClosedError, "the end is closed, or has an open reservation"),
    -4: (OwnershipError, "the end belongs to another thread, or was inherited by fork: call its bind() in this thread"),
    -5: (BatchError, "a row is no event, and nothing was emitted: EventBatch(rows, payload) tells which, and why"),
    -6: (
        EventTooLargeError,
        "an event is larger than the whole arena, and nothing was emitted: raise arena_bytes",
    ),
    -7: (ValueError, "the next event has more payload than payload_room; it waits still: come with a larger array"),
    -8: (CorruptRingError, "something else has written to the shared block: close the end, and make the bus anew"),
}
_EMIT, _TAKE, _WAIT = addresses()
_ROWS: Final = ctypes.CFUNCTYPE(c_int64, c_void_p, c_void_p, c_int64, c_void_p, c_int64)

emit_rows: Final = _ROWS(_EMIT)
"""Emits rows in order; returns how many went in."""
take_rows: Final = _ROWS(_TAKE)
"""Takes what waits, as copies; returns how many."""
wait_rows: Final = ctypes.CFUNCTYPE(c_int64, c_void_p, c_int64)(_WAIT)
"""Sleeps until there may be something to take, at most so many nanoseconds."""


def handle(end: EventProducer | EventConsumer) -> npt.NDArray[np.uint8]:
    """An end, as C functions take it: pass the array's ``.ctypes`` to them, and the array itself to whoever calls them.

    The array keeps the end alive, and so its memory valid. It means nothing in another process.
    """
    return np.frombuffer(end_bytes(end), np.uint8)


def check(result: int) -> int:
    """Returns a count, or ``ENDED``, as it is; raises for every other negative result.

    Raises
    ------
    ClosedError, OwnershipError, BatchError, EventTooLargeError, CorruptRingError
        As ``emit_batch`` and ``drain`` do.
    TypeError, ValueError
        No handle of that end; too little room for the next event's payload.
    """
    refusal = _REFUSALS.get(result)
    if refusal is None:
        return result
    kind, why = refusal
    raise kind(why)
