"""In which order a snapshot does what it does, on a connection of the test's."""

from __future__ import annotations

from typing import Any

import psycopg2.extensions
import pytest

from nodedb_ring import EventBatch
from nodedb_ring.capture.postgres import snapshot
from nodedb_ring.capture.postgres._copy import CopyReader
from nodedb_ring.capture.postgres._pgoutput import Decoder
from nodedb_ring.capture.postgres.position import Position
from nodedb_ring.capture.postgres.source import Source
from nodedb_ring.capture.postgres.tables import PublishedTable, _Column  # pyright: ignore[reportPrivateUsage]
from nodedb_ring.errors import CaptureError

from .captured import maps

TABLES = [
    PublishedTable(oid, "public", name, False, (_Column("id", 23, True),), None) for oid, name in ((7, "t"), (8, "u"))
]


class Connection:
    """Says what was asked of it."""

    def __init__(self, rows: bytes) -> None:
        self.rows = rows
        self.done: list[str] = []

    def cursor(self) -> Connection:
        return self

    def execute(self, statement: str, parameters: tuple[Any, ...] = ()) -> None:
        words = statement.replace("(", " ").split()
        self.done.append(words[1] if words[0] == "SELECT" else words[0])

    def fetchall(self) -> list[tuple[str, str]]:
        return [("temporary", "1/2A")]

    def copy_expert(self, statement: str, reader: CopyReader) -> None:
        self.done.append("COPY")
        reader.write(self.rows)

    def close(self) -> None:
        self.done.append("close")


def take(monkeypatch: pytest.MonkeyPatch, connection: Connection, *, clear: bool) -> list[EventBatch]:
    def tables(cursor: psycopg2.extensions.cursor, publication: str) -> list[PublishedTable]:
        return TABLES

    decoder, batches = Decoder(1), list[EventBatch]()

    def deliver() -> None:
        connection.done.append("deliver")
        batches.append(decoder.take())

    monkeypatch.setattr(snapshot, "open_replication", lambda dsn: connection)
    monkeypatch.setattr(snapshot, "published_tables", tables)
    position = snapshot.take_snapshot(
        *(Source("", "p", "s"), decoder, deliver, lambda: connection.done.append("flush")), clear=clear
    )
    assert position == Position((1 << 32) + 0x2A, 0)
    return batches


@pytest.mark.parametrize("clear", [False, True])
def test_the_slot_is_made_when_all_rows_are_delivered(monkeypatch: pytest.MonkeyPatch, clear: bool) -> None:
    connection = Connection(b"1\n2\n")
    [batch] = take(monkeypatch, connection, clear=clear)
    assert connection.done == [
        *("BEGIN", "CREATE_REPLICATION_SLOT", "COPY", "COPY", "deliver", "flush", "COMMIT"),
        *("pg_copy_logical_replication_slot", "close"),
    ]
    cleared = [("BULK_DELETE", "", None, None)] * 2 if clear else []
    rows = [("INSERT", "1", None, {"id": 1}), ("INSERT", "2", None, {"id": 2})]
    assert maps(batch) == [*cleared, *rows, *rows]
    assert set(batch.lsn.tolist()) == {(1 << 32) + 0x2A}


def test_a_row_without_its_end_makes_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Connection(b"1\n2")
    with pytest.raises(CaptureError, match=r"table public\.t: message.*ends before its last field"):
        take(monkeypatch, connection, clear=False)
    assert connection.done == ["BEGIN", "CREATE_REPLICATION_SLOT", "COPY", "close"]
