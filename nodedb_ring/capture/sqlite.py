"""A SQLite database as a Data Plane core: each committed row change becomes a write event.

``docs/capture.md`` explains what is captured and why it is done so; ``_capture.pyx`` follows the transaction.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import weakref
from collections.abc import Collection, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

import apsw

from ..batch._event import WriteEvent
from ..batch.schema import WriteOp
from ..ends.limits import event_count
from ..ends.logger import log_safely
from ..errors import CaptureError, FieldError
from ..log.sqlite import LOG_TABLES, SqliteEventLog
from ..log.sqlite.schema import MOST
from ._own_sql import fold, rows
from ._sqlite import OpenTransaction
from .foreign import ForeignCommits
from .snapshot import Snapshot, SnapshotSource
from .tables import read_tables, row_schema

if TYPE_CHECKING:
    from ..batch.rows.schema import RowSchema
    from ..ends._producer import EventProducer

__all__ = ["CaptureError", "SqliteCapture"]

_NUMBERS = itertools.count(1)
_LOGGED: weakref.WeakKeyDictionary[apsw.Connection, set[int]] = weakref.WeakKeyDictionary()
"""The cores whose events a connection's captures write to a log."""

Value = None | int | float | str | bytes
"""What SQLite stores."""


class SqliteCapture:
    """Turns what one connection commits to its ``main`` database into write events.

    An event is emitted when the commit is done, in the order of the changes: collection is the table, ``row_id`` the
    rowid (for a WITHOUT ROWID table its primary key), ``old_value`` and ``new_value`` MessagePack maps from column to
    value, ``lsn`` the number of the commit, ``system_time_ms`` its time, ``source`` TRIGGER for what a trigger or a
    foreign key did. A change of the row's key is a DELETE and an INSERT. What was rolled back, wholly or to a
    savepoint, or by a statement that failed, is not emitted.

    A full ring drops events and counts them; the database does not notice. What other connections change is not
    captured: each that writes needs a capture of its own.

    With a log the events are also written to it, in the transaction that they describe: both are committed, or neither.
    What the ring drops, and what a process did not get to emit, `nodedb_ring.follow` then reads from there.

    Parameters
    ----------
    connection : apsw.Connection
        Outside a transaction. Its hooks stay as they are; the capture adds its own beside them.
    producer : EventProducer
        Owned by the thread that runs SQL on the connection.
    tables : collection of str, optional
        Tables to capture; all ordinary tables by default, those made later included.
    tenant_id, vshard_id : int, default 0
        Copied into each event.
    first_lsn : int, optional
        Number of the next commit; to continue after a restart, one more than ``lsn`` was. 1 by default. With a log the
        numbers continue by themselves, across all captures of the database, and this is the least one that is taken.
    log : SqliteEventLog, optional
        In the ``main`` database file of the connection, opened with ``driver="apsw"``. The capture writes to the log's
        tables through its own connection; they are never captured.
    on_foreign_commit : "warn", "raise" or "ignore", optional
        What to do when a connection that is not captured has committed to the database: log a WARNING, raise a
        `CaptureError` from the next statement that changes a captured table, or nothing. "warn" by default with a log,
        "ignore" without one: captures know of each other by their log.

    Raises
    ------
    TypeError
        ``connection`` is not apsw's, or ``tables`` is a string.
    CaptureError
        A transaction is open, a table does not exist or cannot be captured, apsw lacks the preupdate hook, or the log
        is in another file or has another driver.
    FieldError
        A number out of its field's range.

    Notes
    -----
    A change that cannot be captured (text that is not UTF-8, an incremental blob write) cannot be committed either:
    the commit becomes a rollback and raises `CaptureError`. An exception of the producer, such as `OwnershipError`,
    comes out of the statement that committed; the commit stands, and its events are counted as dropped.

    Changes are held in memory, packed, until their transaction ends.

    Thread safety
    -------------
    That of the connection and the producer, one thread at a time. The counters may be read from any.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        producer: EventProducer,
        *,
        tables: Collection[str] | None = None,
        tenant_id: int = 0,
        vshard_id: int = 0,
        first_lsn: int | None = None,
        log: SqliteEventLog | None = None,
        on_foreign_commit: Literal["warn", "raise", "ignore"] | None = None,
    ) -> None:
        if on_foreign_commit is None:
            on_foreign_commit = "ignore" if log is None else "warn"
        if on_foreign_commit not in ("warn", "raise", "ignore"):
            raise ValueError(f"on_foreign_commit {on_foreign_commit!r}: must be 'warn', 'raise' or 'ignore'")
        _check_connection(connection)
        if log is not None:
            _check_log(connection, log, producer.core_id)
        if first_lsn is None:
            first_lsn = 1 if log is None else _following_lsn(log, producer.core_id)
        if log is not None and first_lsn > MOST:
            raise FieldError(f"lsn {first_lsn}: a log in SQLite stores numbers up to {MOST}")
        # An event with these numbers, so that a bad one is refused here and not after the first commit.
        WriteEvent(
            sequence=0,
            collection="",
            op=WriteOp.HEARTBEAT,
            row_id="",
            lsn=first_lsn,
            tenant_id=tenant_id,
            vshard_id=vshard_id,
        )
        captured = _check_tables(connection, tables)
        module = _free_name(connection)
        chosen = None if tables is None else frozenset(fold(name) for name in tables)
        transaction = OpenTransaction(
            connection,
            producer,
            module=module,
            read_tables=read_tables,
            chosen=chosen,
            logged_core=None if log is None else producer.core_id,
            first_lsn=first_lsn,
            tenant_id=tenant_id,
            vshard_id=vshard_id,
            foreign=None
            if on_foreign_commit == "ignore"
            else ForeignCommits(connection, None if log is None else producer.core_id, on_foreign_commit),
        )
        self._connection: apsw.Connection | None = connection
        self._transaction = transaction
        self._chosen = chosen
        self._module = module
        self._producer, self._log = producer, log
        self._tenant_id, self._vshard_id = tenant_id, vshard_id
        self._logged: int | None = None
        transaction.attach()
        try:
            _create_triggers(connection, module, captured)
            connection.preupdate_hook(transaction.record, id=module)
            connection.set_commit_hook(transaction.commit_hook, id=module)
            connection.set_rollback_hook(transaction.forget, id=module)
            if log is not None:
                self._logged = producer.core_id
                _LOGGED.setdefault(connection, set()).add(self._logged)
        except BaseException:
            with contextlib.suppress(apsw.Error):
                self._detach()
            raise

    @property
    def lsn(self) -> int:
        """Number of the last commit that changed a captured row; ``first_lsn - 1`` before there is one."""
        return self._transaction.lsn

    @property
    def emitted(self) -> int:
        """Events that the ring took."""
        return self._transaction.emitted

    @property
    def dropped(self) -> int:
        """Events of committed changes that the ring did not take. Each used up its sequence number."""
        return self._transaction.dropped

    @property
    def pending(self) -> int:
        """Events recorded in the transaction that is open; 0 outside one."""
        return self._transaction.pending

    def schema(self, table: str) -> RowSchema:
        """The columns of a table and their types, to read its events with: ``batch.rows(schema=...)``.

        A column's type follows from its declared type by SQLite's rules of affinity: INTEGER is ``int64``, REAL
        ``float64``, TEXT ``str``, BLOB ``bytes``. A column without a type, of NUMERIC affinity, or ANY of a STRICT
        table may hold values of any kind: it is ``raw``. Read it as the type that you know it to have:
        ``RowSchema({**capture.schema("t"), "price": "float64"})``.

        Parameters
        ----------
        table : str
            The name of a captured table, in any case.

        Raises
        ------
        CaptureError
            No such table, or one that is not captured. The capture is closed.

        Notes
        -----
        This is the schema as the connection sees it now, in a transaction too. Only a STRICT table holds its columns to
        their types: elsewhere SQLite stores text in an INTEGER column if it is no number, which is then a ``RowError``
        where it is read.
        """
        if self._connection is None:
            raise CaptureError("this capture is closed; make a new SqliteCapture")
        if self._chosen is not None and fold(table) not in self._chosen:
            raise CaptureError(f"table {table!r}: is not captured; name it in tables=")
        return row_schema(self._connection, table)

    def snapshot(self, tables: Collection[str] | None = None, batch: int = 1024) -> Snapshot:
        """The rows that are there, as INSERT events in batches, with the position in the stream that they belong to.

        A reader that attaches to a database with rows in it handles these, and goes on with
        ``follow(after=snapshot.token)``: nothing is missing between the two, and nothing comes twice. The rows are read
        in one transaction by a connection of the snapshot's own, a batch at a time, while writers go on. A database in
        memory, which no other connection can read, is copied in memory first.

        Parameters
        ----------
        tables : collection of str, optional
            Captured tables; all by default.
        batch : int, default 1024
            The most events in a batch. One of more than 64 MiB has fewer.

        Raises
        ------
        CaptureError
            A table is not captured or cannot be, the database is locked, or it is in memory and a transaction is open.
            The capture is closed.

        Notes
        -----
        Call it in the thread that runs SQL on the connection. With a rollback journal a commit is busy while the
        snapshot is open: use ``journal_mode = WAL``.
        """
        if self._connection is None:
            raise CaptureError("this capture is closed; make a new SqliteCapture")
        source = SnapshotSource(
            connection=self._connection,
            core_id=self._producer.core_id,
            log=self._log,
            last_sequence=self._transaction.last_sequence,
            lsn=self.lsn,
            tenant_id=self._tenant_id,
            vshard_id=self._vshard_id,
            captured=self._chosen,
        )
        return Snapshot(source, tables, event_count(batch, "batch"))

    @property
    def closed(self) -> bool:
        """True when nothing is captured any more."""
        return self._connection is None

    def close(self) -> None:
        """Stops capturing and removes the capture's hooks from the connection. Idempotent.

        Raises
        ------
        CaptureError
            The open transaction has captured changes, which would not be emitted at its commit. The capture stays.
        """
        if self._connection is not None and self.pending:
            raise CaptureError(
                f"{self.pending} captured changes belong to a transaction that is still open;"
                " COMMIT or ROLLBACK it before close()"
            )
        self._detach()

    def _detach(self) -> None:
        connection = self._connection
        if connection is None:
            return
        with contextlib.suppress(apsw.ConnectionClosedError):  # its hooks and triggers went with it
            _drop_triggers(connection, self._module)
            connection.preupdate_hook(None, id=self._module)
            connection.set_commit_hook(None, id=self._module)
            connection.set_rollback_hook(None, id=self._module)
        self._connection = None
        self._transaction.detach()
        if self._logged is not None:
            _LOGGED.get(connection, set()).discard(self._logged)

    def __enter__(self) -> Self:
        if self._connection is None:
            raise CaptureError("this capture is closed; make a new SqliteCapture")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        if self._connection is not None and self.pending:
            log_safely(
                logging.WARNING,
                "capture closed in an open transaction: its %d changes are not emitted",
                self.pending,
            )
        self._detach()

    def __repr__(self) -> str:
        state = "closed" if self._connection is None else repr(self._connection.filename)
        return f"<SqliteCapture {state} lsn={self.lsn} emitted={self.emitted} dropped={self.dropped}>"


def _check_connection(connection: object) -> None:
    """Refuses what is not a connection of apsw's, and one that is already writing."""
    if not isinstance(connection, apsw.Connection):
        raise TypeError(
            f"connection {connection!r}: must be an apsw.Connection, not {type(connection).__qualname__};"
            " the sqlite3 module does not have the preupdate hook"
        )
    if not hasattr(connection, "preupdate_hook"):
        raise CaptureError(
            f"apsw {apsw.apsw_version()} was built without SQLite's preupdate hook; install its wheel from PyPI"
        )
    if connection.in_transaction or connection.txn_state("main") == apsw.SQLITE_TXN_WRITE:
        raise CaptureError(
            f"{connection.filename!r}: a transaction is open, and its earlier changes would be missing;"
            " COMMIT or ROLLBACK it first"
        )


