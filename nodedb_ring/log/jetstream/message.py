"""A batch, or a part of one, as a message of a JetStream stream: a header, the rows, the payload."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from ...batch._event_batch import EventBatch
from ...errors import CorruptLogError
from .. import MAX_BATCH_EVENTS
from ..encoding import EncodedBatch, decode_batch

__all__ = ["Header", "StoredMessage", "decode", "encode", "events_between", "header_of", "message_bytes"]

_MAGIC: Final = b"NRL1"
# The header of a message: magic, events, core, first and last number, bytes of rows, checksum.
_HEADER: Final = struct.Struct("<4sIQQQQI")


class Header(NamedTuple):
    """What precedes the rows."""

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
    header: Header


def message_bytes(encoded: EncodedBatch) -> int:
    """The size of a batch's message."""
    return _HEADER.size + len(encoded.rows) + len(encoded.payload)


def encode(encoded: EncodedBatch, core_id: int) -> bytes:
    """The message of a batch."""
    header = _HEADER.pack(
        _MAGIC, encoded.count, core_id, encoded.first, encoded.last, len(encoded.rows), encoded.checksum
    )
    return b"".join((header, encoded.rows, encoded.payload))


def header_of(body: bytes, core_id: int, position: int) -> Header:
    """The header of the message at a position of a core's stream.

    Raises
    ------
    CorruptLogError
        It is not a batch of that core.
    """
    if len(body) < _HEADER.size or body[: len(_MAGIC)] != _MAGIC:
        raise CorruptLogError(
            f"core {core_id}, message {position}: {len(body)} bytes that are no batch; something else has written to"
            " the subject, or an event log of another version"
        )
    header = Header(*_HEADER.unpack_from(body)[1:])
    if header.core_id != core_id:
        raise CorruptLogError(f"core {core_id}, message {position}: is of core {header.core_id}")
    return header


def decode(stored: StoredMessage) -> EventBatch:
    """The batch of a message.

    Raises
    ------
    CorruptLogError
        The message is damaged.
    """
    header = stored.header
    whole = memoryview(stored.body)
    split = _HEADER.size + header.rows_bytes
    return decode_batch(
        whole[_HEADER.size : split],
        whole[split:],
        header.checksum,
        core_id=header.core_id,
        first=header.first,
        last=header.last,
        count=header.events,
    )


def events_between(batch: EventBatch, first: int, last: int) -> Iterator[EventBatch]:
    """The events of a batch from `first` to `last`, in batches of at most `MAX_BATCH_EVENTS`."""
    numbers = batch.sequence
    start = int(np.searchsorted(numbers, np.uint64(max(first, 0)), "left"))
    stop = int(np.searchsorted(numbers, np.uint64(min(last, 2**64 - 1)), "right"))
    for begin in range(start, stop, MAX_BATCH_EVENTS):
        yield batch[begin : min(stop, begin + MAX_BATCH_EVENTS)]
