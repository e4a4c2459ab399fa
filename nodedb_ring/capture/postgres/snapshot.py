"""The rows that the tables of a publication have when its slot is made.

::

    temporary slot ──► its position ──► the stream begins here
          └──► a transaction that sees the tables at that position ──► rows

The slot itself is a copy of the temporary one, made when all rows are delivered. So whatever is killed before leaves no
slot, and the next start takes a new snapshot; and after it, there is a slot from which the stream goes on.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Callable

from ._copy import CopyReader
from ._pgoutput import Decoder
from .connection import open_replication, parsed_lsn
from .position import Position
from .slot import PLUGIN
from .source import Source
from .tables import published_tables

__all__ = ["take_snapshot"]


def take_snapshot(
    source: Source,
    decoder: Decoder,
    deliver: Callable[[], None],
    flush: Callable[[], None],
    *,
    clear: bool,
) -> Position:
    """Delivers all rows, and makes the slot; returns the position that the rows belong to.

    Parameters
    ----------
    deliver : callable
        Takes what the decoder has.
    flush : callable
        Returns when all that was taken is delivered.
    clear : bool
        Whether a BULK_DELETE of each table comes first: an earlier snapshot, or another slot, may have delivered rows.
    """
    connection = open_replication(source.dsn)
    try:
        cursor = connection.cursor()
        temporary = f"nodedb_ring_{secrets.token_hex(8)}"
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        cursor.execute(f"CREATE_REPLICATION_SLOT {temporary} TEMPORARY LOGICAL {PLUGIN} USE_SNAPSHOT")
        [(_name, point, *_)] = cursor.fetchall()
        lsn = parsed_lsn(point)
        tables = published_tables(cursor, source.publication)
        decoder.start_snapshot(lsn)
        for table in tables:
            decoder.describe(table.description())
        if clear and tables:
            decoder.describe(struct.pack(f">cIB{len(tables)}I", b"T", len(tables), 0, *(table.oid for table in tables)))
        for table in tables:
            reader = CopyReader(decoder, table.oid, deliver)
            cursor.copy_expert(table.copy_statement(), reader)
            reader.finish()
        deliver()
        flush()
        cursor.execute("COMMIT")
        cursor.execute("SELECT pg_copy_logical_replication_slot(%s, %s, false)", (temporary, source.slot))
    finally:
        connection.close()
    return Position(lsn, 0)
