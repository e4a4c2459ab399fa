"""``SqliteEventLog``: the event log in a SQLite file, one row a batch."""

from __future__ import annotations

import errno
import operator
import os
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, Literal, Self

import numpy as np

from ..batch import EventBatch
from ..errors import ArgumentError, ClosedError, CorruptLogError, ForkError, LogError
from . import MAX_BATCH_EVENTS
from .encoding import check_rising, decode_batch, encode_batch
from .sqlite_drivers import DRIVERS, Bindings, Connection

__all__ = ["APPEND", "CREATE_TABLES", "LAST_SEQUENCE", "LOG_TABLES", "SqliteEventLog", "append_statements"]

SCHEMA_VERSION: Final = 1  # as CREATE_TABLES says
PAGE_BYTES: Final = 32 * 1024
# What an append may find to copy from the WAL into the database: SQLite's own default at its own page size.
CHECKPOINT_BYTES: Final = 4 * 1024 * 1024
TRIM_ROWS: Final = 16
PART_BYTES: Final = 64 * 1024 * 1024
BUSY_SECONDS: Final = 10.0

_MOST: Final = 2**63 - 1
# SQLite's default limit of a row, less what stands beside the payload of a single event.
_MOST_BYTES: Final = 1_000_000_000 - 1024

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

_COVERING: Final = (
    "SELECT first_sequence FROM nodedb_ring_log WHERE core_id = ? AND first_sequence <= ?"
    " ORDER BY first_sequence DESC LIMIT 1"
)
_NEXT: Final = (
    "SELECT first_sequence, last_sequence, count, checksum, rows, payload FROM nodedb_ring_log"
    " WHERE core_id = ?1 AND first_sequence > ?2 AND first_sequence <= ?3 ORDER BY first_sequence LIMIT 1"
)
# The first number of a batch is no higher than its last: the bound ends the scan.
_TRIMMED: Final = (
    "SELECT first_sequence FROM nodedb_ring_log"
    " WHERE core_id = ?1 AND first_sequence <= ?2 AND last_sequence <= ?2 ORDER BY first_sequence LIMIT ?3"
)
_FORGET: Final = "DELETE FROM nodedb_ring_log WHERE core_id = ? AND first_sequence = ?"
_REMEMBER: Final = "INSERT OR REPLACE INTO nodedb_ring_core VALUES (?, ?)"
_LOAD: Final = "SELECT sequence FROM nodedb_ring_watermark WHERE group_name = ? AND core_id = ?"
_SAVE: Final = "INSERT OR REPLACE INTO nodedb_ring_watermark VALUES (?, ?, ?)"

# SQLite's result codes; the two drivers name them differently, or not at all.
_BUSY: Final = 5
_IOERR: Final = 10
_CORRUPT: Final = 11
_FULL: Final = 13
_CONSTRAINT: Final = 19
_NOTADB: Final = 26
_IOERR_SHMSIZE: Final = 10 | 19 << 8


def append_statements(core_id: int, batch: EventBatch) -> list[tuple[str, Bindings]]:
    """The statements that append a batch, with their bindings; to be run in one transaction. None for an empty one.

    A statement that fails with a constraint (``sqlite3.IntegrityError``, ``apsw.ConstraintError``) means that the log
    has a number of the batch or a higher one already. The bindings show the batch's memory.

    Raises
    ------
    LogConflictError
        The batch's numbers do not rise strictly.
    LogError
        A number, or one event, that is larger than SQLite can store.
    """
    statements: list[tuple[str, Bindings]] = []
    check_rising(batch)
    for part in _parts(batch):
        encoded = encode_batch(part, core_id=core_id)
        if encoded.last > _MOST:
            raise LogError(f"sequence {encoded.last}: SQLite stores numbers up to {_MOST}")
        if len(encoded.payload) > _MOST_BYTES:
            raise LogError(
                f"sequence {encoded.first}: an event of {len(encoded.payload)} bytes; at most {_MOST_BYTES} fit"
            )
        numbers = (core_id, encoded.first, encoded.last, encoded.count, encoded.checksum)
        statements.append((APPEND, (*numbers, encoded.rows, encoded.payload)))
    return statements


