"""Changes of PostgreSQL to Polars frames: ``python -m benchmarks.postgres [--quick] [--strict]``.

A server of its own gets rows of ten columns, in commits of a thousand, behind one replication slot. Then each contender
reads the same log from a copy of that slot, in turn:

- ``pg_recvlogical`` to ``/dev/null``: what the server can send, to a program in C that does nothing with it;
- a loop of psycopg2 that counts the messages;
- the library ``pypgoutput``, which makes an object per change and column: one dict per change, and a frame of every ten
  thousand (``pip install --no-deps pypgoutput`` and pydantic install it; without it this row is left out);
- the same with ``struct`` in the library's place, as the fastest code of this kind is written by hand;
- ``PostgresCapture`` to frames of the rows' columns, and the same with a log in a SQLite file.

Sums of all columns are compared with the table's before anything is timed. The latency from COMMIT to ``drain`` is that
of single inserts on an idle server. Last is what a slot and a capture cost whoever writes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from nodedb_ring import RowSchema, create_event_bus
from nodedb_ring.capture.postgres import PostgresCapture
from nodedb_ring.capture.postgres._pgoutput import Decoder
from nodedb_ring.log.sqlite import SqliteEventLog
from tests.unit.capture.postgres.server import Database, PostgresServer

from .machine import describe
from .measure import check, no_collection
from .postgres_changes import Source
from .postgres_peers import HAS_PYPGOUTPUT, bare_loop, by_hand, by_hand_of, messages, pg_recvlogical, pypgoutput
from .postgres_writer import writer_costs
from .table import Row, print_rows

__all__ = ["main"]

_GOAL, _LOGGED_GOAL, _PEER_GOAL, _LATENCY_GOAL = 0.85, 0.7, 5.0, 2.0


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark: 0, or with ``--strict`` 1 if a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.postgres", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rows and rounds: figures are rougher")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a goal is missed")
    options = parser.parse_args(arguments)
    print(", ".join(f"{name} {value}" for name, value in describe().items()))
    with PostgresServer(shared_buffers="256MB", max_wal_size="4GB") as server:
        rows = _measured(server.database(), 40_000 if options.quick else 400_000, 2 if options.quick else 5)
    print_rows("Changes of ten columns from PostgreSQL to Polars frames", rows)
    missed = [row for row in rows if row.reached is False]
    print(f"{len(missed)} of {sum(row.goal is not None for row in rows)} goals missed")
    return 1 if missed and options.strict else 0


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


def decoded(received: list[bytes], schema: RowSchema) -> pl.DataFrame:
    """Frames of messages that are in memory, without a server, a thread and a ring."""
    decoder = Decoder(1)
    decoder.start(after_lsn=0, after_events=0)
    left = iter(received)
    frames: list[pl.DataFrame] = []
    while decoder.read(lambda: _Message(payload) if (payload := next(left, None)) is not None else None):
        if decoder.is_large:
            frames.append(pl.DataFrame(decoder.take().rows("new_value", schema)))
    while decoder.pending:
        frames.append(pl.DataFrame(decoder.take().rows("new_value", schema)))
        decoder.decode_messages()
    return pl.concat(frames)


class _Message(NamedTuple):
    """As psycopg2's."""

    payload: bytes


def _in_memory(source: Source, rounds: int) -> float:
    """How many times as fast as by hand the same messages become frames, where no server limits both."""
    received: list[bytes] = []
    source(lambda source, slot: received.extend(messages(source, slot)))
    [producer], _ = create_event_bus(1)
    schema = PostgresCapture(source.database.dsn, producer, publication="p", slot="s").schema("public.flights")
    source.check("decoded", decoded(received, schema))
    ratios: list[float] = []
    for _ in range(rounds):
        with no_collection():
            start = time.perf_counter()
            by_hand_of(received)
            middle = time.perf_counter()
            decoded(received, schema)
            ratios.append((middle - start) / (time.perf_counter() - middle))
    return statistics.median(ratios)


def _measured(database: Database, count: int, rounds: int) -> list[Row]:
    source = Source(database, count)
    contenders: dict[str, Callable[[Source, str], object]] = {
        "pg_recvlogical": pg_recvlogical,
        "psycopg2": bare_loop,
        "by hand": by_hand,
        "captured": captured,
        "logged": captured_and_logged,
    }
    if HAS_PYPGOUTPUT:
        contenders["pypgoutput"] = pypgoutput
    for name in contenders.keys() - {"pg_recvlogical", "psycopg2"}:
        made: list[Any] = []
        source(lambda source, slot, name=name, made=made: made.append(contenders[name](source, slot)))  # type: ignore[misc]
        source.check(name, made[0])
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            seconds[name].append(source(contender))

    def ratio(name: str, of: str) -> float:
        return statistics.median(other / own for own, other in zip(seconds[name], seconds[of], strict=True))

    def rate(name: str) -> str:
        return f"{count / statistics.median(seconds[name]):,.0f} changes/s"

    server = f"pg_recvlogical {rate('pg_recvlogical')}, bare psycopg2 {rate('psycopg2')}"
    waits = latencies(source, 100)
    kept, under_capture = writer_costs(database, 2 * rounds)

    def row(what: str, value: float, unit: str, goal: float | None, beside: str, *, at_least: bool = True) -> Row:
        return Row(group="postgres", what=what, value=value, unit=unit, goal=goal, at_least=at_least, beside=beside)

    rows = [
        row("to frames, of pg_recvlogical", ratio("captured", "pg_recvlogical"), "", _GOAL, rate("captured")),
        row("the same with a log", ratio("logged", "pg_recvlogical"), "", _LOGGED_GOAL, rate("logged")),
        row("of a bare loop of psycopg2", ratio("captured", "psycopg2"), "", None, server),
    ]
    if HAS_PYPGOUTPUT:
        rows.append(row("of pypgoutput", ratio("captured", "pypgoutput"), "times", _PEER_GOAL, rate("pypgoutput")))
    rows += [
        row("of a dict per change by hand", ratio("captured", "by hand"), "times", None, rate("by hand")),
        row("the same without a server", _in_memory(source, rounds), "times", None, "messages that are in memory"),
        row(
            *("COMMIT to drain, median", statistics.median(waits), "ms", _LATENCY_GOAL),
            f"99 of 100 within {sorted(waits)[98]:.2f} ms",
            at_least=False,
        ),
        row("the writer's time with a slot, of without", kept, "", None, "commits of ten rows", at_least=False),
        row("the same under a capture", under_capture, "", None, "all on the same two processors", at_least=False),
    ]
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
