"""One SQLite database as a Data Plane core: flights written by ordinary SQL, each row change captured.

A flight's row is inserted when it is scheduled, updated when it has flown, and deleted when it was cancelled. Only the
table ``flights`` is captured. The database keeps its own count of the deleted, by a trigger, so that it can be asked
for cancellations without help from the events.

With a log the database also holds its own events, in tables of their own. A writer that was killed continues from the
committed rows of the database, and needs nothing else to know how far it came.
"""

# apsw's stubs import Buffer from where Python 3.12 has it; under 3.11 pyright knows their SQL methods only partly.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

import apsw

from ... import EventProducer, PressureState
from ...capture.sqlite import SqliteCapture
from ...log.sqlite import SqliteEventLog
from .flights import Flight
from .totals import CarrierTotals, TotalsByCarrier
from .transactions import Statements, Transaction, transactions

__all__ = [
    "ask_databases",
    "open_database",
    "open_log",
    "transactions_left",
    "write_flights",
    "write_transaction",
]

_PAUSE: Final = 0.001  # seconds between two checks of a ring under pressure
_BUSY: Final = 10_000  # milliseconds to wait for a follower that saves its watermark

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS flights (
    flight_id INTEGER PRIMARY KEY,
    date TEXT NOT NULL,
    carrier TEXT NOT NULL,
    number INTEGER NOT NULL,
    tailnum TEXT,
    origin TEXT NOT NULL,
    dest TEXT NOT NULL,
    sched_dep_time INTEGER NOT NULL,
    dep_time INTEGER,
    dep_delay INTEGER
) STRICT;
CREATE TABLE IF NOT EXISTS cancellations (flight_id INTEGER PRIMARY KEY, carrier TEXT NOT NULL) STRICT;
CREATE TRIGGER IF NOT EXISTS flight_cancelled AFTER DELETE ON flights BEGIN
    INSERT INTO cancellations VALUES (old.flight_id, old.carrier);
END;
"""
_STATEMENTS: Final = Statements(
    schedule="INSERT INTO flights VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)",
    depart="UPDATE flights SET dep_time = ?, dep_delay = ? WHERE flight_id = ?",
    cancel="DELETE FROM flights WHERE flight_id = ?",
)

# A flight is one row change when it is scheduled, and another when it flies or is cancelled.
_WRITTEN: Final = """
SELECT count(*) + count(dep_time) + 2 * (SELECT count(*) FROM cancellations) FROM flights
"""

_TOTALS: Final = """
WITH written AS (
    SELECT carrier, dep_delay, 0 AS cancelled FROM core_0.flights
    UNION ALL
    SELECT carrier, dep_delay, 0 FROM core_1.flights
    UNION ALL
    SELECT carrier, NULL, 1 FROM core_0.cancellations
    UNION ALL
    SELECT carrier, NULL, 1 FROM core_1.cancellations
)
SELECT carrier, count(*), count(dep_delay), sum(cancelled), coalesce(sum(dep_delay), 0)
FROM written GROUP BY carrier ORDER BY carrier
"""


class Stop(Protocol):
    """When a writer stops: a ``threading.Event``, or a flag that a signal sets."""

    def is_set(self) -> bool:
        """Whether to stop now."""
        ...


def write_flights(
    path: Path,
    flights: Sequence[Flight],
    producer: EventProducer,
    stop: Stop,
    log: SqliteEventLog | None = None,
) -> None:
    """Writes `flights` into a database, in transactions, and emits what they changed; then closes `producer`.

    Without a log it waits before a transaction while the ring is under pressure, so that a consumer on a busy machine
    does not fall behind by a whole ring. With a log it never waits, because the log has the events that the ring drops.
    It emits all events of a transaction at once, without waiting for room.

    Parameters
    ----------
    path : Path
        An empty file, or one that an earlier call left: it continues after the flights written there.
    flights : sequence of Flight, by date
    producer : EventProducer
        It is used, and so owned, by this thread.
    stop : Stop
        When set, the rest is not written.
    log : SqliteEventLog, optional
        A log in the same file, opened with ``driver="apsw"``; events are appended in the transaction that they report.
    """
    with producer, contextlib.closing(open_database(path)) as connection:
        left = transactions_left(connection, flights)
        with SqliteCapture(connection, producer, tables=["flights"], vshard_id=producer.core_id, log=log):
            for transaction in left:
                if log is None:
                    _await_relief(producer, stop)
                if stop.is_set():
                    return
                write_transaction(connection, transaction)


def open_database(path: Path) -> apsw.Connection:
    """A connection to a database with the tables of the demo, which are created if they are missing."""
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "normal")
    connection.set_busy_timeout(_BUSY)
    with connection:
        connection.execute(_SCHEMA)
    return connection


def open_log(path: Path) -> SqliteEventLog:
    """The log in a database of the demo; an empty file becomes the database first.

    So it has pages of 4 KiB. A log that makes the file itself gives it pages of 8 KiB, and each statement on a
    captured table copies a page.
    """
    open_database(path).close()
    return SqliteEventLog(path, driver="apsw")


def transactions_left(connection: apsw.Connection, flights: Sequence[Flight]) -> Iterator[Transaction]:
    """The transactions that write `flights`, without those that are committed already."""
    [(written,)] = connection.execute(_WRITTEN)
    return _from(written, transactions(flights, _STATEMENTS))


def write_transaction(connection: apsw.Connection, transaction: Transaction) -> None:
    """Executes the statements of a transaction and commits them."""
    with connection:
        for sql, rows in transaction:
            connection.executemany(sql, rows)


def _await_relief(producer: EventProducer, stop: Stop) -> None:
    while producer.pressure_state is not PressureState.NORMAL and not producer.is_consumer_disconnected:
        if stop.is_set():
            return
        time.sleep(_PAUSE)


def ask_databases(core_0: Path, core_1: Path) -> TotalsByCarrier:
    """The totals by carrier of both databases together, computed by SQL."""
    with contextlib.closing(apsw.Connection(":memory:")) as connection:
        connection.execute("ATTACH ? AS core_0", (str(core_0),))
        connection.execute("ATTACH ? AS core_1", (str(core_1),))
        return {
            carrier: CarrierTotals(scheduled, flown, cancelled, delay)
            for carrier, scheduled, flown, cancelled, delay in connection.execute(_TOTALS)
        }


def _from(written: int, whole: Iterator[Transaction]) -> Iterator[Transaction]:
    """The transactions after the first ones, which changed `written` rows and are committed already."""
    for transaction in whole:
        if written <= 0:
            yield transaction
        else:
            written -= sum(len(rows) for _, rows in transaction)
