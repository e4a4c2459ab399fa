"""The server's side of a capture: what it must have, and the replication slot."""

from __future__ import annotations

import math
import time
from typing import Final, NamedTuple

import psycopg2
import psycopg2.errors
import psycopg2.extensions

from ...errors import CaptureError
from .connection import refused

__all__ = ["PLUGIN", "Slot", "check_publication", "check_server", "create_slot", "drop_slot", "find_slot", "slot_lag"]

PLUGIN = "pgoutput"

_OLDEST = 130000
"""PostgreSQL 13, in which a slot can be copied, and says whether it is lost."""

_PAUSE: Final = 0.02
"""Seconds between two attempts to drop a slot in use."""

# A table of the publication whose UPDATEs or DELETEs the server refuses, because nothing would identify the old row.
_WITHOUT_IDENTITY = """
SELECT format('%%I.%%I', t.schemaname, t.tablename)
FROM pg_publication AS p JOIN pg_publication_tables AS t USING (pubname)
JOIN pg_namespace AS n ON n.nspname = t.schemaname
JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = t.tablename
WHERE p.pubname = %s AND (p.pubupdate OR p.pubdelete)
AND c.relreplident <> 'f' AND NOT EXISTS (
    SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indimmediate
    AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END)
ORDER BY 1 LIMIT 1"""

_SLOT = """
SELECT plugin, database, active_pid, confirmed_flush_lsn - '0/0', wal_status FROM pg_replication_slots
WHERE slot_name = %s"""


class Slot(NamedTuple):
    """A replication slot as the server shows it."""

    plugin: str | None
    database: str | None
    active_pid: int | None
    confirmed_lsn: int | None
    wal_status: str | None


def check_server(cursor: psycopg2.extensions.cursor) -> None:
    """Refuses a server that cannot decode its log.

    Raises
    ------
    CaptureError
    """
    version = cursor.connection.server_version
    if version < _OLDEST:
        raise CaptureError(f"PostgreSQL {version // 10000}: is too old; capture needs 13 or newer")
    cursor.execute("SHOW wal_level")
    [(level,)] = cursor.fetchall()
    if level != "logical":
        raise CaptureError(
            f"wal_level is {level}: changes cannot be decoded; run ALTER SYSTEM SET wal_level = logical, and restart"
            " the server"
        )


def check_publication(cursor: psycopg2.extensions.cursor, publication: str) -> None:
    """Refuses a publication that is missing, or has a table whose changes the server would refuse.

    Raises
    ------
    CaptureError
    """
    cursor.execute("SELECT FROM pg_publication WHERE pubname = %s", (publication,))
    if not cursor.rowcount:
        raise CaptureError(
            f"publication {publication!r}: does not exist in this database; run CREATE PUBLICATION {publication} FOR"
            " ALL TABLES, or for some"
        )
    cursor.execute(_WITHOUT_IDENTITY, (publication,))
    for (table,) in cursor.fetchall():
        raise CaptureError(
            f"table {table}: has no replica identity, so the server refuses its UPDATEs and DELETEs while publication"
            f" {publication!r} has it; add a primary key, or run ALTER TABLE {table} REPLICA IDENTITY FULL"
        )


def find_slot(cursor: psycopg2.extensions.cursor, name: str) -> Slot | None:
    """The slot; None if there is none.

    Raises
    ------
    CaptureError
        It is of another plugin or another database, or the server has removed the log that it needs.
    """
    cursor.execute(_SLOT, (name,))
    found = cursor.fetchall()
    if not found:
        return None
    slot = Slot(found[0][0], found[0][1], found[0][2], None if found[0][3] is None else int(found[0][3]), found[0][4])
    cursor.execute("SELECT current_database()")
    [(database,)] = cursor.fetchall()
    if slot.plugin != PLUGIN or slot.database != database:
        raise CaptureError(
            f"slot {name!r}: is of plugin {slot.plugin} and database {slot.database}, not of {PLUGIN} and {database};"
            " choose another name"
        )
    if slot.wal_status == "lost":
        raise CaptureError(
            f"slot {name!r}: the server has removed WAL that it needs, because it was above max_slot_wal_keep_size;"
            " call drop_slot(), and capture with a new snapshot"
        )
    return slot


def create_slot(cursor: psycopg2.extensions.cursor, name: str) -> None:
    """Makes it at the server's present position.

    Raises
    ------
    CaptureError
    """
    try:
        cursor.execute("SELECT pg_create_logical_replication_slot(%s, %s)", (name, PLUGIN))
    except psycopg2.Error as error:
        raise refused(f"slot {name!r} was not created", error) from error


def drop_slot(cursor: psycopg2.extensions.cursor, name: str, patience: float | None) -> None:
    """Drops it, and with it what keeps the server from removing its log.

    Parameters
    ----------
    cursor : cursor of psycopg2
    name : str
    patience : float or None
        Seconds for which a slot in use is waited for: the server may notice late that its capture has gone. None waits
        without a limit.

    Raises
    ------
    CaptureError
        Somebody uses it.
    """
    until = math.inf if patience is None else time.monotonic() + patience
    while True:
        try:
            cursor.execute("SELECT pg_drop_replication_slot(%s)", (name,))
        except psycopg2.errors.ObjectInUse as error:
            if time.monotonic() >= until:
                raise CaptureError(
                    f"slot {name!r} was not dropped: {error.diag.message_primary}; stop its capture"
                ) from error
            time.sleep(_PAUSE)
        except psycopg2.Error as error:
            raise refused(f"slot {name!r} was not dropped", error) from error
        else:
            return


def slot_lag(cursor: psycopg2.extensions.cursor, name: str) -> int | None:
    """Bytes of log between what the server has written and what was confirmed to it; None without such a slot."""
    cursor.execute(
        "SELECT pg_current_wal_flush_lsn() - confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = %s",
        (name,),
    )
    found = cursor.fetchall()
    return int(found[0][0]) if found and found[0][0] is not None else None
