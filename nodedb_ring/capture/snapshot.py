"""``Snapshot``: the rows of a database as INSERT events, and the position in its stream that they belong to."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, final

import apsw

from ..errors import CaptureError, ClosedError
from ..log.sqlite.history import token_at
from ..log.sqlite.schema import LAST_COMMIT, LAST_SEQUENCE
from ._own_sql import fold, rows
from ._snapshot import next_rows, select_rows
from ._table import Table
from .tables import read_tables

if TYPE_CHECKING:
    from ..batch._event_batch import EventBatch
    from ..log.sqlite import SqliteEventLog

__all__ = ["Snapshot", "SnapshotSource"]

BUSY_SECONDS: Final = 10.0
"""For how long a snapshot waits for a database that is locked."""

_CORES: Final = """WITH RECURSIVE core(id) AS (
    SELECT (SELECT min(core_id) FROM nodedb_ring_log)
    UNION ALL SELECT (SELECT min(core_id) FROM nodedb_ring_log WHERE core_id > core.id) FROM core WHERE core.id NOTNULL)
SELECT id FROM core WHERE id NOTNULL UNION SELECT core_id FROM nodedb_ring_core"""


class SnapshotSource(NamedTuple):
    """What a capture tells its snapshot."""

    connection: apsw.Connection
    core_id: int
    log: SqliteEventLog | None
    last_sequence: int
    lsn: int
    tenant_id: int
    vshard_id: int
    captured: frozenset[str] | None


@final
class Snapshot:
    """What ``capture.snapshot()`` makes: an iterator of batches with the rows of one moment, table by table.

    All events are INSERTs, with ``row_id`` and ``new_value`` as the capture writes them. Their ``sequence`` and ``lsn``
    are the position that the rows belong to: what comes after it is not in them, and everything before it is.

    Attributes
    ----------
    sequence : int
        The last number of the capture's core that is in the rows; 0 before the first. ``follow(after=...)`` takes it.
    token : str or None
        The same as a token of the log: also ``follow(after=...)``. None without a log.
    lsn : int
        The number of the last commit that is in the rows; 0 before the first.
    positions, tokens : mapping of int to int, and of int to str
        The same for each core of the log. A core that is not there begins after it: ``follow(after=0)``. Without a log
        the capture's own core alone, and no tokens.
    tables : tuple of str
        The tables, in their order.

    Raises
    ------
    CaptureError
        From a call for the next batch: text that is not UTF-8, or a row that does not fit.
    ClosedError
        From the same, after ``close()``.

    Thread safety
    -------------
    One thread at a time, which need not be the capture's.
    """

    def __init__(self, source: SnapshotSource, tables: Collection[str] | None, most: int) -> None:
        self._most = most
        self._source = source
        self._time_ms = time.time_ns() // 1_000_000
        self._cursor: apsw.Cursor | None = None
        self._reader: apsw.Connection | None = _reader_of(source.connection)
        try:
            chosen = self._begin(self._reader, tables)
        except BaseException:
            self.close()
            raise
        self.tables: tuple[str, ...] = tuple(table.name for table in chosen)
        self._tables = iter(chosen)
        self._table: Table | None = None
        self._rows: Iterator[tuple[object, ...]] = iter(())

    def _begin(self, reader: apsw.Connection, tables: Collection[str] | None) -> list[Table]:
        source = self._source
        self.positions: Mapping[int, int] = {source.core_id: source.last_sequence}
        self.tokens: Mapping[int, str] = {}
        self.lsn: int = source.lsn
        try:
            rows(reader, "BEGIN")
            chosen = _chosen(read_tables(reader), tables, source)
        except apsw.BusyError as error:
            raise CaptureError(
                f"{source.connection.filename!r}: cannot be read for a snapshot: {error}; with a rollback journal, or"
                " locking_mode = EXCLUSIVE, a writer keeps readers out, so use journal_mode = WAL"
            ) from error
        if source.log is not None:

            def query(_: str, sql: str, bindings: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
                return rows(reader, sql, bindings)

            cores = {source.core_id, *(int(core_id) for (core_id,) in query("", _CORES))}
            lasts = {core: int(query("", f"SELECT {LAST_SEQUENCE}", (core,))[0][0]) for core in sorted(cores)}
            self.positions = {core: max(last, 0) for core, last in lasts.items()}
            log_id = source.log.log_id
            self.tokens = {core: str(token_at(query, log_id, core, last)) for core, last in lasts.items()}
            self.lsn = int(query("", f"SELECT {LAST_COMMIT}")[0][0])
        return chosen

    @property
    def sequence(self) -> int:
        """See the class."""
        return self.positions[self._source.core_id]

    @property
    def token(self) -> str | None:
        """See the class."""
        return self.tokens.get(self._source.core_id)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> EventBatch:
        if self._reader is None:
            raise ClosedError("this snapshot is closed; take another one")
        source = self._source
        while True:
            if self._table is None:
                self._table = next(self._tables)
                self._cursor = apsw.Cursor(self._reader)
                self._rows = self._cursor.execute(select_rows(self._table))
            try:
                batch = next_rows(
                    self._table,
                    self._rows,
                    self._most,
                    sequence=self.sequence,
                    lsn=self.lsn,
                    time_ms=self._time_ms,
                    tenant_id=source.tenant_id,
                    vshard_id=source.vshard_id,
                )
            except UnicodeDecodeError as error:
                raise CaptureError(
                    f"table {self._table.name}: has text that is not UTF-8 ({error}); store it as a BLOB"
                ) from error
            if batch is not None:
                return batch
            self._table = None

    def close(self) -> None:
        """Ends its read transaction, up to which SQLite keeps what it may still read. Idempotent."""
        reader, self._reader = self._reader, None
        if reader is not None:
            # Not left to the connection: after an error of a row it finds the statement busy.
            if self._cursor is not None:
                self._cursor.close(True)
            reader.close(True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed " if self._reader is None else ""
        return f"<{state}Snapshot of {len(self.tables)} tables, sequence={self.sequence} lsn={self.lsn}>"


def _reader_of(connection: apsw.Connection) -> apsw.Connection:
    """A connection that reads the same rows: of the same file, or of a copy of a database in memory."""
    path = connection.db_filename("main")
    if path:
        reader = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
        reader.set_busy_timeout(round(1000 * BUSY_SECONDS))
        return reader
    if connection.in_transaction:
        raise CaptureError(
            "a database in memory is copied for its snapshot, and a transaction is open whose changes may be undone;"
            " COMMIT or ROLLBACK it first"
        )
    copy = apsw.Connection(":memory:")
    with copy.backup("main", connection, "main") as copying:
        while not copying.done:
            copying.step(-1)
    return copy


def _chosen(
    known: Mapping[str, Table | CaptureError | None], tables: Collection[str] | None, source: SnapshotSource
) -> list[Table]:
    if isinstance(tables, str):
        raise TypeError(f"tables {tables!r}: must be a collection of names, not one str; write [{tables!r}]")
    captured = {
        fold(name): table
        for name, table in known.items()
        if table is not None and (source.captured is None or fold(name) in source.captured)
    }
    found = list(captured.values()) if tables is None else []
    for name in tables or ():
        if fold(name) not in captured:
            raise CaptureError(f"table {name!r}: is not captured here; its rows are no part of the stream")
        found.append(captured[fold(name)])
    chosen: list[Table] = []
    for table in found:
        if isinstance(table, CaptureError):
            raise table
        chosen.append(table)
    return chosen
