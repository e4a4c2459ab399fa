"""A decoder of ``pgoutput`` in plain Python: messages to events, whole or refused.

Written from the chapter "Logical Replication Message Formats" of PostgreSQL's documentation, and from
docs/postgres.md, to compare the compiled decoder with.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from nodedb_ring import EventBatch, WriteOp
from nodedb_ring.batch.schema import NO_TIME

from .oracle_values import Refused, key_of, packed_map, unicode, value_of

__all__ = ["Column", "Oracle", "OracleEvent", "Relation", "events_of"]

EPOCH_US: Final = 946_684_800_000_000
MOST_COLUMNS: Final = 1664

Row = list[tuple[str, bytes]]
"""Of each column the letter of the protocol, and its text."""


class OracleEvent(NamedTuple):
    """What an event has, with its values as MessagePack."""

    op: WriteOp
    collection: str
    row_id: str
    old_value: bytes | None
    new_value: bytes | None
    lsn: int
    time_ms: int
    rows: int = 1


class Column(NamedTuple):
    name: str
    oid: int
    is_key: bool


class Relation(NamedTuple):
    collection: str
    columns: tuple[Column, ...]


class _Input:
    """A message that is read from its beginning."""

    def __init__(self, message: bytes) -> None:
        self.left = message

    def bytes(self, size: int) -> bytes:
        if size > len(self.left):
            raise Refused
        taken, self.left = self.left[:size], self.left[size:]
        return taken

    def number(self, letter: str) -> int:
        [value] = struct.unpack(">" + letter, self.bytes(struct.calcsize(letter)))
        return int(value)

    def name(self) -> str:
        name, zero, self.left = self.left.partition(b"\0")
        if not zero:
            raise Refused
        return unicode(name)

    def end(self) -> None:
        if self.left:
            raise Refused


class Oracle:
    """Messages to events."""

    def __init__(self, after: tuple[int, int] = (0, 0)) -> None:
        self.after = after
        self.relations: dict[int, Relation] = {}
        self.lsn, self.time_ms, self.number = 0, 0, 0
        self.is_inside = False
        self.events: list[OracleEvent] = []

    def decode(self, message: bytes) -> None:
        """A message that is refused changes nothing."""
        number, count = self.number, len(self.events)
        try:
            self._decode(_Input(message))
        except Refused:
            self.number = number
            del self.events[count:]
            raise

    def _decode(self, left: _Input) -> None:
        kind = left.bytes(1)
        kinds: dict[bytes, Callable[[_Input], None]] = {
            b"B": self._begin,
            b"C": self._commit,
            b"R": self._relation,
            b"I": self._insert,
            b"U": self._update,
            b"D": self._delete,
            b"T": self._truncate,
        }
        # Types, origins and messages of the application are not looked into.
        if kind in (b"Y", b"O", b"M"):
            return
        if kind not in kinds or (kind in (b"I", b"U", b"D", b"T") and not self.is_inside):
            raise Refused
        kinds[kind](left)

    def _begin(self, left: _Input) -> None:
        lsn, time_us, _xid = left.number("Q"), left.number("q"), left.number("I")
        left.end()
        if self.is_inside:
            raise Refused
        self.is_inside = True
        # The millisecond in which it is, also before 1970.
        self.lsn, self.time_ms, self.number = lsn, time_us // 1000 + EPOCH_US // 1000, 0

    def _commit(self, left: _Input) -> None:
        _flags, lsn, _end, _time = left.number("B"), left.number("Q"), left.number("Q"), left.number("q")
        left.end()
        if not self.is_inside or lsn != self.lsn:
            raise Refused
        self.is_inside = False

    def _relation(self, left: _Input) -> None:
        oid, schema, table = left.number("I"), left.name(), left.name()
        _identity, count = left.number("B"), left.number("H")
        if count > MOST_COLUMNS:
            raise Refused
        columns = []
        for _ in range(count):
            flags, name, type_oid, _modifier = left.number("B"), left.name(), left.number("I"), left.number("I")
            columns.append(Column(name, type_oid, bool(flags & 1)))
        left.end()
        self.relations[oid] = Relation(f"{schema or 'pg_catalog'}.{table}", tuple(columns))

    def _table(self, left: _Input) -> Relation:
        oid = left.number("I")
        if oid not in self.relations:
            raise Refused
        return self.relations[oid]

    def _row(self, left: _Input, table: Relation) -> Row:
        if left.number("H") != len(table.columns):
            raise Refused
        row = []
        for _ in table.columns:
            letter = left.bytes(1).decode("latin-1")
            if letter not in "nut":
                raise Refused
            row.append((letter, left.bytes(left.number("I")) if letter == "t" else b""))
        return row

    def _insert(self, left: _Input) -> None:
        table = self._table(left)
        if left.bytes(1) != b"N":
            raise Refused
        row = self._row(left, table)
        left.end()
        self._event(WriteOp.INSERT, table, row_id(table, row), new=row_map(table, row))

    def _update(self, left: _Input) -> None:
        table = self._table(left)
        part, old = left.bytes(1), None
        identity = part
        if part in (b"K", b"O"):
            old = self._row(left, table)
            part = left.bytes(1)
        if part != b"N":
            raise Refused
        new = self._row(left, table)
        left.end()
        if old is None:
            self._event(WriteOp.UPDATE, table, row_id(table, new), new=row_map(table, new))
            return
        # A large value of the key that did not change stands in the old row alone.
        whole = [before if after[0] == "u" else after for before, after in zip(old, new, strict=True)]
        if row_id(table, whole) == row_id(table, old):
            kept = row_map(table, old) if identity == b"O" else None
            self._event(WriteOp.UPDATE, table, row_id(table, whole), new=row_map(table, new), old=kept)
            return
        self._event(WriteOp.DELETE, table, row_id(table, old), old=row_map(table, old, is_key=identity == b"K"))
        self._event(WriteOp.INSERT, table, row_id(table, whole), new=row_map(table, new))

    def _delete(self, left: _Input) -> None:
        table = self._table(left)
        identity = left.bytes(1)
        if identity not in (b"K", b"O"):
            raise Refused
        old = self._row(left, table)
        left.end()
        self._event(WriteOp.DELETE, table, row_id(table, old), old=row_map(table, old, is_key=identity == b"K"))

    def _truncate(self, left: _Input) -> None:
        count, _options = left.number("I"), left.number("B")
        if len(left.left) != 4 * count:
            raise Refused
        for table in [self._table(left) for _ in range(count)]:
            self._event(WriteOp.BULK_DELETE, table, "", rows=0)

    def start_snapshot(self, lsn: int) -> None:
        """Rows of COPY follow."""
        self.is_inside, self.lsn, self.time_ms = True, lsn, NO_TIME

    def copy(self, oid: int, line: bytes) -> None:
        """A row in the text format of COPY, without its newline."""
        table = self.relations[oid]
        # A backslash takes what is behind it with it; a tab without one ends a field.
        if not re.fullmatch(rb"([^\\]|\\.)*", line, re.DOTALL):
            raise Refused
        fields = [b""]
        for piece in re.findall(rb"\\.|[^\\]", line, re.DOTALL):
            if piece == b"\t":
                fields.append(b"")
            else:
                fields[-1] += piece
        if not table.columns:
            fields = fields if line else []
        if len(fields) != len(table.columns):
            raise Refused
        row = [("n", b"") if field == rb"\N" else ("t", unescaped(field)) for field in fields]
        self._event(WriteOp.INSERT, table, row_id(table, row), new=row_map(table, row))

    def _event(
        self,
        op: WriteOp,
        table: Relation,
        key: str,
        *,
        new: bytes | None = None,
        old: bytes | None = None,
        rows: int = 1,
    ) -> None:
        self.number += 1
        if (self.lsn, self.number) <= self.after:
            return
        self.events.append(OracleEvent(op, table.collection, key, old, new, self.lsn, self.time_ms, rows))


def row_id(table: Relation, row: Row) -> str:
    is_alone = sum(column.is_key for column in table.columns) == 1
    parts = []
    for column, (letter, text) in zip(table.columns, row, strict=True):
        if column.is_key:
            if letter == "u":
                raise Refused
            parts.append(key_of(column.oid, None if letter == "n" else text, is_alone=is_alone))
    return ",".join(parts)


def row_map(table: Relation, row: Row, *, is_key: bool = False) -> bytes:
    return packed_map(
        [
            (column.name, b"\xc0" if letter == "n" else value_of(column.oid, text))
            for column, (letter, text) in zip(table.columns, row, strict=True)
            if letter != "u" and (column.is_key or not is_key)
        ]
    )


def unescaped(field: bytes) -> bytes:
    letters = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
    return re.sub(rb"\\(.)", lambda found: letters.get(found[1], found[1]), field, flags=re.DOTALL)


def events_of(batches: Sequence[EventBatch]) -> list[OracleEvent]:
    """What the compiled decoder made, to compare. The numbers of its events are contiguous."""
    events = [event for batch in batches for event in batch]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    return [
        OracleEvent(
            *(event.op, event.collection, event.row_id, event.old_value, event.new_value, event.lsn),
            NO_TIME if event.system_time_ms is None else event.system_time_ms,
            event.count,
        )
        for event in events
    ]