def _check_log(connection: apsw.Connection, log: object, core_id: int) -> None:
    """Refuses a log that is not in the connection's own file, or not read through apsw, or written already."""
    if not isinstance(log, SqliteEventLog):
        raise CaptureError(
            f"log {log!r}: only a SqliteEventLog can be written in the transaction itself; for another log,"
            " append to it what a consumer of this capture's ring drains"
        )
    if log.driver != "apsw":
        raise CaptureError(
            f"log {log.path!s}: opened with driver={log.driver!r}, another copy of SQLite than the capture's, and two"
            ' copies in one process drop each other\'s file locks; open it with driver="apsw"'
        )
    database = connection.db_filename("main")
    if not database:
        raise CaptureError(
            f"log {log.path!s}: the connection's database is in memory; a log that commits with it needs a file"
        )
    if not (os.path.exists(log.path) and os.path.samefile(database, log.path)):
        raise CaptureError(
            f"log {log.path!s}: not the connection's database, {database}; open the log on that file, so that one"
            " transaction writes both"
        )
    if core_id in _LOGGED.get(connection, ()):
        raise CaptureError(
            f"log {log.path!s}: another capture of this connection writes the events of core {core_id} to it; give one"
            " capture both tables, or each a producer of its own"
        )


def _following_lsn(log: SqliteEventLog, core_id: int) -> int:
    """One more than that of the log's last commit; before the first, than that of the core's last event that is there.

    Each commit asks again: other captures commit, too.
    """
    number = log.commits.last()
    if number:
        return number + 1
    last = log.last_sequence(core_id)
    if last is not None:
        for batch in log.read(core_id, last, last):
            return int(batch.lsn[-1]) + 1
    return 1


