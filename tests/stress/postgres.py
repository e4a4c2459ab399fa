"""Random traffic on PostgreSQL under capture, and kills: ``python -m tests.stress.postgres [--kills N] [--seed N]``.

With ``--large`` it is one large transaction in place of them: see ``postgres_large.py``.

Several connections write tables with transactions, savepoints, rollbacks, truncations, changes of keys, and columns
that come and go. A capture with a log runs in a process of its own. At random moments the capture, its walsender or the
whole server gets SIGKILL, and what has died is started again. At the end the events of the log, each once and in order,
must make the rows that the tables have.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import psycopg2
import psycopg2.extensions

from nodedb_ring.log.sqlite import SqliteEventLog
from tests.unit.capture.postgres.captured import Captured, Replica, until
from tests.unit.capture.postgres.server import Database, PostgresServer

from .postgres_large import run_large

__all__ = ["main", "run"]

_TABLES: Final = ("a", "b", "c")
_SLOT: Final = "stress"
_MOST_LAG: Final = 64 << 20
"""Bytes of log that the writers may be ahead of the capture, which has to come to the end on a slow machine, too."""
_PROGRAM: Final = """
import sys
from nodedb_ring import create_event_bus
from nodedb_ring.capture.postgres import PostgresCapture
from nodedb_ring.log.sqlite import SqliteEventLog

[producer], [consumer] = create_event_bus(1, capacity=4096)
consumer.close()
log = SqliteEventLog(sys.argv[2])
PostgresCapture(sys.argv[1], producer, publication="p", slot="stress", log=log).run()
"""


def main(arguments: list[str] | None = None) -> int:
    """0, or 1 if the events make other rows than the tables have."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.postgres", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--large", action="store_true", help="one transaction of ten million changes, and no kills")
    options = parser.parse_args(arguments)
    if options.large:
        wrong = run_large()
        print("\n".join(wrong) or "the log has each change once")
        return 1 if wrong else 0
    seed = random.randrange(2**32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    wrong = run(options.kills, seed)
    print("\n".join(wrong) or f"{options.kills} kills: the events make the rows of the tables")
    return 1 if wrong else 0


class Writer(threading.Thread):
    """Transactions on one connection, which is made again whenever the server has gone."""

    def __init__(self, database: Database, seed: int, done: threading.Event) -> None:
        super().__init__(daemon=True)
        self._database, self._random, self._done = database, random.Random(seed), done
        self.commits = 0

    def run(self) -> None:
        while not self._done.is_set():
            with contextlib.suppress(psycopg2.Error):
                connection = self._database.connect()
                try:
                    self._write(connection)
                finally:
                    connection.close()
            time.sleep(0.01)

    def _write(self, connection: psycopg2.extensions.connection) -> None:
        while not self._done.is_set():
            try:
                with connection, connection.cursor() as cursor:
                    for _ in range(self._random.choice((1, 1, 3, 10))):
                        self._step(cursor)
                    if self._random.random() < 0.1:
                        connection.rollback()
                self.commits += 1
                if self.commits % 50 == 0:
                    self._wait_for_capture(connection)
            except (
                psycopg2.errors.DeadlockDetected,
                psycopg2.errors.UniqueViolation,
                psycopg2.errors.LockNotAvailable,
                psycopg2.errors.UndefinedColumn,
                psycopg2.errors.DuplicateColumn,
            ):
                pass

    def _wait_for_capture(self, connection: psycopg2.extensions.connection) -> None:
        query = f"SELECT pg_current_wal_lsn() - confirmed_flush_lsn > {_MOST_LAG} FROM pg_replication_slots"
        while not self._done.is_set():
            with connection, connection.cursor() as cursor:
                cursor.execute(query)
                if cursor.fetchall() != [(True,)]:
                    return
            time.sleep(0.1)

    def _step(self, cursor: psycopg2.extensions.cursor) -> None:
        pick, table = self._random, self._random.choice(_TABLES)
        key, value = pick.randrange(2000), pick.choice(("NULL", "'x'", "repeat('y', 30)", "repeat('z', 5000)"))
        cursor.execute("SET LOCAL lock_timeout = '1s'")
        statements = [
            f"INSERT INTO {table}(id, v) VALUES ({key}, {value}) ON CONFLICT (id) DO UPDATE SET v = EXCLUDED.v",
            f"INSERT INTO {table}(id, v) SELECT (SELECT coalesce(max(id), 0) FROM {table}) + i, {value}"
            f" FROM generate_series(1, {pick.choice((1, 50, 9000))}) AS i",
            f"UPDATE {table} SET n = coalesce(n, 0) + 1 WHERE id % 97 = {key % 97}",
            f"UPDATE {table} SET id = -id WHERE id = {key}",
            f"DELETE FROM {table} WHERE id % 13 = {key % 13}",
            f"SAVEPOINT s; UPDATE {table} SET v = {value} WHERE id = {key}; ROLLBACK TO s",
            f"SAVEPOINT s; DELETE FROM {table} WHERE id = {key}; RELEASE s",
        ]
        rare = [
            f"TRUNCATE {table}",
            f"ALTER TABLE {table} ADD extra{key % 5} text DEFAULT 'd'",
            f"ALTER TABLE {table} DROP extra{key % 5}",
            f"ALTER TABLE {table} ALTER n TYPE {pick.choice(('int', 'bigint', 'numeric'))}",
        ]
        # Of a table whose rows are their own key, a new column would change the key of all.
        is_rare = pick.random() < 0.03 and table != "b"
        cursor.execute(pick.choice(rare if is_rare else statements))


def run(kills: int, seed: int) -> list[str]:
    """Kills so often; returns what is wrong at the end."""
    pick = random.Random(seed)
    with PostgresServer(deadlock_timeout="50ms", logical_decoding_work_mem="64kB") as server:
        database = server.database()
        database.execute(*(f"CREATE TABLE {table}(id int PRIMARY KEY, v text, n int)" for table in _TABLES))
        database.execute("ALTER TABLE b REPLICA IDENTITY FULL", "CREATE PUBLICATION p FOR ALL TABLES")
        with tempfile.TemporaryDirectory() as directory:
            return _killed(database, Path(directory) / "log.db", kills, pick)


def _killed(database: Database, path: Path, kills: int, pick: random.Random) -> list[str]:
    server, done = database.server, threading.Event()
    Captured(database, _SLOT).capture().ensure_slot()
    writers = [Writer(database, pick.randrange(2**32), done) for _ in range(3)]
    for writer in writers:
        writer.start()
    process = _started(database, path)
    try:
        for _ in range(kills):
            time.sleep(pick.expovariate(5.0) + 0.05)
            what = pick.choice(("capture", "capture", "walsender", "server"))
            if what == "server" and pick.random() < 0.3:
                server.kill()
                server.start()
            elif what == "walsender":
                _kill_walsender(database)
            elif what == "capture" or process.poll() is not None:
                process.kill()
                process.wait()
                process = _started(database, path)
        done.set()
        for writer in writers:
            writer.join()
        if process.poll() is not None:
            process = _started(database, path)
        [(end,)] = _asked(database, "SELECT pg_current_wal_insert_lsn() - '0/0'")
        query = f"SELECT confirmed_flush_lsn - '0/0' >= {end} FROM pg_replication_slots WHERE slot_name = '{_SLOT}'"
        until(lambda: _asked(database, query) == [(True,)], seconds=900.0)
        return _compared(database, path, sum(writer.commits for writer in writers))
    finally:
        done.set()
        process.kill()
        process.wait()


def _asked(database: Database, query: str) -> list[tuple[Any, ...]]:
    """Its rows, once the server has recovered from the last kill, of which it may not know yet."""
    while True:
        try:
            return database.execute(query)
        except psycopg2.OperationalError:
            time.sleep(0.1)


def _started(database: Database, path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _PROGRAM, database.dsn, str(path)], stderr=subprocess.DEVNULL)


