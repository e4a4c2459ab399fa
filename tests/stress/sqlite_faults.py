"""What makes a statement fail half-way: functions, hooks and tracers that raise, interrupts, denials, a full database.

A fault is armed for one statement. What it counts (calls of Python functions, instructions of SQLite's machine, calls
of a hook) is counted from there, so the same statement on the same content fails at the same place again.
"""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final, Literal, cast

import apsw

Value = None | int | float | str | bytes
FaultKind = Literal[
    "function",
    "collation",
    "commit hook",
    "commit refused",
    "update hook",
    "rollback hook",
    "preupdate hook",
    "trace",
    "deny table",
    "deny",
    "deny own",
    "full",
    "interrupt",
    "interrupt in function",
    "rollback in function",
]

SAME_FOR_A_TWIN: Final[tuple[FaultKind, ...]] = (
    "function",
    "commit hook",
    "commit refused",
    "rollback hook",
    "trace",
    "deny table",
    "full",
)
"""Faults that have the same effect with and without a capture.

A capture adds to the instructions and authorizations. And an exception of an update hook or a collation does not stop
its statement; if it is its own transaction, apsw rolls it back when there is a commit hook, and only then.
"""

MAY_BE_REFUSED: Final[frozenset[FaultKind]] = frozenset(
    {"preupdate hook", "deny", "deny own", "interrupt", "interrupt in function", "rollback in function"}
)
"""Faults that may hit the capture's own work. Then it may refuse the transaction that is open, and no later one."""


OWN: Final = ("schema_version", "pragma_table_list", "pragma_table_xinfo", "nodedb_ring_capture")
"""What the capture's own statements name, in what an authorizer is asked first."""


class InjectedError(Exception):
    """Raised by a function, a hook or a tracer, as asked."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """What shall fail: the call number ``at`` of its kind, or for "full", ``at - 1`` pages are left.

    "deny" denies what an authorizer is asked, "deny own" what it is asked for the capture's own statements.
    """

    kind: FaultKind
    at: int = 1
    table: str = ""


class Faults:
    """The faults of one connection, and the SQL functions that can raise: ``fn``, ``agg``, ``win``, collations.

    The collation ``py`` never raises, since SQLite would put a key at a wrong place; ``py_raising`` is for expressions.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._fault: Fault | None = None
        self._left = 0
        self._paused = 0
        self.fired = False
        connection.create_scalar_function("fn", cast("Any", self._fn), 1, deterministic=True)
        connection.create_aggregate_function("agg", lambda: cast("Any", _Sum(self)))
        connection.create_window_function("win", lambda: cast("Any", _Sum(self)))
        connection.create_collation("py", _compare)
        connection.create_collation("py_raising", self._compare)

    @contextmanager
    def armed(self, fault: Fault | None) -> Generator[None]:
        """The fault may come in here, once. Everything that was set for it is taken away at the end."""
        self.fired = False
        if fault is None:
            yield
            return
        self._fault, self._left = fault, fault.at
        self._set(fault)
        try:
            yield
        finally:
            self._fault = None
            self._unset(fault)

    @contextmanager
    def paused(self) -> Generator[None]:
        """In here nothing fails and nothing is counted."""
        self._paused += 1
        try:
            yield
        finally:
            self._paused -= 1

    def trace(self) -> None:
        """To be called by the tracer of each statement."""
        self._raise_if("trace")

    def _set(self, fault: Fault) -> None:
        connection = self._connection
        match fault.kind:
            case "commit hook":
                connection.set_commit_hook(self._commit_hook)
            case "commit refused":
                connection.set_commit_hook(lambda: self._due("commit refused"))
            case "update hook":
                connection.set_update_hook(lambda *_: self._raise_if("update hook"))
            case "rollback hook":
                connection.set_rollback_hook(lambda: self._raise_if("rollback hook"))
            case "preupdate hook":
                connection.preupdate_hook(lambda _: self._raise_if("preupdate hook"))
            case "interrupt":
                connection.set_progress_handler(lambda: self._due("interrupt"), 1)
            case "deny" | "deny own" | "deny table":
                connection.authorizer = self._authorize
            case "full":
                with self.paused():
                    [(pages,)] = connection.execute("PRAGMA main.page_count")
                    connection.execute(f"PRAGMA main.max_page_count = {cast('int', pages) + fault.at - 1}")
            case "function" | "collation" | "interrupt in function" | "rollback in function" | "trace":
                pass

    def _unset(self, fault: Fault) -> None:
        connection = self._connection
        match fault.kind:
            case "commit hook" | "commit refused":
                connection.set_commit_hook(None)
            case "update hook":
                connection.set_update_hook(None)
            case "rollback hook":
                connection.set_rollback_hook(None)
            case "preupdate hook":
                connection.preupdate_hook(None)
            case "interrupt":
                connection.set_progress_handler(None)
            case "deny" | "deny own" | "deny table":
                connection.authorizer = None
            case "full":
                connection.execute("PRAGMA main.max_page_count = 1073741823")
            case "function" | "collation" | "interrupt in function" | "rollback in function" | "trace":
                pass

    def _due(self, kind: FaultKind) -> bool:
        """Counts one call; True at the one that shall fail."""
        if self._fault is None or self._fault.kind != kind or self._paused:
            return False
        self._left -= 1
        if self._left:
            return False
        self.fired = True
        return True

    def _raise_if(self, kind: FaultKind) -> None:
        if self._due(kind):
            raise InjectedError(kind)

    def called(self) -> None:
        """A Python function of the statement runs."""
        if self._due("interrupt in function"):
            self._connection.interrupt()
        if self._connection.in_transaction and self._due("rollback in function"):
            cursor = apsw.Cursor(self._connection)
            cursor.exec_trace = _let_pass
            cursor.execute("ROLLBACK")
        self._raise_if("function")

    def _fn(self, value: Value) -> Value:
        self.called()
        return value

    def _compare(self, left: str, right: str) -> int:
        self._raise_if("collation")
        return _compare(left, right)

    def _commit_hook(self) -> bool:
        self._raise_if("commit hook")
        return False

    def _authorize(self, action: int, first: str | None, *_: str | None) -> int:
        fault = self._fault
        assert fault is not None
        if fault.kind != "deny table":
            asked = fault.kind == "deny" or str(first).startswith(OWN)
            return apsw.SQLITE_DENY if asked and self._due(fault.kind) else apsw.SQLITE_OK
        writes = (apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE)
        if self._paused or action not in writes or first is None or first.lower() != fault.table.lower():
            return apsw.SQLITE_OK
        self.fired = True
        return apsw.SQLITE_DENY


def _let_pass(_cursor: apsw.Cursor, _sql: str, _bindings: object) -> bool:
    return True


def _compare(left: str, right: str) -> int:
    return (left > right) - (left < right)


class _Sum:
    """The sum of the integers of a group or a window."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._sum = 0

    def step(self, value: Value) -> None:
        self._faults.called()
        if isinstance(value, int):
            self._sum += value

    def inverse(self, value: Value) -> None:
        self._faults.called()
        if isinstance(value, int):
            self._sum -= value

    def value(self) -> int:
        self._faults.called()
        return self._bounded()

    def final(self) -> int:
        self._faults.called()
        return self._bounded()

    def _bounded(self) -> int:
        return self._sum % 1000
