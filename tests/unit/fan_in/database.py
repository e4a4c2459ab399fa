"""A database with several captured connections and one log: what they commit, and the tables that events rebuild."""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import apsw

from nodedb_ring import CommitMerger, EventBatch, Follower, RowSchema, WriteOp, create_event_bus, follow, merge
from nodedb_ring.capture import SqliteCapture
from nodedb_ring.log.sqlite import SqliteEventLog

ROW = RowSchema({"a": "int64", "b": "int64"})


class Database:
    """A file with a table ``t(a, b)`` and `count` cores that write it, of one thread."""

    def __init__(self, path: Path, count: int, *, capacity: int = 1024) -> None:
        self.path = path
        first = opened(path)
        first.execute("PRAGMA journal_mode = WAL")
        first.execute("CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b)")
        first.close()
        self.log = SqliteEventLog(path, driver="apsw")
        self.producers, self.consumers = create_event_bus(count, capacity)
        self.connections = [opened(path) for _ in range(count)]
        self.captures = [
            SqliteCapture(connection, producer, log=self.log)
            for connection, producer in zip(self.connections, self.producers, strict=True)
        ]

    def sql(self, core: int, text: str) -> None:
        self.connections[core].execute(text)

    def followers(self, *, ring: bool = True, group: str = "g", **options: Any) -> list[Follower]:
        return [
            follow(consumer if ring else None, self.log, core_id=consumer.core_id, group=group, **options)
            for consumer in self.consumers
        ]

    def merged(self, **options: Any) -> CommitMerger:
        return merge(self.followers(**options), by="lsn")

    def end(self) -> None:
        """Closes the captures, so that followers of the rings end."""
        for capture, producer, connection in zip(self.captures, self.producers, self.connections, strict=True):
            capture.close()
            producer.close()
            connection.close()

    def rows(self) -> list[tuple[Any, ...]]:
        other = opened(self.path)
        found = [tuple(row) for row in other.execute("SELECT a, b FROM t ORDER BY a")]
        other.close()
        return found


def opened(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(20000)
    return connection


def commit_at_random(connection: apsw.Connection, draw: random.Random) -> None:
    """One transaction that changes one to a few rows of twenty; others write the same ones."""
    statements: list[str] = []
    for _ in range(draw.choice((1, 1, 2, 5))):
        key, value = draw.randrange(20), draw.randrange(10**6)
        statements.append(
            draw.choice(
                (
                    f"INSERT OR REPLACE INTO t VALUES ({key}, {value})",
                    f"UPDATE t SET b = {value} WHERE a = {key}",
                    f"DELETE FROM t WHERE a = {key}",
                )
            )
        )
    connection.execute("BEGIN IMMEDIATE; " + "; ".join(statements) + "; COMMIT")


def rebuilt(batches: Iterable[EventBatch]) -> list[tuple[int, Any]]:
    """The rows of ``t``, of its events alone. An event that does not fit the rows so far fails the test."""
    table: dict[str, bytes] = {}
    values: dict[str, Any] = {}
    for batch in batches:
        for event, new in zip(batch, batch.rows("new_value", ROW)["b"].tolist(), strict=True):
            assert (event.row_id in table) == (event.op is not WriteOp.INSERT), event
            if event.op is not WriteOp.INSERT:
                assert event.old_value == table[event.row_id], event
            if event.op is WriteOp.DELETE:
                del table[event.row_id]
            else:
                assert event.new_value is not None
                table[event.row_id] = event.new_value
                values[event.row_id] = new
    return sorted((int(key), values[key]) for key in table)
