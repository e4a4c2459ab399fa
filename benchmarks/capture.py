"""What capturing row changes costs, for each mechanism that SQLite has: ``python -m benchmarks.capture [rows]``.

Each mechanism is checked first: it captures a script of savepoints, replaced rows and failing statements, and its
changes of each commit are compared with those that triggers in a second database saw. Then it is timed, in the same
run as all others and in processor time, as a ratio to the same SQL without capture. The alternatives to
``SqliteCapture`` are written here in plain Python and are called when a commit is done; ``SqliteCapture`` detects
commits itself and also emits.
"""

# ruff: noqa: D101, D102 - the ways to capture share their methods
# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import contextlib
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import apsw
import msgpack

from nodedb_ring import create_event_bus
from nodedb_ring.capture import SqliteCapture
from nodedb_ring.log.sqlite import SqliteEventLog

COLUMNS = ("id", "day", "carrier", "flight", "origin", "dest", "distance", "scheduled", "departed", "delay")
CREATE = f"CREATE TABLE flights({COLUMNS[0]} INTEGER PRIMARY KEY, {', '.join(COLUMNS[1:])})"
INSERT = f"INSERT INTO flights VALUES ({', '.join('?' * len(COLUMNS))})"
TRANSACTION = 1000
ROUNDS = 5


class Change(NamedTuple):
    op: str
    row_id: str
    new: bytes | None
    old: bytes | None


class Way:
    """A way to capture; this one does not. It is attached when made."""

    name = "no capture"

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        self.changes: list[Change] = []
        self.pack = cast("Callable[[Any], bytes]", msgpack.Packer().pack)

    def committed(self) -> list[Change]:
        """The changes of the transaction that has just been committed, or nothing if it was rolled back."""
        changes, self.changes = self.changes, []
        return changes

    def row(self, values: tuple[Any, ...] | None) -> bytes | None:
        return None if values is None else self.pack(dict(zip(COLUMNS, values, strict=True)))

    def record(self, change: apsw.PreUpdate) -> None:
        new, old = self.row(change.new), self.row(change.old)
        self.changes.append(Change(change.op, str(change.rowid), new, old))


class HookAlone(Way):
    """Sees every change, but no rollback to a savepoint."""

    name = "preupdate hook alone"

    def __init__(self, connection: apsw.Connection) -> None:
        super().__init__(connection)
        connection.preupdate_hook(self.record)
        connection.set_rollback_hook(self.changes_undone)

    def changes_undone(self) -> None:
        self.changes = []


class HookAndTrace(HookAlone):
    """Follows savepoints by the text of statements; a statement that counted no change is taken for undone."""

    name = "hook, statement trace"

    def __init__(self, connection: apsw.Connection) -> None:
        super().__init__(connection)
        self.savepoints: list[tuple[str, int]] = []
        self.start = (0, 0)
        connection.trace_v2(apsw.SQLITE_TRACE_STMT | apsw.SQLITE_TRACE_PROFILE, self.trace)

    def trace(self, reported: dict[str, Any]) -> None:
        if reported.get("trigger"):
            return
        if reported["code"] == apsw.SQLITE_TRACE_STMT:
            self.start = len(self.changes), reported["total_changes"]
            return
        words = reported["sql"].split()
        verb = words[0].upper()
        if verb == "SAVEPOINT":
            self.savepoints.append((words[-1].lower(), len(self.changes)))
        elif verb == "RELEASE" or (verb == "ROLLBACK" and len(words) > 1):
            names = [name for name, _ in self.savepoints]
            if words[-1].lower() in names:
                place = len(names) - 1 - names[::-1].index(words[-1].lower())
                if verb == "ROLLBACK":
                    del self.changes[self.savepoints[place][1] :]
                    place += 1
                del self.savepoints[place:]
        elif reported["total_changes"] == self.start[1]:
            del self.changes[self.start[0] :]

    def committed(self) -> list[Change]:
        self.savepoints = []
        return super().committed()


class HookAndTable(HookAlone):
    """A virtual table is called for savepoints; the hook makes it join, with the connection that it is called from."""

    name = "hook that joins a table"

    def __init__(self, connection: apsw.Connection) -> None:
        super().__init__(connection)
        self.marks: dict[int, int] = {}
        self.joined = False
        self.cursor = connection.cursor()
        connection.create_module("way", cast("apsw.VTModule", self), iVersion=2, eponymous_only=True)

    def record(self, change: apsw.PreUpdate) -> None:
        if not self.joined:
            self.cursor.execute("DELETE FROM way WHERE 0")
        super().record(change)

    def changes_undone(self) -> None:
        super().changes_undone()
        self.joined = False

    def Connect(self, *_: object) -> tuple[str, HookAndTable]:  # noqa: N802
        return "CREATE TABLE x(unused)", self

    def BestIndex(self, *_: object) -> None:  # noqa: N802
        """Required by SQLite; the table is never read."""

    def Disconnect(self) -> None:  # noqa: N802
        """Required by SQLite; there is nothing to free."""

    def Begin(self) -> None:  # noqa: N802
        self.joined = True
        self.marks = {}

    def Savepoint(self, level: int) -> None:  # noqa: N802
        self.marks[level] = len(self.changes)

    def RollbackTo(self, level: int) -> None:  # noqa: N802
        del self.changes[self.marks.get(level, 0) :]

    def Commit(self) -> None:  # noqa: N802
        self.joined = False


