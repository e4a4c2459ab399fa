"""One connection that carries out steps: what an application does with SQLite, each step a literal that can be printed.

A captured database and its twin, which has no capture, are two sessions that carry out the same steps.
"""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, cast

import apsw

from .sqlite_faults import Fault, Faults, Value

Do = Literal[
    "sql",
    "many",
    "partly",
    "open",
    "next",
    "close",
    "enter",
    "leave",
    "fail",
    "blob",
    "other",
    "read",
    "done",
    "capture",
]
Rows = list[tuple[Value, ...]]

TRIGGER_DEPTH: Final = 3
"""Random triggers set each other off; without a bound some statement would run for hours."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One thing that an application does.

    ``sql``: all of a string of statements. ``many``: executemany. ``partly``: `count` rows, then the cursor is closed.
    ``open``, ``next``, ``close``: a cursor that stays open, by name. ``enter``, ``leave``, ``fail``: `with connection`,
    left in peace or by an exception. ``blob``: an incremental write. ``other``: another connection runs SQL that may
    change rows of the table `name`. ``read``, ``done``: another connection begins and ends a read. ``capture``: the
    capture begins, of the tables that are bound, or of all.
    """

    do: Do
    sql: str = ""
    bindings: tuple[tuple[Value, ...], ...] = ()
    count: int = 0
    name: str = ""
    fault: Fault | None = None
    refusable: bool = False
    """The documentation says that the capture may refuse the transaction after this."""

    def __str__(self) -> str:
        shown = [repr(self.do)]
        for field in dataclasses.fields(self)[1:]:
            value = getattr(self, field.name)
            if value != field.default:
                shown.append(f"{field.name}={value!r}")
        return f"Step({', '.join(shown)})"


class Outcome(NamedTuple):
    """What the application sees of a step."""

    error: str
    message: str
    rows: Rows

    def __str__(self) -> str:
        return f"{self.error} ({self.message})" if self.error else f"{len(self.rows)} rows"


class HarnessError(Exception):
    """A check failed inside a tracer: it is not an outcome of the statement."""


