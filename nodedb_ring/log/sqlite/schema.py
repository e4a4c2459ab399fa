"""The log's tables, and the statements that read and write them.

Numbers are stored as SQLite's integers, so up to 2**63 - 1.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "APPEND",
    "COLUMNS_BESIDE_CORE",
    "COVERING",
    "CREATE_TABLES",
    "DELETE_TRIMMED",
    "LAST_SEQUENCE",
    "LOAD_WATERMARK",
    "LOG_TABLES",
    "MOST",
    "NEXT_BATCH",
    "REMEMBER_LAST",
    "SAVE_WATERMARK",
    "SCHEMA_VERSION",
    "TRIMMED",
]

SCHEMA_VERSION: Final = 1
"""Of the tables. ``CREATE_TABLES`` writes it, too."""
MOST: Final = 2**63 - 1
"""The largest number that SQLite stores."""

LOG_TABLES: Final = frozenset(
    {"nodedb_ring_log", "nodedb_ring_core", "nodedb_ring_watermark", "nodedb_ring_log_version"}
)
"""The tables of a log, in a database that may have others."""

CREATE_TABLES: Final = """
CREATE TABLE IF NOT EXISTS nodedb_ring_log(
    core_id INTEGER NOT NULL,
    first_sequence INTEGER NOT NULL,
    last_sequence INTEGER NOT NULL,
    count INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    rows BLOB NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (core_id, first_sequence)
);
CREATE TABLE IF NOT EXISTS nodedb_ring_core(core_id INTEGER PRIMARY KEY, last_sequence INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS nodedb_ring_watermark(
    group_name TEXT NOT NULL,
    core_id INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (group_name, core_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS nodedb_ring_log_version(version INTEGER PRIMARY KEY);
INSERT INTO nodedb_ring_log_version
    SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM nodedb_ring_log_version);
"""
"""Makes the tables where they are missing; run it in a transaction. ``nodedb_ring_core`` knows the highest number of a
core that was trimmed, which the log itself may not have any more."""

# Without max() and coalesce(): a capture runs it on the application's connection, which may have its own.
LAST_SEQUENCE: Final = """(SELECT last FROM (
    SELECT (SELECT last_sequence FROM nodedb_ring_log WHERE core_id = ?1 ORDER BY first_sequence DESC LIMIT 1) AS last
    UNION ALL SELECT (SELECT last_sequence FROM nodedb_ring_core WHERE core_id = ?1)
    UNION ALL SELECT -1) ORDER BY last DESC LIMIT 1)"""

APPEND: Final = (
    "INSERT INTO nodedb_ring_log(core_id, first_sequence, last_sequence, count, checksum, rows, payload)"  # noqa: S608
    f" VALUES (?1, CASE WHEN ?2 > {LAST_SEQUENCE} THEN ?2 END, ?3, ?4, ?5, ?6, ?7)"
)
"""Appends one row. It violates the NOT NULL of ``first_sequence`` where the log has the number or a higher one."""
COLUMNS_BESIDE_CORE: Final = 6
"""Columns of ``nodedb_ring_log`` beside ``core_id``."""

COVERING: Final = (
    "SELECT first_sequence FROM nodedb_ring_log WHERE core_id = ? AND first_sequence <= ?"
    " ORDER BY first_sequence DESC LIMIT 1"
)
"""The first number of the row that may have a number of a core."""
NEXT_BATCH: Final = (
    "SELECT first_sequence, last_sequence, count, checksum, rows, payload FROM nodedb_ring_log"
    " WHERE core_id = ?1 AND first_sequence > ?2 AND first_sequence <= ?3 ORDER BY first_sequence LIMIT 1"
)
"""The first row of a core that begins above one number and at most at another."""
# first_sequence <= last_sequence, so the bound of the first ends the scan.
TRIMMED: Final = (
    "SELECT rowid FROM nodedb_ring_log"
    " WHERE core_id = ?1 AND first_sequence <= ?2 AND last_sequence <= ?2 ORDER BY first_sequence LIMIT ?3"
)
"""Rows of a core that have no number above one, so many of them at most."""
DELETE_TRIMMED: Final = f"DELETE FROM nodedb_ring_log WHERE rowid IN ({TRIMMED})"  # noqa: S608
REMEMBER_LAST: Final = f"INSERT OR REPLACE INTO nodedb_ring_core VALUES (?1, {LAST_SEQUENCE})"  # noqa: S608
LOAD_WATERMARK: Final = "SELECT sequence FROM nodedb_ring_watermark WHERE group_name = ? AND core_id = ?"
SAVE_WATERMARK: Final = "INSERT OR REPLACE INTO nodedb_ring_watermark VALUES (?, ?, ?)"
