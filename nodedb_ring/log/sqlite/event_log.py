"""``SqliteEventLog``: the event log in a SQLite file, one row a batch."""

from __future__ import annotations

import errno
import operator
import os
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import numpy as np

from ...batch._event_batch import EventBatch
from ...errors import ClosedError, CorruptLogError, ForkError, LogError
from .. import CommitNumbers, GroupClaim
from ..call_lock import CallLock
from ..encoding import check_rising, decode_batch
from ..token import LogToken
from . import upkeep
from .append import append_statements, as_one_statement
from .claims import claim_file
from .commits import StoredCommits
from .drivers import DRIVERS, Access, Bindings, Connection
from .errors import is_constraint, translated, watermark_is_higher
from .history import checked_sequence, token_at
from .opening import BUSY_SECONDS, file_path, is_alone, log_id_of, read_only_connection, set_up
from .reading import joined_rows
from .reserve import keep_reserve, reserve_path, use_reserve
from .schema import (
    COVERING,
    DROP_GROUP,
    LAST_SEQUENCE,
    LOAD_WATERMARK,
    MOST,
    NEXT_BATCH,
    SAVE_WATERMARK,
)
from .trimming import trim_batches
from .upkeep import CoreRange, GroupPosition

__all__ = ["BUSY_SECONDS", "SqliteEventLog"]

_T = TypeVar("_T")


