"""The PostgreSQL database of the demo: what it makes there and removes again, and flights written by ordinary SQL.

The tables are those of `database.py`. All that the demo makes has one name, so that whatever a killed demo leaves is
found by it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Sequence
from typing import Final

import psycopg2
import psycopg2.extensions
import psycopg2.extras

from ...capture.postgres import PostgresCapture
from ...capture.postgres.connection import open_sql, refused, shown_dsn
from ...capture.postgres.slot import check_server
from ...errors import CaptureError
from ..termination import termination_deferred
from .flights import Flight
from .totals import CarrierTotals, TotalsByCarrier
from .transactions import Statements, transactions

__all__ = ["NAME", "ask_database", "demo_dsn", "demo_objects", "end_position", "write_flights"]

NAME: Final = "nodedb_ring_demo"
"""Of the schema, the publication and the slot."""

# Making a slot waits for all transactions that are open, and Ctrl-C cannot end a statement that waits.
_LOCK_TIMEOUT: Final = "10s"
_BATCH_ROWS: Final = 500  # statements that are sent together

# Of a deleted row the server sends the key alone, so the carrier is a part of it.
_MAKE: Final = """
CREATE SCHEMA nodedb_ring_demo;
CREATE TABLE nodedb_ring_demo.flights (
    flight_id integer,
    date date NOT NULL,
    carrier text,
    number integer NOT NULL,
    tailnum text,
    origin text NOT NULL,
    dest text NOT NULL,
    sched_dep_time integer NOT NULL,
    dep_time integer,
    dep_delay integer,
    PRIMARY KEY (flight_id, carrier)
);
CREATE TABLE nodedb_ring_demo.cancellations (flight_id integer PRIMARY KEY, carrier text NOT NULL);
CREATE FUNCTION nodedb_ring_demo.flight_cancelled() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO nodedb_ring_demo.cancellations VALUES (old.flight_id, old.carrier);
    RETURN NULL;
END $$;
CREATE TRIGGER flight_cancelled AFTER DELETE ON nodedb_ring_demo.flights
    FOR EACH ROW EXECUTE FUNCTION nodedb_ring_demo.flight_cancelled();
