"""What the compiled decoder and the one in plain Python make of the same bytes: the same events, or both refuse."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from typing import Final

import msgpack

from nodedb_ring import EventBatch, RowSchema
from nodedb_ring.capture.postgres._copy import CopyReader
from nodedb_ring.capture.postgres._pgoutput import Decoder
from nodedb_ring.errors import CaptureError

from .messages import begin, commit, feed, relation
from .oracle import Oracle, OracleEvent, events_of
from .oracle_values import Refused

__all__ = ["Row", "agree_on_copy", "agree_on_messages", "agree_on_value", "change"]

T: Final = 16384
LSN: Final = 5

Row = Sequence[tuple[str, bytes]]
"""Of each column the letter of the protocol, and its text."""


def change(kind: bytes, *parts: tuple[bytes, Row], oid: int = T) -> bytes:
    """A message of one row or two, each behind its letter."""
    told = kind + struct.pack(">I", oid)
    for letter, fields in parts:
        told += letter + struct.pack(">H", len(fields))
        for status, text in fields:
            told += status.encode() + (struct.pack(">I", len(text)) + text if status == "t" else b"")
    return told


def agree_on_messages(messages: Sequence[bytes], after: tuple[int, int] = (0, 0)) -> bool:
    """Returns whether all of them are messages. `after` is what was delivered before."""
    events, refused = _of_oracle(messages)
    assert _of_decoder(messages) == (events, refused is not None)
    if after != (0, 0):
        # What was delivered before is not looked into again.
        messages = messages[:refused]
        assert _of_decoder(messages, after) == (_of_oracle(messages, after)[0], False)
    return refused is None


def agree_on_value(oid: int, text: bytes, keys: tuple[bool, bool] = (False, False)) -> bool:
    """In a row and as the old one of another. `keys` are of its column, and of one beside it that has nulls."""
    columns = [("v", oid, keys[0]), ("w", oid, keys[1])]
    value, null, same = ("t", text), ("n", b""), ("u", b"")
    insertion = change(b"I", (b"N", [value, null]))
    large = change(b"U", (b"O", [value, null]), (b"N", [same, value]))
    return agree_on_messages([relation(T, "public.t", columns), begin(LSN), insertion, large, commit(LSN)])


def agree_on_copy(columns: Sequence[tuple[str, int, bool]], data: bytes, sizes: Sequence[int]) -> bool:
    """Of rows that COPY sends in pieces of such sizes."""
    oracle, decoder = Oracle(), Decoder(1)
    described = relation(T, "public.t", columns)
    oracle.decode(described)
    oracle.start_snapshot(LSN)
    decoder.start_snapshot(LSN)
    decoder.describe(described)
    reader, is_refused, left = CopyReader(decoder, T, lambda: None), False, data
    try:
        for size in sizes:
            reader.write(left[:size])
            left = left[size:]
        reader.write(left)
        reader.finish()
    except CaptureError:
        is_refused = True
    *lines, rest = data.split(b"\n")
    expected = bool(rest)
    try:
        for line in lines:
            oracle.copy(T, line)
    except Refused:
        expected = True
    assert (_read(decoder.take()), is_refused) == (oracle.events, expected)
    return not is_refused


def _of_decoder(messages: Sequence[bytes], after: tuple[int, int] = (0, 0)) -> tuple[list[OracleEvent], bool]:
    """The events, and whether a message was refused."""
    decoder = Decoder(1)
    decoder.start(after_lsn=after[0], after_events=after[1])
    is_refused = False
    try:
        feed(decoder, *messages)
    except CaptureError:
        is_refused = True
    return _read(decoder.take()), is_refused


def _of_oracle(messages: Sequence[bytes], after: tuple[int, int] = (0, 0)) -> tuple[list[OracleEvent], int | None]:
    """The events, and which message was refused."""
    oracle = Oracle(after)
    for i, message in enumerate(messages):
        try:
            oracle.decode(message)
        except Refused:
            return oracle.events, i
    return oracle.events, None


def _read(batch: EventBatch) -> list[OracleEvent]:
    """Of a batch whose values can be read as rows, and as MessagePack."""
    events = events_of([batch])
    for field in ("new_value", "old_value"):
        values = [None if value is None else _pairs(value) for value in batch.values(field)]
        names = [[name for name, _ in pairs or ()] for pairs in values]
        schema = RowSchema(dict.fromkeys(filter(None, itertools.chain(*names)), "raw"))
        rows = batch.rows(field, schema)
        assert rows.present.tolist() == [value is not None for value in values]
        for i, found in enumerate(names):
            # A type of each column alone: one that another message has described anew has two.
            if all(found) and len(set(found)) == len(found):
                batch[i : i + 1].rows(field)
    return events


def _pairs(value: bytes) -> list[tuple[str, object]]:
    """The items of a map, with those that have the same name."""
    pairs: list[tuple[str, object]] = msgpack.unpackb(value, object_pairs_hook=list, timestamp=0, strict_map_key=True)
    return pairs