class SqliteEventLog:
    """An event log in a SQLite file, which may hold other tables.

    A new file gets pages of 8 KiB and a write-ahead log. A database that has tables already keeps its settings.
    Several processes may open the same file. If two append the same number, one gets `LogConflictError`.

    Parameters
    ----------
    path : str or path-like
        The database file, which is made if there is none. ``":memory:"`` and ``"file:..."`` URIs are refused.
    synchronous : {"NORMAL", "FULL"}
        What survives a loss of power. With FULL an append is on disk when it returns. With NORMAL the last appends may
        be lost. If only the process dies, nothing is lost with either.
    driver : {"sqlite3", "apsw"}
        The library that opens the file: the standard library's, or apsw. A process that uses the same file through
        apsw, as ``SqliteCapture`` does, must choose apsw: two copies of SQLite in one process drop each other's locks.
    read_only : bool
        Whether the file is only read. A follower then claims no group, and cannot commit. A log that nobody has open,
        on a full disk or in a directory that cannot be written, is read as it is at that moment.

    Raises
    ------
    LogError
        The file is not a database, or its log is of another version.
    ModuleNotFoundError
        ``driver="apsw"`` without apsw.
    ArgumentError
        The path is empty, ``":memory:"`` or a URI. No file is made.

    Notes
    -----
    Every call may raise `ClosedError` after ``close()``, `ForkError` in a forked child, `LogError` while another
    connection holds the file locked, and ``OSError``, with ``ENOSPC`` if the disk is full. After these the log is as it
    was. Sequence numbers are stored up to 2**63 - 1. Trimmed space is used again, and the file does not shrink.

    Thread safety
    -------------
    Any thread; calls wait for each other. An open ``read`` holds no lock between two batches. A signal handler may make
    any call, whatever it interrupts. That is a `BusyError` only if many handlers that interrupt each other wait for
    another thread's call.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Literal["NORMAL", "FULL"] = "NORMAL",
        driver: Literal["sqlite3", "apsw"] = "sqlite3",
        read_only: bool = False,
    ) -> None:
        if synchronous not in {"NORMAL", "FULL"}:
            raise ValueError(f"synchronous {synchronous!r}: must be 'NORMAL' or 'FULL'")
        if driver not in DRIVERS:
            raise ValueError(f"driver {driver!r}: must be 'sqlite3' or 'apsw'")
        self._path = file_path(path)
        self._driver: Literal["sqlite3", "apsw"] = driver
        self._synchronous: Literal["NORMAL", "FULL"] = synchronous
        self._read_only, self._log_id = read_only, ""
        # Nothing else is in the file. None until the first append here: that of a capture's log never does.
        self._is_alone: bool | None = None
        self._pid = os.getpid()
        self._calls = CallLock()
        self._closed = False
        is_new = not read_only and (not os.path.exists(self._path) or os.path.getsize(self._path) == 0)
        self._access = Access.READ if read_only else Access.WRITE
        try:
            self._open(is_new)
        except OSError as error:
            if error.errno != errno.ENOSPC or read_only or not os.path.exists(reserve_path(self._path)):
                raise
            # SQLite needs a file beside the log to open it.
            os.unlink(reserve_path(self._path))
            self._open(is_new)

    def _open(self, is_new: bool) -> None:
        self._connection: Connection = DRIVERS[self._driver](self._path, BUSY_SECONDS, self._access)
        try:
            self._translating("the log was not opened", self._set_up, is_new)
        except BaseException:
            # Closing the connection rolls back what it had begun.
            self._connection.close()
            raise

    def _set_up(self, connection: Connection, is_new: bool) -> None:
        if self._read_only:
            found = read_only_connection(connection, DRIVERS[self._driver], self._path)
            self._connection, self._access, self._log_id = found
        else:
            set_up(connection, self._path, is_new=is_new, synchronous=self._synchronous)
            self._log_id = log_id_of(connection, self._path, read_only=False)

    @property
    def path(self) -> str:
        """The database file, absolute."""
        return self._path

    @property
    def driver(self) -> Literal["sqlite3", "apsw"]:
        """The library that opened it."""
        return self._driver

    @property
    def read_only(self) -> bool:
        """Whether it was opened to be read alone."""
        return self._read_only

    @property
    def log_id(self) -> str:
        """The log's identity: sixteen hexadecimal digits, drawn when it was made. A copy has the same."""
        return self._log_id

    @property
    def commits(self) -> CommitNumbers:
        """The numbers of the commits that captures have stored, for ``merge(followers, by="lsn")``."""
        return StoredCommits(self._query)

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._closed

    def append(self, core_id: int, batch: EventBatch) -> None:
        """Stores a batch, all or nothing. It is durable when this returns, as `synchronous` says.

        Parameters
        ----------
        core_id : int
        batch : EventBatch
            Its numbers rise strictly, and lie above all that were appended. A slice or the batch of a lease is packed
            first. A batch of more than `MAX_BATCH_EVENTS` events becomes several rows, of which SQLite holds a copy
            while it stores them.

        Raises
        ------
        LogConflictError
            A number is at or below ``last_sequence(core_id)``: another writer has appended, or a number was used twice.
        """
        core_id = _number("core_id", core_id)
        statements = append_statements(core_id, batch)
        if not statements:
            self._check_open()
            return
        sql, bindings = statements[0] if len(statements) == 1 else as_one_statement(statements)

        def work(connection: Connection) -> None:
            if self._is_alone is None:
                self._look_whether_alone(connection)
            try:
                connection.execute(sql, bindings)
            except connection.errors as error:
                if is_constraint(connection.code(error)):
                    check_rising(batch, self._last(connection, core_id))
                raise

        first, last = bindings[1], statements[-1][1][2]
        self._run(f"events {first!r} to {last!r} of core {core_id} were not appended", work)

    def read(self, core_id: int, first_sequence: int, last_sequence: int) -> Iterator[EventBatch]:
        """What the log has from `first_sequence` to `last_sequence`, both included, one stored batch at a time.

        One batch is in memory at a time, and no transaction is open between two batches.

        Raises
        ------
        CorruptLogError
            A stored batch is damaged. The message names the core and the numbers. The batches before it were intact.
        """
        core_id = _number("core_id", core_id)
        first, last = operator.index(first_sequence), min(operator.index(last_sequence), MOST)
        self._check_open()
        return self._stored(core_id, max(first, 0), last)

    def read_joined(
        self, core_id: int, first_sequence: int, last_sequence: int, max_events: int
    ) -> Iterator[EventBatch]:
        """As ``read``, but stored batches come in batches of `max_events`, or what remains.

        Each has memory for the stored batches that it was made of. Before damage come the intact batches.
        """
        core_id = _number("core_id", core_id)
        first, last = operator.index(first_sequence), min(operator.index(last_sequence), MOST)
        self._check_open()
        return joined_rows(self._query, self._some, core_id, max(first, 0), last, max_events=max_events)

    def _stored(self, core_id: int, first: int, last: int) -> Iterator[EventBatch]:
        if first > last:
            return
        undone = f"events {first} to {last} of core {core_id} were not read, or not all of them"
        rows = self._query(undone, COVERING, (core_id, first))
        after = int(rows[0][0]) - 1 if rows else first - 1
        while rows := self._query(undone, NEXT_BATCH, (core_id, after, last)):
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
        return self._run(
            f"the last number of core {core_id} was not read", lambda connection: self._last(connection, core_id)
        )

    def trim(self, core_id: int, upto: int) -> None:
        """Deletes the batches, as they were appended, that have no number above `upto`.

        It deletes a few rows per transaction, so that appends get their turn. On a full disk it uses the log's reserve,
        and appends take the room that it frees.
        """
        core_id, upto = _number("core_id", core_id), operator.index(upto)
        undone = f"core {core_id} was not trimmed to {upto}, or only in part"
        try:
            if self._is_alone is None:
                self._run(undone, self._look_whether_alone)
            self._trim(undone, core_id, upto)
        except OSError as error:
            if error.errno != errno.ENOSPC or not self._is_alone:
                raise
            self._run(undone, use_reserve, self._path)
            self._trim(undone, core_id, upto)
        if self._is_alone:
            self._run(undone, keep_reserve, self._path)

    def _look_whether_alone(self, connection: Connection) -> None:
        self._is_alone = not self._read_only and is_alone(connection, self._path)
        if self._is_alone:
            keep_reserve(connection, self._path)

    def _trim(self, undone: str, core_id: int, upto: int) -> None:
        last = self._run(undone, lambda connection: self._last(connection, core_id))
        if last is not None:
            # What is appended from here on stays, since its numbers are not remembered.
            trim_batches(self._query, self._execute, undone, core_id, upto=min(upto, last))

    def load_watermark(self, group: str, core_id: int) -> int | None:
        """The number up to which a consumer group has handled a core's events; None for a new group."""
        token = self._watermark(group, core_id)
        return None if token is None else token.sequence

    def load_token(self, group: str, core_id: int) -> str | None:
        """The watermark, with what tells that the log is still the one in which it was saved; None for a new group."""
        token = self._watermark(group, core_id)
        return None if token is None else str(token)

    def _watermark(self, group: str, core_id: int) -> LogToken | None:
        undone = f"the watermark of group {group!r}, core {core_id}, was not read"
        core_id = _number("core_id", core_id)
        rows = self._query(undone, LOAD_WATERMARK, (group, core_id))
        return LogToken(self._log_id, core_id, *rows[0]) if rows else None

    def save_watermark(self, group: str, core_id: int, sequence: int, *, rewind: bool = False) -> None:
        """Stores that number, as durably as an append, with what tells in which log it was.

        Raises
        ------
        LogError
            The group's watermark is higher, and `rewind` is not set.
        """
        if not isinstance(group, str):
            raise TypeError(f"group {group!r}: must be a str, not {type(group).__name__}")
        core_id, sequence = _number("core_id", core_id), _number("sequence", sequence)
        undone = f"the watermark {sequence} of group {group!r}, core {core_id}, was not saved"

        def work(connection: Connection) -> None:
            try:
                connection.execute(SAVE_WATERMARK, (core_id, sequence, group, int(rewind)))
            except connection.errors as error:
                if is_constraint(connection.code(error)):
                    raise watermark_is_higher(undone, connection.query(LOAD_WATERMARK, (group, core_id))) from None
                raise

        self._run(undone, work)

    def claim_group(self, group: str, core_id: int) -> GroupClaim | None:
        """``ExclusiveEventLog.claim_group``, by a lock in the file ``<log>-followers``; None if this is read-only.

        Raises
        ------
        RoleTaken
            Another follower holds it: in this process, another one or another container on this machine.
        OSError
            The file of the locks cannot be opened.
        """
        if self._read_only:
            return None
        self._check_open()
        return claim_file(self._path, group, _number("core_id", core_id), query=self._query, execute=self._execute)

    def token(self, core_id: int, sequence: int) -> str:
        """The position after `sequence` (-1: before the first number) in this log, as a short string."""
        core_id = _number("core_id", core_id)
        if sequence != -1:
            sequence = _number("sequence", sequence)
        return str(token_at(self._query, self._log_id, core_id, sequence))

    def sequence_of(self, core_id: int, token: str) -> int:
        """The number of a token of this log; -1 before the first.

        Raises
        ------
        LogError
            This is another log, or one that has another history at that position: it was made anew, has lost its end,
            or is an older copy. A position whose batch was trimmed, and others behind it, cannot be told apart so.
        ArgumentError
            It is no token.
        """
        core_id = _number("core_id", core_id)
        return checked_sequence(self._query, self._log_id, core_id, LogToken.parse(token))

    def cores(self) -> list[CoreRange]:
        """What the log has of each core, in order of their numbers."""
        return upkeep.cores(self._query)

    def groups(self) -> list[GroupPosition]:
        """Where each group stands in each core that it has ever followed, and who follows now."""
        return upkeep.groups(self._query, self._path)

    def trim_committed(self) -> dict[int, int]:
        """Trims each core up to the lowest watermark of its groups; returns those numbers, by core.

        A core that a group has followed without a commit is not trimmed, nor one that no group has followed.
        ``drop_group`` removes a group that was left behind.
        """
        for core_id, mark in (marks := upkeep.lowest_marks(self.groups())).items():
            self.trim(core_id, mark)
        return marks

    def drop_group(self, group: str) -> None:
        """Forgets the watermarks of a group in all cores. It is new again if it ever comes back.

        Raises
        ------
        LogError
            It has a follower now.
        """
        for each in self.groups():
            if each.group == group and each.holder is not None:
                raise upkeep.still_followed(each)
        for statement in DROP_GROUP:
            self._execute(f"group {group!r} was not dropped, or not from all cores", statement, (group,))

    def damage(self) -> Iterator[CorruptLogError | None]:
        """Reads all of it, a stored batch at a time: what is wrong with each, or None."""
        return upkeep.damage(self._query)

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Copies the log as it is at this moment into a new file, while others append, by SQLite's online backup.

        The copy is a log with the same identity: followers may resume in it.

        Raises
        ------
        FileExistsError
            There is such a file already.
        """
        target = file_path(path)
        self._check_open()
        source: Connection = self._translating("nothing was copied", self._another_connection)
        try:
            self._translating(f"the backup {target} was not made", lambda _: upkeep.copy_to(source, target))
        finally:
            source.close()

    def _another_connection(self, _: Connection) -> Connection:
        return DRIVERS[self._driver](self._path, BUSY_SECONDS, self._access)

    def close(self) -> None:
        """Closes the file. Idempotent; in a forked child it does nothing."""
        if os.getpid() == self._pid:
            self._calls.run(self._close)

    def _close(self) -> None:
        # The flag first: if a signal handler interrupts this, a repeated close() still closes the connection.
        self._closed = True
        self._connection.close()

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<SqliteEventLog {'closed' if self.closed else self._driver} {self._path!r}>"

    def _query(self, undone: str, sql: str, bindings: Bindings = ()) -> list[tuple[Any, ...]]:
        return self._run(undone, lambda connection: connection.query(sql, bindings))

    def _some(self, undone: str, sql: str, bindings: Bindings, events: int, size: int) -> list[tuple[Any, ...]]:
        return self._run(undone, lambda connection: connection.some(sql, bindings, events=events, size=size))

    def _execute(self, undone: str, sql: str, bindings: Bindings = ()) -> None:
        self._run(undone, lambda connection: connection.execute(sql, bindings))

    def _run(self, undone: str, work: Callable[..., _T], *arguments: object) -> _T:
        """Calls `work` while no other thread uses the connection.

        A signal handler that interrupts it may call the log. So `work` makes at most one statement that writes, which
        SQLite does whole or not at all, whatever the handler does or raises. `undone` is what an error says.
        """
        self._check_open()
        return self._calls.run(self._translating, undone, work, *arguments)

    def _translating(self, undone: str, work: Callable[..., _T], *arguments: object) -> _T:
        connection = self._connection
        try:
            return work(connection, *arguments)
        except connection.errors as error:
            if self._closed:
                raise ClosedError(
                    f"{self._path}: {undone}: this log was closed during the call; open a new SqliteEventLog"
                ) from error
            code = connection.code(error)
            raise translated(error, code, path=self._path, undone=undone, busy_seconds=BUSY_SECONDS) from error

    def _check_open(self) -> None:
        # Checked before any lock is taken: one that another thread held at the fork is never released in the child.
        if os.getpid() != self._pid:
            raise ForkError(f"{self._path}: this log was inherited by fork, and stays with the parent; open it again")
        if self._closed:
            raise ClosedError(f"{self._path}: this log is closed; open a new SqliteEventLog")

    @staticmethod
    def _last(connection: Connection, core_id: int) -> int | None:
        [(last,)] = connection.query(f"SELECT {LAST_SEQUENCE}", (core_id,))
        return None if last < 0 else int(last)


def _number(name: str, value: int) -> int:
    value = operator.index(value)
    if not 0 <= value <= MOST:
        raise LogError(f"{name} {value}: SQLite stores numbers from 0 to {MOST}")
    return value