def _kill_walsender(database: Database) -> None:
    """Any process of the server that gets SIGKILL makes it start all of them again."""
    with contextlib.suppress(psycopg2.Error, ProcessLookupError):
        query = f"SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{_SLOT}' AND active"
        for (pid,) in database.execute(query):
            os.kill(pid, signal.SIGKILL)


def _compared(database: Database, path: Path, commits: int) -> list[str]:
    replica, wrong = Replica(), list[str]()
    with SqliteEventLog(path) as log:
        replica.apply(log.read(0, 1, 2**62))
    print(f"{commits} commits, {replica.sequence} events", flush=True)
    for table in _TABLES:
        with database.session() as cursor:
            cursor.execute(f"SELECT * FROM {table}")
            names = [column.name for column in cursor.description or ()]
            rows = sorted(_shown(dict(zip(names, row, strict=True))) for row in cursor.fetchall())
        # A column that was added or dropped is in no event of a row that was not written since.
        made = sorted(
            _shown({name: row.get(name, "d" if name.startswith("extra") else None) for name in names})
            for row in replica.tables.get(f"public.{table}", {}).values()
        )
        if made != rows:
            wrong.append(f"table {table}: {len(rows)} rows, and {len(made)} by its events; {_first(made, rows)}")
    return wrong


def _shown(row: dict[str, object]) -> str:
    # Where its type changed, a number is an int in one event and text in another.
    return repr({name: str(value) if name == "n" and value is not None else value for name, value in row.items()})


def _first(made: list[str], rows: list[str]) -> str:
    return next(
        (f"{one[:200]} is not {other[:200]}" for one, other in zip(made, rows, strict=False) if one != other), ""
    )


if __name__ == "__main__":
    raise SystemExit(main())