CREATE PUBLICATION nodedb_ring_demo FOR TABLE nodedb_ring_demo.flights
"""
_FIND: Final = """
SELECT 'slot' FROM pg_replication_slots WHERE slot_name = 'nodedb_ring_demo'
UNION ALL SELECT 'publication' FROM pg_publication WHERE pubname = 'nodedb_ring_demo'
UNION ALL SELECT 'schema' FROM pg_namespace WHERE nspname = 'nodedb_ring_demo'
"""
_REMOVE: Final = {
    "slot": "SELECT pg_drop_replication_slot('nodedb_ring_demo')",
    "publication": "DROP PUBLICATION nodedb_ring_demo",
    "schema": "DROP SCHEMA nodedb_ring_demo CASCADE",
}

_STATEMENTS: Final = Statements(
    schedule="INSERT INTO nodedb_ring_demo.flights VALUES (%s, %s, %s, %s, %s, %s, %s, %s, NULL, NULL)",
    depart="UPDATE nodedb_ring_demo.flights SET dep_time = %s, dep_delay = %s WHERE flight_id = %s",
    cancel="DELETE FROM nodedb_ring_demo.flights WHERE flight_id = %s",
)

_TOTALS: Final = """
WITH written AS (
    SELECT carrier, dep_delay, 0 AS cancelled FROM nodedb_ring_demo.flights
    UNION ALL
    SELECT carrier, NULL, 1 FROM nodedb_ring_demo.cancellations
)
SELECT carrier, count(*), count(dep_delay), sum(cancelled), coalesce(sum(dep_delay), 0)
FROM written GROUP BY carrier ORDER BY carrier
"""


def demo_dsn(dsn: str) -> str:
    """The DSN with what the demo's sessions need, besides the user's own options.

    Raises
    ------
    CaptureError
        It is none.
    """
    try:
        given = psycopg2.extensions.parse_dsn(dsn)
    except psycopg2.ProgrammingError as error:
        raise refused("--postgres takes a DSN, such as postgresql://user@host/database", error) from error
    # With commits on the server's disk, `end_position` is behind them.
    own = f"-c lock_timeout={_LOCK_TIMEOUT} -c synchronous_commit=local"
    given["options"] = f"{given.get('options', '')} {own}".strip()
    return str(psycopg2.extensions.make_dsn(**given))


@contextlib.contextmanager
def demo_objects(dsn: str, capture: PostgresCapture) -> Generator[None, None, None]:
    """In the block the server has the demo's schema, publication and slot. Only in the main thread.

    They are removed at the end, also after an exception, and `capture` is closed before. Signals wait meanwhile.

    Raises
    ------
    CaptureError
        The server refuses, or has one of them already, which then stays; or they could not be removed: the message says
        how to do it.
    """
    with _session(dsn) as cursor:
        check_server(cursor)
        _refuse_what_is_there(cursor)
    made: list[str] = []
    try:
        try:
            with termination_deferred():
                _make(dsn, capture, made)
            yield
        finally:
            _remove(dsn, capture, made)
    finally:
        # If a signal has come before that had begun.
        _remove(dsn, capture, made)


def _refuse_what_is_there(cursor: psycopg2.extensions.cursor) -> None:
    cursor.execute(_FIND)
    there: list[str] = [what for (what,) in cursor.fetchall()]
    if there:
        raise CaptureError(
            f"{' and '.join(there)} {NAME}: exists already, of a demo that runs or was killed; if none runs, remove it:"
            f" {'; '.join(_REMOVE[what] for what in there)}"
        )


def _make(dsn: str, capture: PostgresCapture, made: list[str]) -> None:
    """Makes schema, publication and slot, and writes into `made` what there is to remove, however it ends."""
    with _session(dsn) as cursor:
        # One transaction. If two demos begin at once, one of them is refused by the name of the schema.
        cursor.execute(_MAKE)
    made += ["slot", "publication", "schema"]
    if not capture.ensure_slot():
        made.remove("slot")
        raise CaptureError(f"slot {NAME}: exists already; another demo may run in another database of the server")


def _remove(dsn: str, capture: PostgresCapture, made: list[str]) -> None:
    """Removes what was made; what fails does not keep the rest from being removed."""
    with termination_deferred():
        # What has ended it was raised before.
        with contextlib.suppress(Exception):
            capture.close()
        failed: dict[str, Exception] = {}
        while made:
            what = made.pop(0)
            try:
                if what == "slot":
                    capture.drop_slot()
                else:
                    with _session(dsn) as cursor:
                        cursor.execute(_REMOVE[what])
            except CaptureError as error:
                failed[what] = error
    if failed:
        raise CaptureError(
            f"not removed from the server: {' and '.join(failed)} {NAME}; remove it:"
            f" {'; '.join(_REMOVE[what] for what in failed)} ({next(iter(failed.values()))})"
        )


@contextlib.contextmanager
def _session(dsn: str) -> Generator[psycopg2.extensions.cursor, None, None]:
    """A connection of the demo, on which each statement is a transaction; its errors are `CaptureError`."""
    try:
        with contextlib.closing(open_sql(dsn)) as connection, connection.cursor() as cursor:
            yield cursor
    except psycopg2.Error as error:
        raise refused(shown_dsn(dsn), error) from error


def write_flights(dsn: str, flights: Sequence[Flight], stop: threading.Event) -> None:
    """Writes `flights` in transactions, on a connection of its own, until `stop` is set."""
    with _session(dsn) as cursor:
        cursor.connection.autocommit = False
        for transaction in transactions(flights, _STATEMENTS):
            if stop.is_set():
                return
            with cursor.connection:
                for sql, rows in transaction:
                    psycopg2.extras.execute_batch(cursor, sql, rows, _BATCH_ROWS)


def end_position(dsn: str) -> int:
    """The LSN behind all that is committed: a capture that has confirmed it has delivered every change before."""
    with _session(dsn) as cursor:
        cursor.execute("SELECT pg_current_wal_flush_lsn() - '0/0'")
        [(position,)] = cursor.fetchall()
    return int(position)


def ask_database(dsn: str) -> TotalsByCarrier:
    """The totals by carrier, computed by SQL on the server."""
    with _session(dsn) as cursor:
        cursor.execute(_TOTALS)
        return {
            carrier: CarrierTotals(scheduled, flown, cancelled, int(delay))
            for carrier, scheduled, flown, cancelled, delay in cursor.fetchall()
        }
