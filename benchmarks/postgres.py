"""Changes of PostgreSQL to Polars frames: ``python -m benchmarks.postgres [--quick] [--strict]``.

A server of its own gets rows of ten columns, in commits of a thousand, behind one replication slot. Then each contender
reads the same log from a copy of that slot, in turn:

- ``pg_recvlogical`` to ``/dev/null``: what the server can send, to a program in C that does nothing with it;
- a loop of psycopg2 that counts the messages;
- psycopg2 and ``struct``: one dict per change, and a frame of every ten thousand, as it is written by hand;
- ``PostgresCapture`` to frames of the rows' columns, and the same with a log in a SQLite file.

Sums of all columns are compared with the table's before anything is timed. The latency from COMMIT to ``drain`` is that
of single inserts on an idle server.
"""

from __future__ import annotations

import argparse
import datetime
import select
import statistics
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import polars as pl
import psycopg2
import psycopg2.extras

from nodedb_ring import create_event_bus
from nodedb_ring.capture.postgres import PostgresCapture
from nodedb_ring.log.sqlite import SqliteEventLog
from tests.unit.capture.postgres.server import Database, PostgresServer, require_postgres

from .machine import describe
from .measure import check, no_collection
from .table import Row, print_rows

__all__ = ["main"]

_COMMIT_ROWS: Final = 1000
_GOAL, _LOGGED_GOAL, _PEER_GOAL, _LATENCY_GOAL = 0.85, 0.7, 5.0, 2.0
_TABLE: Final = (
    "CREATE TABLE flights(id int PRIMARY KEY, year int2, month int2, carrier text, tailnum text, delay float8,"
    " distance int8, cancelled bool, at timestamptz, fare numeric(10, 2))"
)
_ROWS: Final = (
    "INSERT INTO flights SELECT i, 2013, 1 + i %% 12, 'C' || i %% 16, CASE WHEN i %% 50 > 0 THEN 'N' || i %% 4000 END,"
    " i %% 900 / 7.0, i %% 5000, i %% 40 = 0, '2013-01-01Z'::timestamptz + i * interval '79 s', i %% 99999 / 100.0"
    " FROM generate_series(%s, %s) AS i"
)
_SUMS: Final = (
    "SELECT count(*), sum(id), sum(year), sum(month), count(DISTINCT carrier), count(tailnum), sum(delay),"
    " sum(distance), count(*) FILTER (WHERE cancelled), sum(extract(epoch FROM at))::int8, sum(fare)::text FROM flights"
)


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark: 0, or with ``--strict`` 1 if a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.postgres", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rows and rounds: figures are rougher")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a goal is missed")
    options = parser.parse_args(arguments)
    print(", ".join(f"{name} {value}" for name, value in describe().items()))
    server = PostgresServer(shared_buffers="256MB", max_wal_size="4GB")
    try:
        server.start()
        rows = _measured(server.database(), 40_000 if options.quick else 400_000, 2 if options.quick else 5)
    finally:
        server.remove()
    print_rows("Changes of ten columns from PostgreSQL to Polars frames", rows)
    missed = [row for row in rows if row.reached is False]
    print(f"{len(missed)} of {sum(row.goal is not None for row in rows)} goals missed")
    return 1 if missed and options.strict else 0


class Source:
    """The table, its publication, and the slot that copies are made of."""

    def __init__(self, database: Database, count: int) -> None:
        self.database, self.count = database, count
        database.execute(
            _TABLE,
            "CREATE PUBLICATION p FOR TABLE flights",
            "SELECT pg_create_logical_replication_slot('s', 'pgoutput')",
        )
        with database.session() as cursor:
            for first in range(1, count + 1, _COMMIT_ROWS):
                cursor.execute(_ROWS, (first, min(first + _COMMIT_ROWS - 1, count)))
        [self.sums] = database.execute(_SUMS)
        [(self.end,)] = database.execute("SELECT pg_current_wal_insert_lsn()")

    def __call__(self, contender: Callable[[Source, str], None]) -> float:
        """Seconds that a contender takes, with a slot of its own."""
        self.database.execute("SELECT pg_copy_logical_replication_slot('s', 'copy')")
        try:
            with no_collection():
                start = time.perf_counter()
                contender(self, "copy")
                return time.perf_counter() - start
        finally:
            while self.database.execute("SELECT FROM pg_replication_slots WHERE slot_name = 'copy' AND active"):
                time.sleep(0.01)
            self.database.execute("SELECT pg_drop_replication_slot('copy')")

    def check(self, what: str, frame: pl.DataFrame) -> None:
        """Compares the sums of a frame with those of the table."""
        fares = frame["fare"].cast(pl.Decimal(20, 2)).sum()
        got = (
            *(len(frame), frame["id"].sum(), frame["year"].sum(), frame["month"].sum()),
            *(frame["carrier"].n_unique(), len(frame) - frame["tailnum"].null_count()),
            *(round(frame["delay"].sum(), 3), frame["distance"].sum(), frame["cancelled"].sum()),
            *(frame["at"].dt.epoch("s").sum(), str(fares)),
        )
        check(what, got, (*self.sums[:6], round(self.sums[6], 3), *self.sums[7:]))


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
    """One dict per change."""
    names: list[str] = []
    convert: list[Callable[[str], Any]] = []
    types: dict[int, Callable[[str], Any]] = {
        **dict.fromkeys((20, 21, 23), int),
        16: lambda text: text == "t",
        701: float,
        1184: lambda text: datetime.datetime.fromisoformat(text + ":00"),
    }
    frames: list[pl.DataFrame] = []
    rows: list[dict[str, Any]] = []
    for message in messages(source, slot):
        if message[:1] == b"R":
            at = message.index(b"\0", message.index(b"\0", 5) + 1) + 2
            (count,) = struct.unpack_from(">H", message, at)
            at += 2
            # The server may describe a table again.
            names.clear()
            convert.clear()
            for _ in range(count):
                end = message.index(b"\0", at + 1)
                names.append(message[at + 1 : end].decode())
                convert.append(types.get(struct.unpack_from(">I", message, end + 1)[0], str))
                at = end + 9
        elif message[:1] == b"I":
            at, row = 8, dict[str, Any]()
            for name, parse in zip(names, convert, strict=True):
                if message[at] == 110:
                    row[name] = None
                    at += 1
                else:
                    (size,) = struct.unpack_from(">I", message, at + 1)
                    row[name] = parse(message[at + 5 : at + 5 + size].decode())
                    at += 5 + size
            rows.append(row)
            if len(rows) == 10_000:
                frames.append(pl.DataFrame(rows, infer_schema_length=None))
                rows = []
    if rows:
        frames.append(pl.DataFrame(rows, infer_schema_length=None))
    return pl.concat(frames)


