"""Opening a log's file: the checks of its tables, their creation, and their migration from an older version."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import numpy as np

from ...batch.schema import EVENT_DTYPE
from ...errors import ArgumentError, LogError
from .drivers import Access, Connection
from .errors import is_busy
from .schema import CREATE_TABLES, LOG_TABLES, MIGRATE_FROM_1, MOST, SCHEMA_VERSION

__all__ = [
    "BUSY_SECONDS",
    "CHECKPOINT_BYTES",
    "PAGE_BYTES",
    "file_path",
    "is_alone",
    "log_id_of",
    "read_only_connection",
    "set_up",
]

PAGE_BYTES: Final = 8 * 1024
"""Of a new file. An append of one event writes two pages; one of a thousand is slower the smaller they are."""
CHECKPOINT_BYTES: Final = 4 * 1024 * 1024
"""What an append may find to copy from the WAL into the database: SQLite's own default at its own page size."""
BUSY_SECONDS: Final = 10.0
"""For how long a call waits while another connection holds the file locked."""

Driver: TypeAlias = Callable[[str, float, Access], Connection]

_TABLES: Final = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' ESCAPE '~'"


def file_path(path: str | os.PathLike[str]) -> str:
    """The absolute path of a log's file. Names with a special meaning to SQLite are refused, and no file is made."""
    given = os.fspath(path)
    if not isinstance(given, str):
        raise TypeError(f"path {path!r}: must be a str or a path of str; os.fsdecode() makes one of bytes")
    if not given or given == ":memory:":
        raise ArgumentError(
            f"path {given!r}: a log is a file, which a follower opens too; name one, in /dev/shm if it need not outlive"
            " the machine"
        )
    if given.startswith("file:"):
        raise ArgumentError(
            f"path {given!r}: is a URI, whose options a log does not take; pass the path alone, or './{given}' for a"
            " file of this very name"
        )
    return os.path.abspath(given)


def set_up(connection: Connection, path: str, *, is_new: bool, synchronous: Literal["NORMAL", "FULL"]) -> None:
    """Prepares a file to be written: its settings if it is a log alone, and its tables."""
    if is_new:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    names = _check_names(connection, path)
    if names <= LOG_TABLES:
        _use_write_ahead_log(connection)
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    [(page_bytes,)] = connection.query("PRAGMA page_size")
    connection.query(f"PRAGMA wal_autocheckpoint = {max(1, CHECKPOINT_BYTES // int(page_bytes))}")
    _make_tables(connection, names)


def is_alone(connection: Connection, path: str) -> bool:
    """Whether the file has nothing but a log."""
    return _check_names(connection, path) <= LOG_TABLES


def _make_tables(connection: Connection, names: set[str]) -> None:
    """Makes the tables that are missing of `names`, or brings them to this version."""
    version_1 = "nodedb_ring_log_version" in names and _versions(connection) == [1]
    if not names >= LOG_TABLES and not version_1:
        # If an exception comes between, the caller closes the connection, which rolls back what it had begun.
        connection.execute("BEGIN IMMEDIATE")
        for statement in CREATE_TABLES.split(";")[:-1]:
            connection.execute(statement)
        connection.execute("COMMIT")
    elif version_1:
        _migrate(connection)


def _migrate(connection: Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    # Another process may have done it meanwhile.
    if _versions(connection) == [1]:
        for statement in MIGRATE_FROM_1:
            connection.execute(statement)
        # Captures of version 1 counted for each core alone: the numbers that all have in common lie above those.
        connection.execute(_SET_LAST_COMMIT, (_highest_lsn(connection),))
    connection.execute("COMMIT")


_SET_LAST_COMMIT: Final = (
    "UPDATE nodedb_ring_log SET commit_number = -?1 WHERE rowid = (SELECT max(rowid) FROM nodedb_ring_log)"
)


def _highest_lsn(connection: Connection) -> int:
    """The highest ``lsn`` of the cores' last events that leaves room for higher ones."""
    query = (
        "SELECT rows FROM nodedb_ring_log JOIN (SELECT core_id, max(first_sequence) AS first_sequence"
        " FROM nodedb_ring_log GROUP BY core_id) USING (core_id, first_sequence)"
    )
    whole = (rows for (rows,) in connection.query(query) if rows and len(rows) % EVENT_DTYPE.itemsize == 0)
    found = (int(np.frombuffer(rows, EVENT_DTYPE)["lsn"][-1]) for rows in whole)
    return max((lsn for lsn in found if lsn < MOST // 2), default=0)


def log_id_of(connection: Connection, path: str, *, read_only: bool) -> str:
    """The log's id.

    Raises
    ------
    LogError
        There is no log in the file, or one of another version.
    """
    if read_only and "nodedb_ring_log_version" not in _check_names(connection, path):
        raise LogError(f"{path}: has no log; whoever appends makes it")
    versions = _versions(connection)
    if versions == [1] and read_only:
        raise LogError(
            f"{path}: its log is of version 1, and this is version {SCHEMA_VERSION}; open it once without read_only,"
            " which brings it to this version"
        )
    if versions != [SCHEMA_VERSION]:
        found = ", ".join(map(str, versions)) or "none"
        raise LogError(
            f"{path}: its log is of version {found}, and this is version {SCHEMA_VERSION};"
            " open it with the release that wrote it, or keep the log in another file"
        )
    [(log_id,)] = connection.query("SELECT log_id FROM nodedb_ring_log_version")
    return str(log_id)


def read_only_connection(connection: Connection, driver: Driver, path: str) -> tuple[Connection, Access, str]:
    """A connection that reads the log, `connection` or another one, how it does, and the log's id.

    SQLite makes a file beside a log in WAL mode even to read it. If that fails, because the disk is full or the
    directory cannot be written, and there is no WAL, nobody has the log open: then it is read without.
    """
    try:
        return connection, Access.READ, log_id_of(connection, path, read_only=True)
    except connection.errors as error:
        wal = f"{path}-wal"
        if is_busy(connection.code(error)) or (os.path.exists(wal) and os.path.getsize(wal)):
            raise
        other = driver(path, BUSY_SECONDS, Access.IMMUTABLE)
        try:
            log_id = log_id_of(other, path, read_only=True)
        except BaseException:
            other.close()
            raise
        connection.close()
        return other, Access.IMMUTABLE, log_id


def _check_names(connection: Connection, path: str) -> set[str]:
    """The tables of a file, unless some of them only look like those of a log."""
    names = {str(name) for (name,) in connection.query(_TABLES)}
    if names & LOG_TABLES and "nodedb_ring_log_version" not in names:
        found = ", ".join(sorted(names & LOG_TABLES))
        raise LogError(f"{path}: has tables {found} of something else; keep the log in another file")
    return names


def _versions(connection: Connection) -> list[int]:
    return [int(version) for (version,) in connection.query("SELECT version FROM nodedb_ring_log_version")]


def _use_write_ahead_log(connection: Connection) -> None:
    # If two processes do this to a new file at once, SQLite reports "busy" to one, without waiting.
    give_up = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.query("PRAGMA journal_mode = WAL")
        except connection.errors as error:
            if not is_busy(connection.code(error)) or time.monotonic() > give_up:
                raise
            time.sleep(0.005)
        else:
            return
