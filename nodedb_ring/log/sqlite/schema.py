"""The log's tables, and the statements that read and write them.

Numbers are stored as SQLite's integers, so up to 2**63 - 1.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "APPEND",
    "APPENDED_COMMIT",
    "BATCH_AT",
    "COLUMNS_BESIDE_CORE",
    "COMMITS_FROM",
    "COMMIT_AT",
    "COVERING",
    "CREATE_TABLES",
    "DELETE_TRIMMED",
    "DROP_GROUP",
    "HOLDER",
    "LAST_COMMIT",
    "LAST_SEQUENCE",
    "LOAD_WATERMARK",
    "LOG_TABLES",
    "MIGRATE_FROM_1",
    "MOST",
    "NEXT_BATCH",
    "NEXT_BATCHES",
    "REMEMBER_LAST",
    "ROW_AT",
    "SAVE_WATERMARK",
    "SCHEMA_VERSION",
    "SET_HOLDER",
    "TRIMMED",
    "TRIMMED_BATCH",
]

SCHEMA_VERSION: Final = 2
"""Of the tables. ``CREATE_TABLES`` writes it, too."""
MOST: Final = 2**63 - 1
"""The largest number that SQLite stores."""

LOG_TABLES: Final = frozenset(
    {
        "nodedb_ring_log",
        "nodedb_ring_core",
        "nodedb_ring_watermark",
        "nodedb_ring_follower",
        "nodedb_ring_log_version",
    }
)
"""The tables of a log, in a database that may have others."""

CREATE_TABLES: Final = """
CREATE TABLE IF NOT EXISTS nodedb_ring_log(
    core_id INTEGER NOT NULL,
    first_sequence INTEGER NOT NULL,
    last_sequence INTEGER NOT NULL,
    count INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    batch_id INTEGER NOT NULL DEFAULT 0,
    commit_number INTEGER NOT NULL DEFAULT 0,
    rows BLOB NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (core_id, first_sequence)
);
CREATE TABLE IF NOT EXISTS nodedb_ring_core(
    core_id INTEGER PRIMARY KEY,
    last_sequence INTEGER NOT NULL,
    trimmed_sequence INTEGER,
    trimmed_batch_id INTEGER,
    trimmed_commit INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS nodedb_ring_watermark(
    group_name TEXT NOT NULL,
    core_id INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    first_sequence INTEGER,
    batch_id INTEGER,
    PRIMARY KEY (group_name, core_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS nodedb_ring_follower(
    group_name TEXT NOT NULL,
    core_id INTEGER NOT NULL,
    pid INTEGER NOT NULL,
    host TEXT NOT NULL,
    since REAL NOT NULL,
    PRIMARY KEY (group_name, core_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS nodedb_ring_log_version(version INTEGER PRIMARY KEY, log_id TEXT NOT NULL DEFAULT '');
INSERT INTO nodedb_ring_log_version
    SELECT 2, lower(hex(randomblob(8))) WHERE NOT EXISTS (SELECT 1 FROM nodedb_ring_log_version);
"""
"""Makes the tables where they are missing; run it in a transaction. ``nodedb_ring_core`` knows the highest number of a
core, which the log itself may not have any more, and the last batch that was trimmed. ``batch_id`` is drawn at random
when a batch is stored, and stands before the blobs, which SQLite would otherwise walk through to find it.

``commit_number`` is the number of the commit that a capture stored the row with. In a row of anybody else it is minus
the last such number that was given before, or 0. So the row that was stored last has the database's last number, and no
commit has to write another page for it. Of rows that were trimmed, ``trimmed_commit`` has it."""

MIGRATE_FROM_1: Final = (
    "ALTER TABLE nodedb_ring_log ADD COLUMN batch_id INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE nodedb_ring_core ADD COLUMN trimmed_sequence INTEGER",
    "ALTER TABLE nodedb_ring_core ADD COLUMN trimmed_batch_id INTEGER",
    "ALTER TABLE nodedb_ring_watermark ADD COLUMN first_sequence INTEGER",
    "ALTER TABLE nodedb_ring_watermark ADD COLUMN batch_id INTEGER",
    "ALTER TABLE nodedb_ring_log_version ADD COLUMN log_id TEXT NOT NULL DEFAULT ''",
    "CREATE TABLE nodedb_ring_follower(group_name TEXT NOT NULL, core_id INTEGER NOT NULL, pid INTEGER NOT NULL,"
    " host TEXT NOT NULL, since REAL NOT NULL, PRIMARY KEY (group_name, core_id)) WITHOUT ROWID",
    "ALTER TABLE nodedb_ring_log ADD COLUMN commit_number INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE nodedb_ring_core ADD COLUMN trimmed_commit INTEGER NOT NULL DEFAULT 0",
    "UPDATE nodedb_ring_log_version SET version = 2, log_id = lower(hex(randomblob(8)))",
)
"""Makes tables of version 1 those of version 2; run it in a transaction. No stored batch is rewritten."""

# Without max() and coalesce(): a capture runs it on the application's connection, which may have its own.
LAST_SEQUENCE: Final = """(SELECT last FROM (
    SELECT (SELECT last_sequence FROM nodedb_ring_log WHERE core_id = ?1 ORDER BY first_sequence DESC LIMIT 1) AS last
    UNION ALL SELECT (SELECT last_sequence FROM nodedb_ring_core WHERE core_id = ?1)
    UNION ALL SELECT -1) ORDER BY last DESC LIMIT 1)"""

LAST_COMMIT: Final = """(SELECT number FROM (
    SELECT (SELECT CASE WHEN commit_number < 0 THEN -commit_number ELSE commit_number END FROM nodedb_ring_log
        ORDER BY rowid DESC LIMIT 1) AS number
    UNION ALL SELECT trimmed_commit FROM nodedb_ring_core
    UNION ALL SELECT 0) ORDER BY number DESC LIMIT 1)"""
"""The number of the database's last captured commit; 0 before the first."""
APPENDED_COMMIT: Final = f"CASE WHEN ?{{0}} > 0 THEN ?{{0}} ELSE -{LAST_COMMIT} END"
"""The ``commit_number`` of a row, of the binding with that number: 0 is of no commit."""

APPEND: Final = (
    "INSERT INTO nodedb_ring_log(core_id, first_sequence, last_sequence, count, checksum, rows, payload,"  # noqa: S608
    f" batch_id, commit_number) VALUES (?1, CASE WHEN ?2 > {LAST_SEQUENCE} THEN ?2 END, ?3, ?4, ?5, ?6, ?7, ?8,"
    f" {APPENDED_COMMIT.format(9)})"
)
"""Appends one row. It violates the NOT NULL of ``first_sequence`` where the log has the number or a higher one."""
COLUMNS_BESIDE_CORE: Final = 8
"""Columns of ``nodedb_ring_log`` beside ``core_id``."""

COVERING: Final = (
    "SELECT first_sequence FROM nodedb_ring_log WHERE core_id = ? AND first_sequence <= ?"
    " ORDER BY first_sequence DESC LIMIT 1"
)
"""The first number of the row that may have a number of a core."""
NEXT_BATCHES: Final = (
    "SELECT first_sequence, last_sequence, count, checksum, rows, payload FROM nodedb_ring_log"
    " WHERE core_id = ?1 AND first_sequence > ?2 AND first_sequence <= ?3 ORDER BY first_sequence"
)
"""The rows of a core that begin above one number and at most at another."""
NEXT_BATCH: Final = f"{NEXT_BATCHES} LIMIT 1"
"""The first of these rows."""
# first_sequence <= last_sequence, so the bound of the first ends the scan.
TRIMMED: Final = (
    "SELECT rowid FROM nodedb_ring_log"
    " WHERE core_id = ?1 AND first_sequence <= ?2 AND last_sequence <= ?2 ORDER BY first_sequence LIMIT ?3"
)
"""Rows of a core that have no number above one, so many of them at most."""
DELETE_TRIMMED: Final = f"DELETE FROM nodedb_ring_log WHERE rowid IN ({TRIMMED})"  # noqa: S608
REMEMBER_LAST: Final = (
    f"INSERT OR REPLACE INTO nodedb_ring_core SELECT ?1, {LAST_SEQUENCE}, first_sequence, batch_id,"  # noqa: S608
    " CASE WHEN commit_number < 0 THEN -commit_number ELSE commit_number END FROM nodedb_ring_log"
    " WHERE core_id = ?1 AND first_sequence <= ?2 AND last_sequence <= ?2"
    " ORDER BY first_sequence DESC LIMIT 1"
)
"""Keeps, of what a trim to ``?2`` will delete, the last batch's id and commit, and the core's highest number."""

BATCH_AT: Final = """SELECT first_sequence, batch_id FROM (
    SELECT * FROM (SELECT first_sequence, batch_id FROM nodedb_ring_log
        WHERE core_id = ?1 AND first_sequence <= ?2 ORDER BY first_sequence DESC LIMIT 1)
    UNION ALL SELECT trimmed_sequence, trimmed_batch_id FROM nodedb_ring_core
        WHERE core_id = ?1 AND trimmed_sequence <= ?2) ORDER BY first_sequence DESC LIMIT 1"""
"""The last batch of a core that begins at or before a number, be it trimmed."""
TRIMMED_BATCH: Final = "SELECT trimmed_sequence FROM nodedb_ring_core WHERE core_id = ?"
"""The first number of the last batch that was trimmed."""

ROW_AT: Final = (
    "SELECT first_sequence FROM nodedb_ring_log WHERE core_id = ?1 AND first_sequence <= ?2 AND last_sequence >= ?2"
    " ORDER BY first_sequence DESC LIMIT 1"
)
"""The first number of the row that a number of a core lies in."""
COMMITS_FROM: Final = (
    "SELECT commit_number, last_sequence, first_sequence FROM nodedb_ring_log"
    " WHERE core_id = ? AND first_sequence >= ? ORDER BY first_sequence LIMIT 16"
)
"""The commits of a core's rows from one on, some of them."""
COMMIT_AT: Final = """SELECT commit_number FROM (
    SELECT * FROM (SELECT first_sequence, commit_number FROM nodedb_ring_log
        WHERE core_id = ?1 AND first_sequence <= ?2 ORDER BY first_sequence DESC LIMIT 1)
    UNION ALL SELECT trimmed_sequence, trimmed_commit FROM nodedb_ring_core
        WHERE core_id = ?1 AND trimmed_sequence <= ?2) ORDER BY first_sequence DESC LIMIT 1"""
"""The commit of the last row of a core that begins at or before a number, be it trimmed."""

LOAD_WATERMARK: Final = (
    "SELECT sequence, first_sequence, batch_id FROM nodedb_ring_watermark WHERE group_name = ? AND core_id = ?"
)
SAVE_WATERMARK: Final = f"""INSERT OR REPLACE INTO nodedb_ring_watermark
    SELECT ?3, ?1, CASE WHEN ?4 OR NOT EXISTS (SELECT 1 FROM nodedb_ring_watermark
            WHERE group_name = ?3 AND core_id = ?1 AND sequence > ?2) THEN ?2 END,
        first_sequence, batch_id FROM (SELECT 1) LEFT JOIN ({BATCH_AT})"""  # noqa: S608
"""Saves a watermark with the batch that it lies in. It violates the NOT NULL of ``sequence`` where a higher one is
stored, unless the last binding allows that."""

DROP_GROUP: Final = (
    "DELETE FROM nodedb_ring_watermark WHERE group_name = ?",
    "DELETE FROM nodedb_ring_follower WHERE group_name = ?",
)
HOLDER: Final = "SELECT pid, host, since FROM nodedb_ring_follower WHERE group_name = ? AND core_id = ?"
SET_HOLDER: Final = "INSERT OR REPLACE INTO nodedb_ring_follower VALUES (?, ?, ?, ?, ?)"
