"""Others that read a replication slot: PostgreSQL's own program, and what is written in Python today."""

from __future__ import annotations

import datetime
import importlib
import importlib.util
import itertools
import select
import struct
import subprocess
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import polars as pl
import psycopg2
import psycopg2.extras

from tests.unit.capture.postgres.server import require_postgres

from .postgres_changes import Source

__all__ = ["HAS_PYPGOUTPUT", "bare_loop", "by_hand", "by_hand_of", "messages", "pg_recvlogical", "pypgoutput"]

HAS_PYPGOUTPUT: Final = importlib.util.find_spec("pypgoutput") is not None

_FRAME_ROWS: Final = 10_000
_NULL: Final = ord("n")
_CONVERTERS: Final[dict[int, Callable[[str], Any]]] = {
    **dict.fromkeys((20, 21, 23), int),
    16: lambda text: text == "t",
    701: float,
    1184: lambda text: datetime.datetime.fromisoformat(text + ":00"),
}
"""How a value becomes Python's, by the oid of its type; text stays as it is."""


def pg_recvlogical(source: Source, slot: str) -> None:
    """The server's own program."""
    server = source.database.server
    command = [str(require_postgres() / "pg_recvlogical"), "-h", str(server.directory), "-p", str(server.port)]
    command += ["-U", "postgres", "-d", source.database.name, "--slot", slot, "--start", "-f", "/dev/null"]
    command += ["-o", "proto_version=1", "-o", "publication_names=p", "--endpos", source.end]
    subprocess.run(command, check=True)


def messages(source: Source, slot: str) -> Iterator[bytes]:
    """By psycopg2, until all changes have come."""
    connection: Any = psycopg2.connect(
        source.database.dsn + " options='-c timezone=UTC'",
        connection_factory=psycopg2.extras.LogicalReplicationConnection,
    )
    cursor = connection.cursor()
    cursor.start_replication(slot_name=slot, decode=False, options={"proto_version": "1", "publication_names": "p"})
    left = source.count
    while left:
        message = cursor.read_message()
        if message is None:
            select.select([cursor], [], [], 1.0)
            continue
        left -= message.payload[:1] == b"I"
        yield message.payload
    connection.close()


def bare_loop(source: Source, slot: str) -> None:
    """Counts, and no more."""
    for _ in messages(source, slot):
        pass


def by_hand(source: Source, slot: str) -> pl.DataFrame:
    """One dict per change, taken out of the message with ``struct``."""
    return by_hand_of(messages(source, slot))


def by_hand_of(received: Iterable[bytes]) -> pl.DataFrame:
    """The same, of messages that are there."""
    return _concatenated(_rows_by_hand(received))


def pypgoutput(source: Source, slot: str) -> pl.DataFrame:
    """One dict per change, out of the objects into which the library ``pypgoutput`` decodes a message."""
    decoders: Any = importlib.import_module("pypgoutput.decoders")

    def rows() -> Iterator[dict[str, Any]]:
        columns: list[tuple[str, Callable[[str], Any]]] = []
        for message in messages(source, slot):
            if message[:1] == b"R":
                columns = [(column.name, _converter(column.type_id)) for column in decoders.Relation(message).columns]
            elif message[:1] == b"I":
                fields = decoders.Insert(message).new_tuple.column_data
                yield {
                    name: None if field.col_data is None else convert(field.col_data)
                    for (name, convert), field in zip(columns, fields, strict=True)
                }

    return _concatenated(rows())


def _converter(oid: int) -> Callable[[str], Any]:
    return _CONVERTERS.get(oid, str)


def _rows_by_hand(received: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    columns: list[tuple[str, Callable[[str], Any]]] = []
    for message in received:
        if message[:1] == b"R":
            # The server may describe a table again.
            columns = []
            at = message.index(b"\0", message.index(b"\0", 5) + 1) + 2
            (count,) = struct.unpack_from(">H", message, at)
            at += 2
            for _ in range(count):
                end = message.index(b"\0", at + 1)
                (oid,) = struct.unpack_from(">I", message, end + 1)
                columns.append((message[at + 1 : end].decode(), _converter(oid)))
                at = end + 9
        elif message[:1] == b"I":
            at, row = 8, dict[str, Any]()
            for name, convert in columns:
                if message[at] == _NULL:
                    row[name] = None
                    at += 1
                else:
                    (size,) = struct.unpack_from(">I", message, at + 1)
                    row[name] = convert(message[at + 5 : at + 5 + size].decode())
                    at += 5 + size
            yield row


def _concatenated(rows: Iterator[dict[str, Any]]) -> pl.DataFrame:
    """A frame of every so many rows, and these as one."""
    frames: list[pl.DataFrame] = []
    while some := list(itertools.islice(rows, _FRAME_ROWS)):
        frames.append(pl.DataFrame(some, infer_schema_length=None))
    return pl.concat(frames)