def _free_name(connection: apsw.Connection) -> str:
    """A name for the virtual table that no table or view of the connection has, in whatever database."""
    while True:
        name = f"nodedb_ring_capture_{next(_NUMBERS)}"
        if not rows(connection, "SELECT 1 FROM pragma_table_list(?)", (name,)):
            return name


def _create_triggers(connection: apsw.Connection, module: str, tables: Iterable[str]) -> None:
    """Has SQLite take the virtual table into each transaction, before a statement changes one of the tables.

    A trigger on a table is compiled into each statement that may fire it, and what the trigger would write to is begun
    with the statement. These never fire. Their WHEN ends a statement whose transaction is gone, before it writes:
    so they are BEFORE triggers. That SQLite prepares all statements again under them has another use: one prepared
    before may delete all rows of a table at once, unseen by the hook.
    """
    statements = ["SAVEPOINT nodedb_ring_capture"]
    for number, table in enumerate(tables):
        quoted = table.replace('"', '""')
        statements += [
            f'CREATE TEMP TRIGGER {module}_{op}_{number} BEFORE {op} ON main."{quoted}"'  # noqa: S608
            f" WHEN {module}_lost() BEGIN DELETE FROM {module} WHERE 0; END"
            for op in ("INSERT", "UPDATE", "DELETE")
        ]
    try:
        rows(connection, "; ".join([*statements, "RELEASE nodedb_ring_capture"]))
    except BaseException:
        if connection.in_transaction:
            rows(connection, "ROLLBACK")
        raise


