"""SQLite by the standard library or by apsw: one interface for both, and what happens to connections at a fork."""

from __future__ import annotations

import ctypes
import enum
import os
import sqlite3
import sys
import weakref
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias
from urllib.parse import quote

from ...errors import LogError
from .._joining import take_rows

__all__ = ["DRIVERS", "Access", "Bindings", "Connection", "Execute", "Query"]

Bindings: TypeAlias = tuple[int | float | str | bytes | memoryview, ...]
Query: TypeAlias = Callable[[str, str, Bindings], list[tuple[Any, ...]]]
"""What asks the log: what an error says is not done, the statement and its bindings; it returns the rows."""
Execute: TypeAlias = Callable[[str, str, Bindings], None]
"""The same of a statement that writes."""


class Access(enum.Enum):
    """How a file is opened, as options of SQLite's URIs.

    ``IMMUTABLE`` reads a file that nobody has open as it is then: without locks, and without files beside it.
    """

    WRITE = "mode=rwc"
    READ = "mode=ro"
    IMMUTABLE = "mode=ro&immutable=1"


class Connection(Protocol):
    """What the log needs of SQLite. The two drivers differ in names and exceptions."""

    errors: type[Exception]

    def execute(self, sql: str, bindings: Bindings = ()) -> None:
        """Runs one statement that returns no rows, whole or not at all, even if a signal handler raises."""
        ...

    def query(self, sql: str, bindings: Bindings = ()) -> list[tuple[Any, ...]]:
        """Runs one statement to its end; returns its rows."""
        ...

    def some(self, sql: str, bindings: Bindings, *, events: int, size: int) -> list[tuple[Any, ...]]:
        """As ``query``, for rows of batches: stops at so many events or bytes."""
        ...

    def copy_to(self, path: str) -> None:
        """Copies the database, as one transaction sees it, while others write."""
        ...

    def code(self, error: Exception) -> int:
        """SQLite's extended result code; 0 if there is none."""
        ...

    def close(self) -> None:
        """Closes it. Idempotent."""
        ...


def _uri(path: str, access: Access) -> str:
    return f"file:{quote(os.fsencode(path))}?{access.value}"


def _cannot_open(path: str, error: Exception) -> LogError:
    return LogError(f"{path}: cannot be opened: {error}; its directory must exist, and both must be writable")


class _StandardLibrary:
    errors: type[Exception] = sqlite3.Error

    def __init__(self, path: str, busy_seconds: float, access: Access = Access.WRITE) -> None:
        try:
            self._connection = sqlite3.connect(
                _uri(path, access), timeout=busy_seconds, isolation_level=None, check_same_thread=False, uri=True
            )
        except sqlite3.Error as error:
            raise _cannot_open(path, error) from error
        _connections.add(self)

    def execute(self, sql: str, bindings: Bindings = ()) -> None:
        self._connection.execute(sql, bindings)

    def query(self, sql: str, bindings: Bindings = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, bindings).fetchall()

    def some(self, sql: str, bindings: Bindings, *, events: int, size: int) -> list[tuple[Any, ...]]:
        cursor = self._connection.execute(sql, bindings)
        try:
            return take_rows(cursor, events, size)
        finally:
            cursor.close()

    def copy_to(self, path: str) -> None:
        target = sqlite3.connect(path)
        try:
            self._connection.backup(target)
        finally:
            target.close()

    def code(self, error: Exception) -> int:
        return int(getattr(error, "sqlite_errorcode", 0))

    def close(self) -> None:
        self._connection.close()

    def leave_to_parent(self) -> None:
        _never_free(self._connection)


class _Apsw:
    errors: type[Exception]

    def __init__(self, path: str, busy_seconds: float, access: Access = Access.WRITE) -> None:
        import apsw

        self.errors = apsw.Error
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
        try:
            self._connection: Any = apsw.Connection(_uri(path, access), flags)
        except apsw.Error as error:
            raise _cannot_open(path, error) from error
        self._connection.set_busy_timeout(round(1000 * busy_seconds))
        _connections.add(self)

    def execute(self, sql: str, bindings: Bindings = ()) -> None:
        self._connection.execute(sql, bindings)

    def query(self, sql: str, bindings: Bindings = ()) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._connection.execute(sql, bindings).fetchall()
        return rows

    def some(self, sql: str, bindings: Bindings, *, events: int, size: int) -> list[tuple[Any, ...]]:
        cursor = self._connection.execute(sql, bindings)
        try:
            return take_rows(cursor, events, size)
        finally:
            cursor.close(True)

    def copy_to(self, path: str) -> None:
        import apsw

        target = apsw.Connection(path)
        try:
            with target.backup("main", self._connection, "main") as copying:
                while not copying.done:
                    copying.step(-1)
        finally:
            target.close()

    def code(self, error: Exception) -> int:
        return int(getattr(error, "extendedresult", 0))

    def close(self) -> None:
        self._connection.close()

    def leave_to_parent(self) -> None:
        _never_free(self._connection)
        _never_free(sys.modules["apsw"])  # it closes all connections when it goes


DRIVERS: Final[dict[str, type[_StandardLibrary] | type[_Apsw]]] = {"sqlite3": _StandardLibrary, "apsw": _Apsw}

_connections: Final[weakref.WeakSet[_StandardLibrary | _Apsw]] = weakref.WeakSet()


def _never_free(thing: object) -> None:
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _leave_to_parent() -> None:
    """Keeps a forked child from closing inherited connections, in its garbage collector or at its interpreter's end.

    SQLite forbids the use of a connection across a fork, and closing is a use: the child has none of the parent's locks
    and does not know who has opened the file since. Whoever closes last deletes the write-ahead log. The child would
    take itself for the last, and delete what others have appended.
    """
    for connection in list(_connections):
        connection.leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parent)