class Session:
    """A connection, the cursors that are open on it, and two more connections to its file if it has one.

    Parameters
    ----------
    folder : Path
        For the database and those that are attached. ``{folder}`` in SQL stands for it.
    in_file : bool
    before : Callable[[str], None]
        Called with each statement before it runs, when the one before has ended.
    """

    def __init__(self, folder: Path, *, in_file: bool, before: Callable[[str], None] = lambda _: None) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._before = before
        path = str(folder / "core.db") if in_file else ":memory:"
        self.connection = apsw.Connection(path)
        # ALTER TABLE may take an index's column for a string, where it finds none of that name in a TEMP table of the
        # same name; the index then lacks its rows. That is SQLite's own fault, and needs no capture.
        self.connection.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)
        self.connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
        self.connection.limit(apsw.SQLITE_LIMIT_TRIGGER_DEPTH, TRIGGER_DEPTH)
        self.connection.set_busy_timeout(0)
        self.faults = Faults(self.connection)
        self._cursors: dict[str, apsw.Cursor] = {}
        self._entered = 0
        self._reader: apsw.Cursor | None = None
        self._other: apsw.Connection | None = apsw.Connection(path) if in_file else None
        if self._other is not None:
            self._other.set_busy_timeout(0)
            Faults(self._other)  # the schema may name its functions

    @property
    def settled(self) -> bool:
        """No transaction is open: not by BEGIN, not by a savepoint, not by a statement that is still running."""
        connection = self.connection
        return not connection.in_transaction and connection.txn_state("main") != apsw.SQLITE_TXN_WRITE

    @property
    def idle(self) -> bool:
        """Not even a read is open, so that this connection sees what another one commits."""
        return not self.connection.in_transaction and self.connection.txn_state("main") == apsw.SQLITE_TXN_NONE

    def query(self, sql: str, *bindings: Value) -> Rows:
        """What the database says, asked in a way that the application's tracers and faults do not notice."""
        with self.faults.paused():
            cursor = apsw.Cursor(self.connection)
            cursor.exec_trace = _run
            cursor.row_trace = cast("Any", _as_it_is)
            return cast("Rows", cursor.execute(sql, bindings, can_cache=False).fetchall())

    def perform(self, step: Step) -> Outcome:
        """Carries a step out, whatever becomes of it."""
        with self.faults.armed(step.fault):
            try:
                rows = self._perform(step)
            except HarnessError as error:
                raise error.__cause__ or error from None
            except Exception as error:
                if isinstance(error, apsw.FullError):
                    self.faults.fired = True
                return Outcome(type(error).__name__, str(error), [])
        return Outcome("", "", rows)

    def _perform(self, step: Step) -> Rows:
        match step.do:
            case "sql":
                return _taken(self._execute(step), None)
            case "many":
                self.connection.executemany(step.sql, step.bindings)
            case "partly":
                cursor = self._execute(step)
                try:
                    return _taken(cursor, step.count)
                finally:
                    cursor.close()
            case "open":
                cursor = self._cursors[step.name] = self._execute(step)
                return _taken(cursor, step.count)
            case "next":
                return _taken(self._cursors.get(step.name, ()), step.count)
            case "close":
                self._close(step.name)
            case "enter":
                self.connection.__enter__()
                self._entered += 1
            case "leave" | "fail":
                self._leave(ZeroDivisionError() if step.do == "fail" else None)
            case "blob":
                self._write_blob(step)
            case "other":
                if self._other is not None:
                    self._other.execute(step.sql).fetchall()
            case "read":
                if self._other is not None and self._reader is None:
                    self._reader = self._other.execute("SELECT 1 FROM sqlite_schema UNION ALL SELECT 2")
                    next(self._reader)
            case "done":
                self._stop_reading()
            case "capture":
                pass  # not of this connection alone
        return []

    def _execute(self, step: Step) -> apsw.Cursor:
        cursor = apsw.Cursor(self.connection)
        cursor.exec_trace = self._trace
        sql = step.sql.replace("{folder}", str(self._folder))
        return cursor.execute(sql, *step.bindings[:1])

    def _trace(self, _cursor: apsw.Cursor, sql: str, _bindings: object) -> bool:
        try:
            with self.faults.paused():
                self._before(sql.strip())
        except Exception as error:
            raise HarnessError from error
        self.faults.trace()
        return True

    def _leave(self, error: Exception | None) -> None:
        if self._entered:
            self._entered -= 1
            kind = None if error is None else type(error)
            # The connection is left as a with statement leaves it.
            leave = cast("Callable[..., object]", self.connection.__exit__)
            leave(kind, error, None)

    def _write_blob(self, step: Step) -> None:
        [(table, column, rowid, data)] = step.bindings
        assert isinstance(table, str)
        assert isinstance(column, str)
        assert isinstance(rowid, int)
        assert isinstance(data, bytes)
        blob = self.connection.blob_open("main", table, column, rowid, True)
        try:
            blob.write(data[: blob.length()])
        finally:
            blob.close()

    def _close(self, name: str) -> None:
        cursor = self._cursors.pop(name, None)
        if cursor is not None:
            cursor.close()

    def is_open(self, name: str) -> bool:
        """A cursor of that name is, of an earlier step."""
        return name in self._cursors

    @property
    def is_read(self) -> bool:
        """The other connection reads, and what it would write waits for the end of that."""
        return self._reader is not None

    @property
    def has_cursors(self) -> bool:
        """A cursor of an earlier step is still open."""
        return bool(self._cursors)

    def _stop_reading(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def close(self) -> None:
        """Ends everything, whatever state it is in."""
        self._stop_reading()
        for connection in (self.connection, self._other):
            if connection is not None:
                with contextlib.suppress(apsw.Error):  # of a statement that still ran
                    connection.close(True)


def _taken(cursor: Iterable[object], count: int | None) -> Rows:
    return cast("Rows", list(itertools.islice(cursor, count)))


def _run(_cursor: apsw.Cursor, _sql: str, _bindings: object) -> bool:
    return True


def _as_it_is(_cursor: apsw.Cursor, row: Rows) -> Rows:
    return row
