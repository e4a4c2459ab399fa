"""A batch, or a part of one, as a message of a JetStream stream: a head, the rows, the payload."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from ...batch.event_batch import EventBatch
from ...errors import CorruptLogError
from .. import MAX_BATCH_EVENTS
from ..encoding import EncodedBatch, decode_batch

__all__ = ["Head", "StoredMessage", "decode", "encode", "events_between", "head_of", "message_bytes"]

_MAGIC: Final = b"NRL1"
# Magic, count, core, first and last number, bytes of rows, checksum: in front of the rows and the payload.
_HEAD: Final = struct.Struct("<4sIQQQQI")


class Head(NamedTuple):
    """What stands in front of the rows."""

    events: int
    core_id: int
    first: int
    last: int
    rows_bytes: int
    checksum: int


class StoredMessage(NamedTuple):
    """A message as the server has it."""

    position: int
    message_id: str
    body: bytes
    head: Head


def message_bytes(encoded: EncodedBatch) -> int:
    """The size of a batch's message."""
    return _HEAD.size + len(encoded.rows) + len(encoded.payload)


def encode(encoded: EncodedBatch, core_id: int) -> bytes:
    """The message of a batch."""
    head = _HEAD.pack(_MAGIC, encoded.count, core_id, encoded.first, encoded.last, len(encoded.rows), encoded.checksum)
    return b"".join((head, encoded.rows, encoded.payload))


def head_of(body: bytes, core_id: int, position: int) -> Head:
    """The head of the message at a position of a core's stream.

    Raises
    ------
    CorruptLogError
        It is no batch of that core.
    """
    if len(body) < _HEAD.size or body[: len(_MAGIC)] != _MAGIC:
        raise CorruptLogError(
            f"core {core_id}, message {position}: {len(body)} bytes that are no batch; something else has written to"
            " the subject, or an event log of another version"
        )
    head = Head(*_HEAD.unpack_from(body)[1:])
    if head.core_id != core_id:
        raise CorruptLogError(f"core {core_id}, message {position}: is of core {head.core_id}")
    return head


def decode(stored: StoredMessage) -> EventBatch:
    """The batch of a message.

    Raises
    ------
    CorruptLogError
        It is not what was stored.
    """
    head = stored.head
    whole = memoryview(stored.body)
    split = _HEAD.size + head.rows_bytes
    return decode_batch(
        whole[_HEAD.size : split],
        whole[split:],
        head.checksum,
        core_id=head.core_id,
        first=head.first,
        last=head.last,
        count=head.events,
    )


def events_between(batch: EventBatch, first: int, last: int) -> Iterator[EventBatch]:
    """The events of a batch from `first` to `last`, in batches as large as a log hands out."""
    numbers = batch.sequence
    start = int(np.searchsorted(numbers, np.uint64(max(first, 0)), "left"))
    stop = int(np.searchsorted(numbers, np.uint64(min(last, 2**64 - 1)), "right"))
    for begin in range(start, stop, MAX_BATCH_EVENTS):
        yield batch[begin : min(stop, begin + MAX_BATCH_EVENTS)]
