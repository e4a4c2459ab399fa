"""Numba writes the rows and Numba reads them: both ends of a ring in compiled loops, without the GIL.

Needs numba (``pip install nodedb_ring[examples]``). Run: ``python examples/numba_rows.py``

``nodedb_ring.native`` has a ring's functions for code that cannot cimport. An end travels as a handle, an array that
keeps it alive; rows are arrays of ``EVENT_DTYPE``. Whoever calls must own the end, and every row is checked before the
first is emitted.
"""

import threading
from typing import TypeAlias

import numba
import numpy as np
import numpy.typing as npt

from nodedb_ring import EVENT_DTYPE, EventBatch, EventProducer, WriteOp, create_event_bus
from nodedb_ring.native import ENDED, check, emit_rows, handle, take_rows, wait_rows

EVENTS, BATCH = 60_000, 512  # no more events than the ring has slots: nothing is dropped, however slow the reader
# What the rows have in common: each is an insert into "randwalk".
TEXT_BYTES = 8
TEMPLATE = EventBatch.from_columns(
    sequence=[0], lsn=0, op=WriteOp.INSERT, collection="randwalk", row_id="", new_value=bytes(8)
).records
Bytes: TypeAlias = npt.NDArray[np.uint8]
Rows: TypeAlias = npt.NDArray[np.void]


@numba.njit(nogil=True)
def step(n: int) -> int:
    """The value of event n."""
    return n * n % 1009 - 504


@numba.njit(nogil=True)
def write(end: Bytes, rows: Rows, payload: Bytes, events: int) -> int:
    """Emits events 1 to `events`, a batch at a time; how many went in. The rest the ring dropped, and counted."""
    values = payload[TEXT_BYTES:].view(np.int64)
    done = 0
    for first in range(1, events + 1, len(rows)):
        count = min(len(rows), events + 1 - first)
        for i in range(count):
            rows[i].sequence = first + i
            values[i] = step(first + i)
        result: int = emit_rows(end.ctypes, rows.ctypes, count, payload.ctypes, payload.size)
        if result < 0:
            return result
        done += result
    return done


@numba.njit(nogil=True)
def read(end: Bytes, rows: Rows, payload: Bytes) -> tuple[int, int, int]:
    """Takes what comes while something does: how it ended, how many came, the sum of their values."""
    done = total = 0
    while True:
        count = take_rows(end.ctypes, rows.ctypes, len(rows), payload.ctypes, payload.size)
        if count < 0:
            return count, done, total
        if count == 0 and wait_rows(end.ctypes, 100_000_000) == 0:
            return 0, done, total  # back to Python now and then, which answers Ctrl-C
        for i in range(count):
            at = rows[i].new_value_offset
            total += payload[at : at + 8].view(np.int64)[0]
        done += count


def emit(producer: EventProducer) -> None:
    """Lays out the rows once: the compiled loop fills in numbers and values."""
    with producer:  # closed whatever happens: the reader waits for that
        rows = np.repeat(TEMPLATE, BATCH)
        rows["new_value_offset"] = TEXT_BYTES + 8 * np.arange(BATCH)
        payload = np.frombuffer(bytearray(b"randwalk" + bytes(8 * BATCH)), np.uint8)
        producer.bind()
        sent = check(write(handle(producer), rows, payload, EVENTS))
    assert sent == EVENTS


def main() -> None:
    """A thread writes, and this one reads."""
    (producer,), (consumer,) = create_event_bus(1)
    thread = threading.Thread(target=emit, args=(producer,))
    thread.start()
    consumer.bind()
    end, rows, payload = handle(consumer), np.empty(BATCH, EVENT_DTYPE), np.empty(64 * BATCH, np.uint8)
    events = total = result = 0
    while result != ENDED:
        result, taken, part = read(end, rows, payload)
        events, total = events + taken, total + part
        check(result)
    thread.join()
    numbers = np.arange(1, EVENTS + 1)
    assert (events, total) == (EVENTS, (numbers * numbers % 1009 - 504).sum())
    print(f"{events} events, the sum of their values is {total}")


if __name__ == "__main__":
    main()
