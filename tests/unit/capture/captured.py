"""A captured database with its ring, and what a test says of the changes that come out."""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import Any, NamedTuple, cast

import apsw
import msgpack

from nodedb_ring import EventConsumer, WriteEvent, WriteOp, create_event_bus
from nodedb_ring.capture import SqliteCapture
from nodedb_ring.capture.sqlite import Value

INSERT, UPDATE, DELETE = WriteOp.INSERT, WriteOp.UPDATE, WriteOp.DELETE
Row = dict[str, Any]


class Change(NamedTuple):
    """What a test says of an event."""

    op: WriteOp
    collection: str
    row_id: str
    old: Row | None = None
    new: Row | None = None


def inserted(collection: str, row_id: str, **new: Any) -> Change:
    return Change(INSERT, collection, row_id, None, new)


def updated(collection: str, row_id: str, old: Row, new: Row) -> Change:
    return Change(UPDATE, collection, row_id, old, new)


def deleted(collection: str, row_id: str, **old: Any) -> Change:
    return Change(DELETE, collection, row_id, old, None)


def row(value: bytes | None) -> Row | None:
    if value is None:
        return None
    decoded = msgpack.unpackb(value)
    assert isinstance(decoded, dict)
    return cast("Row", decoded)


class Core:
    """A database and the ring that its capture emits into."""

    def __init__(self, connection: apsw.Connection, *, capacity: int = 1024, arena_bytes: int | None = None) -> None:
        self.connection = connection
        [self.producer], [self.consumer] = create_event_bus(1, capacity=capacity, arena_bytes=arena_bytes)
        self.capture: SqliteCapture

    def start(self, **options: Any) -> Core:
        self.capture = SqliteCapture(self.connection, self.producer, **options)
        return self

    def sql(self, statements: str, *bindings: Value) -> list[tuple[Value, ...]]:
        return cast("list[tuple[Value, ...]]", list(self.connection.execute(statements, bindings or None)))

    def events(self) -> list[WriteEvent]:
        return drained(self.consumer)

    def changes(self) -> list[Change]:
        return [Change(e.op, e.collection, e.row_id, row(e.old_value), row(e.new_value)) for e in self.events()]

    def rows(self, query: str) -> list[Value]:
        """The first column of a query, which is enough to see what the database kept."""
        return [first for first, *_ in self.sql(query)]


def drained(consumer: EventConsumer) -> list[WriteEvent]:
    events: list[WriteEvent] = []
    while batch := list(consumer.drain()):
        events += batch
    return events


JOURNALS = ["memory", "wal", "delete"]


def open_database(journal: str, folder: Path) -> apsw.Connection:
    connection = apsw.Connection(":memory:" if journal == "memory" else str(folder / "core.db"))
    assert list(connection.execute(f"PRAGMA journal_mode = {journal}")) == [(journal,)]
    connection.execute("PRAGMA synchronous = OFF; PRAGMA foreign_keys = ON")
    connection.set_busy_timeout(0)
    return connection


@contextlib.contextmanager
def captured(journal: str, folder: Path, table: str) -> Generator[Core]:
    """A database with one table, captured."""
    connection = open_database(journal, folder)
    connection.execute(f"CREATE TABLE {table}")
    yield Core(connection).start()
    connection.close()


def t(a: int, b: Value) -> Row:
    return {"a": a, "b": b}