def _parts(batch: EventBatch) -> Iterator[EventBatch]:
    """A batch as the rows that it is stored in, each of bounded size."""
    count = len(batch)
    if count > MAX_BATCH_EVENTS:
        for at in range(0, count, MAX_BATCH_EVENTS):
            yield from _parts(batch[at : at + MAX_BATCH_EVENTS])
        return
    if count > 1 and len(batch.payload) > PART_BYTES:
        # What a slice or a lease shows may be mostly others' payload.
        batch = EventBatch.concat([batch])
        if len(batch.payload) > PART_BYTES:
            yield from _parts(batch[: count // 2])
            yield from _parts(batch[count // 2 :])
            return
    if count:
        yield batch


class SqliteEventLog:
    """An event log in a SQLite file, which may hold other tables.

    A file that it makes has pages of 32 KiB and a write-ahead log; a database with tables of its own is left as it is.
    Several processes may open the same file; of two that append the same number, one gets `LogConflictError`.

    Parameters
    ----------
    path : str or path-like
        The database file; made where there is none. Not SQLite's other names, ``":memory:"`` and ``"file:..."`` URIs.
    synchronous : {"NORMAL", "FULL"}
        What survives a loss of power. With FULL an append is on disk when it returns; with NORMAL the last ones may be
        lost then, a suffix, and nothing is lost when only the process dies.
    driver : {"sqlite3", "apsw"}
        The library that opens the file: the standard library's, or apsw. A process that uses the same file through
        apsw, as ``SqliteCapture`` does, must choose apsw: two copies of SQLite in one process drop each other's locks.

    Raises
    ------
    LogError
        The file is no database, or its log is of another version.
    ModuleNotFoundError
        ``driver="apsw"`` without apsw.
    ArgumentError
        A path that is none: empty, ``":memory:"`` or a URI. No file is made.

    Notes
    -----
    Every call may raise `ClosedError` after ``close()``, `ForkError` in a forked child, `LogError` while another
    connection holds the file locked, and ``OSError``, of ``ENOSPC`` where the disk is full: then the log is as it was.
    Sequences are stored up to 2**63 - 1. Space that was trimmed is used again; the file does not shrink.

    Thread safety
    -------------
    Any thread may call anything: calls wait for each other. An open ``read`` holds nothing between two batches.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Literal["NORMAL", "FULL"] = "NORMAL",
        driver: Literal["sqlite3", "apsw"] = "sqlite3",
    ) -> None:
        if synchronous not in {"NORMAL", "FULL"}:
            raise ValueError(f"synchronous {synchronous!r}: must be 'NORMAL' or 'FULL'")
        if driver not in DRIVERS:
            raise ValueError(f"driver {driver!r}: must be 'sqlite3' or 'apsw'")
        self._path = _file_path(path)
        self._driver: Literal["sqlite3", "apsw"] = driver
        self._synchronous: Literal["NORMAL", "FULL"] = synchronous
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        is_new = not os.path.exists(self._path) or os.path.getsize(self._path) == 0
        connection = DRIVERS[driver](self._path, BUSY_SECONDS)
        self._connection = connection
        try:
            self._set_up(connection, is_new=is_new)
        except Exception as error:
            connection.close()
            self._connection = None
            if isinstance(error, connection.errors):
                raise self._translated(connection, error) from error
            raise

    def _set_up(self, connection: Connection, *, is_new: bool) -> None:
        if is_new:
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' ESCAPE '~'"
        names = {str(name) for (name,) in connection.execute(query)}
        if names & LOG_TABLES and "nodedb_ring_log_version" not in names:
            found = ", ".join(sorted(names & LOG_TABLES))
            raise LogError(f"{self._path}: has tables {found} of something else; keep the log in another file")
        if names <= LOG_TABLES:
            self._use_write_ahead_log(connection)
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        [(page_bytes,)] = connection.execute("PRAGMA page_size")
        connection.execute(f"PRAGMA wal_autocheckpoint = {max(1, CHECKPOINT_BYTES // int(page_bytes))}")
        if not names >= LOG_TABLES:
            with _Transaction(connection):
                for statement in CREATE_TABLES.split(";")[:-1]:
                    connection.execute(statement)
        versions = connection.execute("SELECT version FROM nodedb_ring_log_version")
        if versions != [(SCHEMA_VERSION,)]:
            found = ", ".join(str(version) for (version,) in versions) or "none"
            raise LogError(
                f"{self._path}: its log is of version {found}, and this is version {SCHEMA_VERSION};"
                " open it with the release that wrote it, or keep the log in another file"
            )

    def _use_write_ahead_log(self, connection: Connection) -> None:
        # Two processes that do this to a new file at once: SQLite tells one that it is busy, without waiting.
        give_up = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except connection.errors as error:
                if connection.code(error) & 0xFF != _BUSY or time.monotonic() > give_up:
                    raise
                time.sleep(0.005)
            else:
                return

    @property
    def path(self) -> str:
        """The database file, absolute."""
        return self._path

    @property
    def driver(self) -> Literal["sqlite3", "apsw"]:
        """The library that opened it."""
        return self._driver

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._connection is None

    def append(self, core_id: int, batch: EventBatch) -> None:
        """Stores a batch, all or nothing; durable when it returns, as `synchronous` says.

        Parameters
        ----------
        core_id : int
        batch : EventBatch
            Numbers that rise strictly, above all that were appended. A batch of a slice or a lease is packed first; one
            of more than `MAX_BATCH_EVENTS` events becomes several rows of one transaction.

        Raises
        ------
        LogConflictError
            A number at or below ``last_sequence(core_id)``: another writer appended, or a number was used twice.
        """
        core_id = _number("core_id", core_id)
        statements = append_statements(core_id, batch)
        with self._lock_of_this_process():
            connection = self._open()
            try:
                if len(statements) == 1:
                    connection.execute(*statements[0])
                elif statements:
                    with _Transaction(connection):
                        for sql, bindings in statements:
                            connection.execute(sql, bindings)
            except connection.errors as error:
                if connection.code(error) & 0xFF == _CONSTRAINT:
                    check_rising(batch, self._last(connection, core_id))
                raise self._translated(connection, error) from error

    def read(self, core_id: int, first_sequence: int, last_sequence: int) -> Iterator[EventBatch]:
        """What the log has from `first_sequence` to `last_sequence`, both included, a stored batch at a time.

        One batch is in memory at a time, and no read is open in SQLite between two of them.

        Raises
        ------
        CorruptLogError
            A stored batch is damaged: names the core and its numbers. What came before it was sound.
        """
        core_id = _number("core_id", core_id)
        first, last = operator.index(first_sequence), min(operator.index(last_sequence), _MOST)
        with self._lock_of_this_process():
            self._open()
        return self._stored(core_id, max(first, 0), last)

    def _stored(self, core_id: int, first: int, last: int) -> Iterator[EventBatch]:
        if first > last:
            return
        rows = self._query(_COVERING, (core_id, first))
        after = int(rows[0][0]) - 1 if rows else first - 1
        while rows := self._query(_NEXT, (core_id, after, last)):
            [(row_first, row_last, count, checksum, row_bytes, payload)] = rows
            batch = decode_batch(
                row_bytes, payload, checksum, core_id=core_id, first=row_first, last=row_last, count=count
            )
            after = row_first
            if row_first < first or row_last > last:
                numbers = batch.sequence
                start = np.searchsorted(numbers, np.uint64(first), "left")
                stop = np.searchsorted(numbers, np.uint64(last), "right")
                batch = batch[int(start) : int(stop)]
            if len(batch):
                yield batch
            if row_last >= last:
                return

    def last_sequence(self, core_id: int) -> int | None:
        """The highest number ever appended, trimmed or not; None before the first."""
        core_id = _number("core_id", core_id)
        with self._lock_of_this_process():
            connection = self._open()
            try:
                return self._last(connection, core_id)
            except connection.errors as error:
                raise self._translated(connection, error) from error

    def trim(self, core_id: int, upto: int) -> None:
        """Forgets the batches, as they were appended, that have no number above `upto`.

        A few rows a transaction: appends get their turn in between.
        """
        core_id, upto = _number("core_id", core_id), min(operator.index(upto), _MOST)
        while self._trim_some(core_id, upto):
            pass

    def _trim_some(self, core_id: int, upto: int) -> bool:
        with self._lock_of_this_process():
            connection = self._open()
            try:
                if not connection.execute(_TRIMMED, (core_id, upto, 1)):
                    return False
                with _Transaction(connection):
                    doomed = connection.execute(_TRIMMED, (core_id, upto, TRIM_ROWS))
                    last = self._last(connection, core_id)
                    connection.execute(_REMEMBER, (core_id, -1 if last is None else last))
                    for (first,) in doomed:
                        connection.execute(_FORGET, (core_id, first))
            except connection.errors as error:
                raise self._translated(connection, error) from error
        return len(doomed) == TRIM_ROWS

    def load_watermark(self, group: str, core_id: int) -> int | None:
        """The number up to which a consumer group has handled a core's events; None for a group that is new."""
        rows = self._query(_LOAD, (group, _number("core_id", core_id)))
        return int(rows[0][0]) if rows else None

    def save_watermark(self, group: str, core_id: int, sequence: int) -> None:
        """Stores that number, as durably as an append; a lower one than before, too."""
        if not isinstance(group, str):
            raise TypeError(f"group {group!r}: must be a str, not {type(group).__name__}")
        self._query(_SAVE, (group, _number("core_id", core_id), _number("sequence", sequence)))

    def close(self) -> None:
        """Closes the file. Idempotent; in a forked child it does nothing."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<SqliteEventLog {'closed' if self.closed else self._driver} {self._path!r}>"

    def _query(self, sql: str, bindings: Bindings) -> list[tuple[Any, ...]]:
        with self._lock_of_this_process():
            connection = self._open()
            try:
                return connection.execute(sql, bindings)
            except connection.errors as error:
                raise self._translated(connection, error) from error

    def _lock_of_this_process(self) -> threading.Lock:
        # A lock that another thread held when the process was forked is never released in the child.
        if os.getpid() != self._pid:
            raise ForkError(f"{self._path}: this log was inherited by fork, and stays with the parent; open it anew")
        return self._lock

    def _open(self) -> Connection:
        if self._connection is None:
            raise ClosedError(f"{self._path}: this log is closed; open a new SqliteEventLog")
        return self._connection

    @staticmethod
    def _last(connection: Connection, core_id: int) -> int | None:
        [(last,)] = connection.execute(f"SELECT {LAST_SEQUENCE}", (core_id,))
        return None if last < 0 else int(last)

    def _translated(self, connection: Connection, error: Exception) -> Exception:
        """What to raise for an error of SQLite's."""
        code = connection.code(error)
        if code & 0xFF == _FULL or code == _IOERR_SHMSIZE:
            return OSError(errno.ENOSPC, "no space for the event log; the batch was not appended", self._path)
        if code & 0xFF == _IOERR:
            return OSError(errno.EIO, f"the event log: {error}", self._path)
        if code & 0xFF == _BUSY:
            return LogError(
                f"{self._path}: another connection kept it locked for {BUSY_SECONDS:g} s; end its transaction"
            )
        if code & 0xFF == _NOTADB:
            return LogError(f"{self._path}: is not a SQLite database; name another file")
        if code & 0xFF == _CORRUPT:
            return CorruptLogError(f"{self._path}: the database is damaged: {error}; restore it from a copy")
        return LogError(f"{self._path}: {error}")


class _Transaction:
    """A transaction that begins as a writer, so that what is read in it stays true; undone by an exception."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._connection.execute("COMMIT")
        finally:
            # A full disk may have undone it already, and a COMMIT that failed has not.
            if self._connection.in_transaction():
                self._connection.execute("ROLLBACK")


def _file_path(path: str | os.PathLike[str]) -> str:
    """The absolute path of a log's file: what is no path to SQLite's users is refused, and not made a file of."""
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


def _number(name: str, value: int) -> int:
    value = operator.index(value)
    if not 0 <= value <= _MOST:
        raise LogError(f"{name} {value}: SQLite stores numbers from 0 to {_MOST}")
    return value