def captured(source: Source, slot: str, log: SqliteEventLog | None = None) -> pl.DataFrame:
    """Frames of the rows' columns, from batches as they are drained."""
    [producer], [consumer] = create_event_bus(1)
    capture = PostgresCapture(source.database.dsn, producer, publication="p", slot=slot, log=log)
    frames: list[pl.DataFrame] = []
    left = source.count
    schema = capture.schema("public.flights")
    with capture:
        while left:
            batch = consumer.drain(16_384, timeout=1.0)
            if len(batch):
                frames.append(pl.DataFrame(batch.rows("new_value", schema)))
                left -= len(batch)
    return pl.concat(frames)


def captured_and_logged(source: Source, slot: str) -> pl.DataFrame:
    """The same, with a log in a file."""
    with tempfile.TemporaryDirectory() as directory, SqliteEventLog(Path(directory) / "log.db") as log:
        return captured(source, slot, log)


def latencies(source: Source, count: int) -> list[float]:
    """Milliseconds from the end of a COMMIT to the end of the drain that has it, the server idle."""
    [producer], [consumer] = create_event_bus(1)
    capture = PostgresCapture(source.database.dsn, producer, publication="p", slot="idle")
    capture.ensure_slot()
    found: list[float] = []
    with capture, source.database.session() as cursor:
        while not capture.stats().connected:
            time.sleep(0.01)
        for number in range(-count, 0):
            time.sleep(0.01)
            cursor.execute("INSERT INTO flights(id) VALUES (%s)", (number,))
            start = time.perf_counter()
            batch = consumer.drain(16, timeout=5.0)
            found.append(1000 * (time.perf_counter() - start))
            check("the row drained", batch.strings("row_id").tolist(), [str(number)])
    capture.drop_slot()
    return found


def _measured(database: Database, count: int, rounds: int) -> list[Row]:
    source = Source(database, count)
    contenders: dict[str, Callable[[Source, str], object]] = {
        "pg_recvlogical": pg_recvlogical,
        "psycopg2": bare_loop,
        "by hand": by_hand,
        "captured": captured,
        "logged": captured_and_logged,
    }
    for name in ("by hand", "captured", "logged"):
        made: list[Any] = []
        source(lambda source, slot, name=name, made=made: made.append(contenders[name](source, slot)))  # type: ignore[misc]
        source.check(name, made[0])
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            seconds[name].append(source(contender))  # type: ignore[arg-type]

    def ratio(name: str, of: str) -> float:
        return statistics.median(other / own for own, other in zip(seconds[name], seconds[of], strict=True))

    def rate(name: str) -> str:
        return f"{count / statistics.median(seconds[name]):,.0f} changes/s"

    waits = latencies(source, 100)
    server = f"pg_recvlogical {rate('pg_recvlogical')}, bare psycopg2 {rate('psycopg2')}"

    def row(what: str, value: float, unit: str, goal: float, beside: str, *, at_least: bool = True) -> Row:
        return Row(group="postgres", what=what, value=value, unit=unit, goal=goal, at_least=at_least, beside=beside)

    return [
        row(
            "to frames, of pg_recvlogical",
            ratio("captured", "pg_recvlogical"),
            "",
            _GOAL,
            f"{rate('captured')}; {server}",
        ),
        row("the same with a log", ratio("logged", "pg_recvlogical"), "", _LOGGED_GOAL, rate("logged")),
        row("to frames, of a dict per change", ratio("captured", "by hand"), "times", _PEER_GOAL, rate("by hand")),
        row(
            *("COMMIT to drain, median", statistics.median(waits), "ms", _LATENCY_GOAL),
            f"99 of 100 within {sorted(waits)[98]:.2f} ms",
            at_least=False,
        ),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