class TableByTrigger(HookAndTable):
    """What SqliteCapture does, in Python: triggers that never fire make the virtual table join."""

    name = "hook, joined by triggers"

    def __init__(self, connection: apsw.Connection) -> None:
        super().__init__(connection)
        for op in ("INSERT", "UPDATE", "DELETE"):
            connection.execute(
                f"CREATE TEMP TRIGGER join_{op} AFTER {op} ON main.flights WHEN 0 BEGIN DELETE FROM way WHERE 0; END"
            )


class HookAndMarkers(HookAlone):
    """Writes a marker row for each change to a temporary table, where SQLite's own undo removes it."""

    name = "hook, marker rows"

    def __init__(self, connection: apsw.Connection) -> None:
        super().__init__(connection)
        connection.execute("CREATE TEMP TABLE marker(n INTEGER PRIMARY KEY)")
        self.cursor = connection.cursor()
        self.recorded: dict[int, Change] = {}
        self.count = 0

    def record(self, change: apsw.PreUpdate) -> None:
        if change.database_name != "main":
            return
        super().record(change)
        self.count += 1
        self.cursor.execute("INSERT INTO temp.marker VALUES (?)", (self.count,))
        self.recorded[self.count] = self.changes.pop()

    def committed(self) -> list[Change]:
        markers = cast("list[tuple[int]]", self.connection.execute("SELECT n FROM temp.marker").fetchall())
        kept = [self.recorded[n] for (n,) in markers]
        self.connection.execute("DELETE FROM temp.marker")
        self.recorded = {}
        return kept


class Triggers(Way):
    """Temporary triggers copy each row into a temporary table, which SQLite undoes like any other."""

    name = "temporary triggers"

    def __init__(self, connection: apsw.Connection) -> None:
        super().__init__(connection)
        empty = ", ".join(["NULL"] * len(COLUMNS))
        width = ", ".join(f"{which}_{column}" for which in ("new", "old") for column in COLUMNS)
        connection.execute(f"CREATE TEMP TABLE captured(op, id, {width})")
        for op in ("INSERT", "UPDATE", "DELETE"):
            new = empty if op == "DELETE" else ", ".join(f"new.{column}" for column in COLUMNS)
            old = empty if op == "INSERT" else ", ".join(f"old.{column}" for column in COLUMNS)
            row_id = "new.rowid" if op == "INSERT" else "old.rowid"
            connection.execute(
                f"CREATE TEMP TRIGGER capture_{op} AFTER {op} ON main.flights BEGIN"
                f" INSERT INTO captured VALUES ('{op}', {row_id}, {new}, {old}); END"
            )

    def committed(self) -> list[Change]:
        width = len(COLUMNS)
        changes: list[Change] = []
        for op, row_id, *values in self.connection.execute("SELECT * FROM temp.captured"):
            new = None if op == "DELETE" else self.row(tuple(values[:width]))
            old = None if op == "INSERT" else self.row(tuple(values[width:]))
            changes.append(Change(str(op), str(row_id), new, old))
        if changes:
            self.connection.execute("DELETE FROM temp.captured")
        return changes


class Session(Way):
    """The session extension. It keeps the first image of a row and reports the difference at the end."""

    name = "session extension"

    def __init__(self, connection: apsw.Connection) -> None:
        super().__init__(connection)
        self.begin()

    def begin(self) -> None:
        self.session = apsw.Session(self.connection, "main")
        self.session.attach("flights")

    def committed(self) -> list[Change]:
        changes: list[Change] = []
        for change in apsw.Changeset.iter(self.session.changeset()):
            old = cast("Any", change.old)
            new = cast("Any", change.new)
            if old is not None and new is not None:
                # A changeset leaves out what an update did not touch; the row must be read for a full image.
                [new] = self.connection.execute("SELECT * FROM flights WHERE id = ?", (old[0],))
                old = tuple(n if o is apsw.no_change else o for o, n in zip(old, new, strict=True))
            key = str(cast("Any", old or new)[0])
            changes.append(Change(change.op, key, self.row(new), self.row(old)))
        self.session.close()
        self.begin()
        return changes