def _drop_triggers(connection: apsw.Connection, module: str) -> None:
    """Drops what is left of them. In an open transaction a rollback brings them back; they do nothing."""
    query = "SELECT name FROM temp.sqlite_schema WHERE type = 'trigger'"
    for name in [str(name) for (name,) in rows(connection, query) if str(name).startswith(f"{module}_")]:
        try:
            rows(connection, f"DROP TRIGGER temp.{name}")
        except apsw.SQLError:
            # Another connection has dropped its table: SQLite then does not know the trigger, and keeps its row.
            _delete_row(connection, name)


def _delete_row(connection: apsw.Connection, trigger: str) -> None:
    before = connection.config(apsw.SQLITE_DBCONFIG_WRITABLE_SCHEMA, -1)
    connection.config(apsw.SQLITE_DBCONFIG_WRITABLE_SCHEMA, 1)
    try:
        rows(connection, "DELETE FROM temp.sqlite_schema WHERE name = ?", (trigger,))
    finally:
        connection.config(apsw.SQLITE_DBCONFIG_WRITABLE_SCHEMA, before)


def _check_tables(connection: apsw.Connection, tables: Collection[str] | None) -> list[str]:
    """The tables to capture, as they were declared. Refuses what is not a table of `main` or cannot be captured."""
    if isinstance(tables, str):
        raise TypeError(f"tables {tables!r}: must be a collection of names, not one str; write [{tables!r}]")
    known = read_tables(connection)
    if tables is None:
        names = [name for name, table in known.items() if table is not None]
    else:
        query = "SELECT name, type FROM pragma_table_list WHERE schema = 'main'"
        kinds = {fold(str(name)): (str(name), str(kind)) for name, kind in rows(connection, query)}
        names = []
        for asked in tables:
            name, kind = kinds.get(fold(asked), (asked, "nothing"))
            if kind == "nothing":
                raise CaptureError(f"table {asked!r}: not in {connection.filename!r}; create it before it is captured")
            if fold(name) in LOG_TABLES:
                raise CaptureError(f"table {asked!r}: it is a table of the event log, which would log its own writing")
            if known.get(name) is None:
                what = "a table of SQLite's own" if kind == "table" else f"of type {kind}"
                raise CaptureError(f"table {asked!r}: it is {what}; only ordinary tables can be captured")
            names.append(name)
    for name in names:
        table = known[name]
        if isinstance(table, CaptureError):
            raise table
    return names
