"""A batch as a log stores it: its rows, its payload, and a checksum over both and over the numbers beside them."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import numpy as np

from ..batch._event_batch import EventBatch
from ..batch._packing import pack
from ..batch._row_checks import checked_copy
from ..batch.schema import EVENT_DTYPE
from ..errors import BatchError, CorruptLogError, LogConflictError
from ._checksum import ENCODING_VERSION as _VERSION
from ._checksum import checksum as checksum_of

__all__ = ["ENCODING_VERSION", "EncodedBatch", "check_rising", "decode_batch", "encode_batch"]

ENCODING_VERSION: Final = _VERSION
"""The version of the encoding. The checksum covers it, so a batch of another version does not decode."""

_ROW_BYTES: Final = EVENT_DTYPE.itemsize


@dataclasses.dataclass(frozen=True, slots=True)
class EncodedBatch:
    """What to store of one batch, which is not empty.

    Attributes
    ----------
    first, last : int
        Its first and its last sequence number.
    count : int
        Its events.
    rows, payload : memoryview
        Bytes of ``EVENT_DTYPE``, and the bytes that their offsets refer to. Views of a packed batch's memory.
    checksum : int
        CRC-32C of the numbers above, the core, the rows and the payload.
    """

    first: int
    last: int
    count: int
    rows: memoryview
    payload: memoryview
    checksum: int


def check_rising(batch: EventBatch, above: int | None = None) -> None:
    """Refuses a batch whose numbers do not rise strictly, or do not begin above `above`.

    Raises
    ------
    LogConflictError
    """
    if not len(batch):
        return
    numbers = batch.sequence
    first = int(numbers[0])
    if above is not None and first <= above:
        raise LogConflictError(
            f"sequence {first}: the log has {above} already; number events from {above + 1} on,"
            " and let no other writer append to this core"
        )
    place = batch._block.first_not_rising()  # pyright: ignore[reportPrivateUsage]
    if place != len(batch):
        raise LogConflictError(
            f"sequence {int(numbers[place])} of event {place} follows {int(numbers[place - 1])}:"
            " numbers of a batch must rise strictly"
        )


def encode_batch(batch: EventBatch, *, core_id: int) -> EncodedBatch:
    """What to store of a batch of core `core_id`: a slice or the batch of a lease is packed first.

    Raises
    ------
    ValueError
        The batch is empty.
    LogConflictError
        The numbers do not rise strictly.
    """
    if not len(batch):
        raise ValueError("an empty batch: there is nothing to store")
    check_rising(batch)
    block = batch._block  # pyright: ignore[reportPrivateUsage]
    if not block.fills_payload():
        block = pack([block])
    records, payload = block.records(), block.payload()
    # The rows have columns that only a ring uses. They are stored as they are, and never read.
    rows = records.view(np.uint8).data
    body = payload.data
    first, last, count = int(records["sequence"][0]), int(records["sequence"][-1]), len(records)
    return EncodedBatch(first, last, count, rows, body, _checksum((core_id, first, last, count), rows, body))


def decode_batch(
    rows: Any, payload: Any, checksum: Any, *, core_id: int, first: Any, last: Any, count: Any
) -> EventBatch:
    """The batch that was stored, which owns its memory. The arguments may be anything that a damaged log holds.

    Raises
    ------
    CorruptLogError
        It is not what was stored. The message names the core and the numbers.
    """

    def corrupt(what: str) -> CorruptLogError:
        return CorruptLogError(
            f"core {core_id}, events {first} to {last}: {what}; restore the log from a copy, or trim it to {last}"
        )

    if not all(isinstance(number, int) and 0 <= number < 2**64 for number in (first, last, count, checksum)):
        raise corrupt(f"stored beside count {count!r} and checksum {checksum!r}, and those are not all numbers")
    if not (isinstance(rows, bytes | memoryview) and isinstance(payload, bytes | memoryview)):
        raise corrupt(f"rows of {type(rows).__name__}, payload of {type(payload).__name__}: both must be bytes")
    if len(rows) != count * _ROW_BYTES or count == 0:
        raise corrupt(f"{len(rows)} bytes of rows for {count} events of {_ROW_BYTES} bytes")
    found = _checksum((core_id, first, last, count), rows, payload)
    if found != checksum:
        raise corrupt(f"checksum {found:#010x}, stored was {checksum:#010x}")
    try:
        block = checked_copy(np.frombuffer(rows, np.uint8), np.frombuffer(payload, np.uint8))
    except BatchError as error:
        raise corrupt(str(error)) from error
    batch = EventBatch._over(block)  # pyright: ignore[reportPrivateUsage]
    numbers = batch.sequence
    if int(numbers[0]) != first or int(numbers[-1]) != last or not bool((numbers[1:] > numbers[:-1]).all()):
        raise corrupt(f"rows from {int(numbers[0])} to {int(numbers[-1])} do not rise from the one to the other")
    return batch


def _checksum(numbers: tuple[int, int, int, int], rows: bytes | memoryview, payload: bytes | memoryview) -> int:
    return checksum_of(*numbers, rows, payload)