class Capture(Way):
    """`SqliteCapture` itself, with the events drained from its ring."""

    name = "SqliteCapture"

    def __init__(self, connection: apsw.Connection) -> None:
        super().__init__(connection)
        [producer], [self.consumer] = create_event_bus(1, capacity=4096, arena_bytes=1 << 22)
        self.capture = SqliteCapture(connection, producer)

    def committed(self) -> list[Change]:
        return [Change(str(e.op), e.row_id, e.new_value, e.old_value) for e in self.consumer.drain(4096)]


class CaptureInBatches(Capture):
    """The same, drained into columns, as a consumer does."""

    def committed(self) -> list[Change]:
        self.consumer.drain(4096)
        return []


WAYS: list[type[Way]] = [
    HookAlone,
    HookAndTrace,
    Session,
    Triggers,
    HookAndMarkers,
    HookAndTable,
    TableByTrigger,
    Capture,
]

FLIGHT = (1, "2013-01-01", "UA", 1545, "EWR", "IAH", 1400, "05:15", None, None)

# What each part is about, and its statements; the last one ends its transaction. Flights 1 and 2 are there.
SCRIPT: dict[str, list[str]] = {
    "plain": ["UPDATE flights SET delay = 2 WHERE id = 1"],
    "twice": ["BEGIN", "UPDATE flights SET delay = 3", "UPDATE flights SET delay = 4", "DELETE FROM flights", "COMMIT"],
    "savepoint": [
        "BEGIN",
        "UPDATE flights SET delay = 5 WHERE id = 1",
        "SAVEPOINT a",
        "UPDATE flights SET delay = 6 WHERE id = 1",
        "ROLLBACK TO a",
        "COMMIT",
    ],
    "abort": ["BEGIN", "UPDATE flights SET id = 3 WHERE id < 3", "COMMIT"],
    "fail": ["BEGIN", "UPDATE OR FAIL flights SET id = 3 WHERE id < 3", "COMMIT"],
    "replace": ["REPLACE INTO flights(id, delay) VALUES (1, 8)"],
    "uncounted": [
        "PRAGMA recursive_triggers = ON",
        "CREATE TRIGGER refuse_delete AFTER DELETE ON flights BEGIN SELECT RAISE(FAIL, 'no'); END",
        "BEGIN",
        "REPLACE INTO flights(id) VALUES (1)",
        "COMMIT",
    ],
    "schema": [
        "INSERT INTO flights(id) VALUES (4), (5), (8), (10)",
        "CREATE TABLE other(x)",
        "INSERT INTO flights(id) VALUES (11)",
    ],
    "exception": ["BEGIN", "UPDATE flights SET delay = raise_at(id)", "COMMIT"],
    "refused": ["BEGIN", "REPLACE INTO flights(id, delay) VALUES (1, -1)", "COMMIT"],
}
REFUSE = "CREATE TRIGGER refuse AFTER INSERT ON flights WHEN new.delay < 0 BEGIN SELECT RAISE(ABORT, 'no'); END"


def raise_at(*values: object) -> None:
    if values == (2,):
        raise ZeroDivisionError


def prepared(script: bool) -> apsw.Connection:
    connection = apsw.Connection(":memory:")
    connection.create_scalar_function("raise_at", raise_at, 1)
    connection.execute(CREATE)
    if script:
        connection.execute(REFUSE)
        connection.execute(INSERT, FLIGHT)
        connection.execute(INSERT, (2, *FLIGHT[1:]))
    return connection


def run(connection: apsw.Connection, statements: list[str]) -> None:
    for statement in statements:
        try:
            connection.execute(statement).fetchall()
        except (apsw.ConstraintError, ZeroDivisionError):
            continue


def split(changes: list[Change]) -> list[Change]:
    """An update of the key as the delete and the insert that `SqliteCapture` makes of it."""
    result: list[Change] = []
    for change in changes:
        key = None if change.new is None else cast("dict[str, Any]", msgpack.unpackb(change.new))["id"]
        if change.op == "UPDATE" and str(key) != change.row_id:
            result += [Change("DELETE", change.row_id, None, change.old), Change("INSERT", str(key), change.new, None)]
        else:
            result.append(change)
    return result


def misses(way: type[Way]) -> list[str]:
    """The parts of the script that `way` reports wrongly."""
    wrong: list[str] = []
    for part, statements in SCRIPT.items():
        twin = prepared(script=True)
        twin.execute("PRAGMA recursive_triggers = ON")
        witness = Triggers(twin)
        run(twin, statements)
        subject = prepared(script=True)
        result = way(subject)
        run(subject, statements)
        if split(result.committed()) != split(witness.committed()):
            wrong.append(part)
        if subject.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            wrong.append(f"{part} (corrupts)")
        subject.close()
        twin.close()
    return wrong


