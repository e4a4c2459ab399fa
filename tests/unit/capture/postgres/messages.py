"""Messages of ``pgoutput`` as a test wants them, and what the decoder makes of them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from nodedb_ring import EventBatch
from nodedb_ring.capture.postgres._pgoutput import Decoder

INT4, TEXT, BYTEA, BOOL, FLOAT8, NUMERIC = 23, 25, 17, 16, 701, 1700
EPOCH_US = 946_684_800_000_000

Value = str | None
UNCHANGED = "\0unchanged"


class Payload(NamedTuple):
    payload: bytes


def begin(lsn: int, time_us: int = 0) -> bytes:
    return struct.pack(">cQqI", b"B", lsn, time_us - EPOCH_US, 7)


def commit(lsn: int, end: int | None = None) -> bytes:
    return struct.pack(">cBQQq", b"C", 0, lsn, lsn + 8 if end is None else end, 0)


def relation(oid: int, name: str, columns: Sequence[tuple[str, int, bool]], identity: bytes = b"d") -> bytes:
    schema, table = name.split(".")
    told = struct.pack(">cI", b"R", oid) + schema.encode() + b"\0" + table.encode() + b"\0" + identity
    told += struct.pack(">H", len(columns))
    for column, type_oid, is_key in columns:
        told += bytes([is_key]) + column.encode() + b"\0" + struct.pack(">Ii", type_oid, -1)
    return told


def row(*values: Value) -> bytes:
    told = struct.pack(">H", len(values))
    for value in values:
        if value is None:
            told += b"n"
        elif value == UNCHANGED:
            told += b"u"
        else:
            told += b"t" + struct.pack(">I", len(value.encode())) + value.encode()
    return told


def insert(oid: int, *values: Value) -> bytes:
    return struct.pack(">cIc", b"I", oid, b"N") + row(*values)


def update(oid: int, new: Sequence[Value], *, key: Sequence[Value] = (), old: Sequence[Value] = ()) -> bytes:
    told = struct.pack(">cI", b"U", oid)
    told += b"K" + row(*key) if key else b"O" + row(*old) if old else b""
    return told + b"N" + row(*new)


def delete(oid: int, *, key: Sequence[Value] = (), old: Sequence[Value] = ()) -> bytes:
    return struct.pack(">cI", b"D", oid) + (b"K" + row(*key) if key else b"O" + row(*old))


def truncate(*oids: int) -> bytes:
    return struct.pack(f">cIB{len(oids)}I", b"T", len(oids), 0, *oids)


def decoded(*messages: bytes, after: tuple[int, int] = (0, 0)) -> EventBatch:
    decoder = Decoder(1)
    decoder.start(after_lsn=after[0], after_events=after[1])
    feed(decoder, *messages)
    return decoder.take()


def feed(decoder: Decoder, *messages: bytes) -> None:
    left = [Payload(message) for message in reversed(messages)]
    while left and not decoder.is_large:
        decoder.read(lambda: left.pop() if left else None)