def flights(count: int) -> list[tuple[Any, ...]]:
    return [(i, *FLIGHT[1:3], i % 9000, *FLIGHT[4:8], None, None) for i in range(count)]


def in_transactions(connection: apsw.Connection, way: Way, rows: list[tuple[Any, ...]]) -> int:
    """Inserts, updates and deletes each flight, a thousand changes per transaction. Returns the number of changes."""
    for sql, bindings in [
        (INSERT, rows),
        ("UPDATE flights SET departed = '05:17', delay = 2 WHERE id = ?", [(row[0],) for row in rows]),
        ("DELETE FROM flights WHERE id = ?", [(row[0],) for row in rows]),
    ]:
        for at in range(0, len(rows), TRANSACTION):
            connection.execute("BEGIN")
            connection.executemany(sql, bindings[at : at + TRANSACTION])
            connection.execute("COMMIT")
            way.committed()
    return 3 * len(rows)


def one_by_one(connection: apsw.Connection, way: Way, rows: list[tuple[Any, ...]]) -> int:
    """Commits each change in its own transaction."""
    rows = rows[: len(rows) // 4]
    for row in rows:
        connection.execute(INSERT, row)
        way.committed()
    return len(rows)


def microseconds(work: Callable[[apsw.Connection, Way, list[Any]], int], way: type[Way], rows: list[Any]) -> float:
    connection = prepared(script=False)
    attached = way(connection)
    start = time.process_time()
    changes = work(connection, attached, rows)
    elapsed = time.process_time() - start
    connection.close()
    return 1e6 * elapsed / changes


BLOB = bytes(250)  # what the log stores of one flight
COMMITS = 3000


def commits_in_a_file(logged: bool) -> float:
    """Processor time of a commit of one flight, in a file with a write-ahead log: microseconds.

    It is captured and logged, or else the application itself adds a blob of that size to a second table.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as ends:
        path = Path(folder, "core.db")
        connection = ends.enter_context(contextlib.closing(apsw.Connection(str(path))))
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute(CREATE)
        connection.execute("CREATE TABLE changes(number INTEGER PRIMARY KEY, body BLOB)")
        log = None
        if logged:
            log = ends.enter_context(SqliteEventLog(path, driver="apsw"))
            [producer], [consumer] = create_event_bus(1, capacity=4096, arena_bytes=1 << 22)
            ends.enter_context(consumer)
            ends.enter_context(SqliteCapture(connection, producer, log=log))
        start = time.process_time()
        for row in flights(COMMITS):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(INSERT, row)
            if not logged:
                connection.execute("INSERT INTO changes(body) VALUES (?)", (BLOB,))
            connection.execute("COMMIT")
        took = time.process_time() - start
        if log is not None and log.last_sequence(0) != COMMITS:
            sys.exit(f"the log ends at {log.last_sequence(0)}, not at {COMMITS}")
    return 1e6 * took / COMMITS


def main() -> None:
    rows = flights(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
    wrong: dict[type[Way], list[str]] = {way: misses(way) for way in WAYS}
    if wrong[Capture]:
        sys.exit(f"SqliteCapture is wrong about: {', '.join(wrong[Capture])}")
    timed: list[type[Way]] = [Way, *WAYS[:-1], CaptureInBatches]
    figures: dict[tuple[type[Way], Any], list[float]] = {}
    for _ in range(ROUNDS):
        for work in (in_transactions, one_by_one):
            for way in timed:
                figures.setdefault((way, work), []).append(microseconds(work, way, rows))
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, SQLite", end=" ")
    print(f"{apsw.sqlite_lib_version()}, apsw {apsw.apsw_version()}; in memory, {len(rows)} flights, best of {ROUNDS}")
    print(f"{'':24}{'us per change':>12}{'ratio':>8}{'us per 1-row commit':>20}{'ratio':>8}  wrong about")
    for way in timed:
        line = f"{way.name:24}"
        for work, width in ((in_transactions, 12), (one_by_one, 20)):
            best = min(figures[way, work])
            # The ratio of each round, because its two sides ran next to each other.
            pairs = zip(figures[way, work], figures[Way, work], strict=True)
            line += f"{best:{width}.2f}{statistics.median(a / b for a, b in pairs):8.2f}"
        known = wrong.get(Capture if way is CaptureInBatches else way)
        print(f"{line}  {'' if known is None else ', '.join(known) or 'nothing'}")
    both = [(commits_in_a_file(False), commits_in_a_file(True)) for _ in range(ROUNDS)]
    print(
        f"one row a commit, in a file: with a blob into a second table {min(blob for blob, _ in both):.1f} us", end=", "
    )
    print(f"captured and logged {min(logged for _, logged in both):.1f} us", end=", ")
    print(f"ratio {statistics.median(logged / blob for blob, logged in both):.2f}")


if __name__ == "__main__":
    main()
