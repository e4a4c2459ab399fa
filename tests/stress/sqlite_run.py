"""One run of the differential test: a captured database, its replica and its twin, compared after every step."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast

import apsw

from nodedb_ring import WriteEvent, create_event_bus
from nodedb_ring.capture import CaptureError, SqliteCapture
from nodedb_ring.log.sqlite import SqliteEventLog

from .sqlite_faults import MAY_BE_REFUSED, Value
from .sqlite_replica import Difference, Replica, SchemaHistory, image_of, layout_of
from .sqlite_schemas import read_tables
from .sqlite_session import Outcome, Rows, Session, Step

CAPACITY: Final = 1 << 15
ARENA_BYTES: Final = 1 << 26
VIEW: Final = re.compile(r"\bview_\d+")
TELL_PAGES: Final = ("PRAGMA wal_checkpoint", "PRAGMA main.incremental_vacuum")
CHANGES_LOST_BY: Final = ("ANALYZE", "DROP TABLE")
"""They leave changes() alone, and where a table was made later it is 0 after them, as it is after a statement that
fails and while one with RETURNING is still running: docs/capture.md."""


class InvalidError(Exception):
    """These steps are no test: the capture could not begin."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """The database of a run."""

    journal: str = "memory"
    log: bool = False
    twin: bool = True


class Run:
    """A captured database, perhaps its twin, and all that is checked after each step."""

    def __init__(self, kind: Kind, folder: Path, tally: Counter[str]) -> None:
        self.kind = kind
        self.steps: list[Step] = []
        self._tally = tally
        in_file = kind.journal != "memory"
        self.captured = Session(folder / "captured", in_file=in_file, before=self._before)
        self._twin = Session(folder / "twin", in_file=in_file) if kind.twin else None
        self._folder = folder
        self._capture: SqliteCapture | None = None
        self._log: SqliteEventLog | None = None
        self._running = ""  # the statement of this step that has not ended yet
        self._recorded = 0  # changes of the open transaction when it began
        self._savepoints: list[tuple[str, int]] = []
        self._refusable = False
        self._data_version = -1
        self._changes_lost = False
        self._was_open = False  # a transaction was, at the last check
        self._virtual = False
        if in_file:
            for session in (self.captured, self._twin):
                if session is not None:
                    session.query(f"PRAGMA journal_mode = {kind.journal}")

    def step(self, step: Step) -> None:
        """Carries out one step and checks everything. A step that cannot be judged is left out."""
        if step.do == "capture":
            self.steps.append(step)
            self._begin(cast("tuple[str, ...] | None", step.bindings[0] if step.bindings else None))
            return
        if step.do == "other" and (not self.captured.idle or self.captured.is_read):
            return  # a snapshot or a lock decides what is seen of it, and when
        if step.sql == "REINDEX" and self._log is not None and self._twin is not None:
            return  # it writes the log's indexes, too, which the twin has not
        if self._twin is not None and any(not self._reads(view) for view in VIEW.findall(step.sql)):
            return  # of a table that is gone: what SQLite knows of its columns depends on who asked before
        if "temp_store" in step.sql and self.captured.has_cursors:
            return  # refused while a statement writes to temp, and those of a twin's triggers would
        if step.do == "open" and self.captured.is_open(step.name):
            self.step(Step("close", name=step.name))
        if step.fault is not None and step.fault.kind.startswith("interrupt") and self.captured.has_cursors:
            # An interrupt holds until no statement is running any more, and an open cursor is a statement.
            step = dataclasses.replace(step, fault=None)
        if step.fault is not None and step.fault.kind == "deny" and self._has_virtual_tables():
            # A full-text table that is denied what it must read loses what it has not written yet, by itself.
            step = dataclasses.replace(step, fault=dataclasses.replace(step.fault, kind="deny own"))
        self.steps.append(step)
        settled_before = self.captured.settled
        self._running, self._recorded = "", self.pending
        outcome = self.captured.perform(step)
        if self._capture is not None:
            self._judge(step, outcome)
        if self._twin is not None:
            theirs = self._twin.perform(step)
            if step.do == "read" and "BusyError" in (outcome.error, theirs.error):
                # A transaction whose pages no longer fit the cache locks readers out, and a log has pages of its own.
                self.captured.perform(Step("done"))
                self._twin.perform(Step("done"))
            elif step.fault is not None and step.fault.kind == "trace" and outcome.error and theirs.error:
                pass  # a tracer comes before what is found on preparing, where the statement is in the cache
            elif step.sql.startswith(TELL_PAGES):
                pass  # a log has pages of its own
            elif (outcome.error, outcome.rows) != (theirs.error, theirs.rows):
                raise Difference(f"{step}: {outcome} with a capture, {theirs} without: {outcome.rows} {theirs.rows}")
            self._compare_counters(self._twin, step, settled_before=settled_before, failed=bool(outcome.error))
        self._count(step, outcome)

    def _reads(self, view: str) -> bool:
        try:
            self.query(f"SELECT * FROM main.{view} LIMIT 0")
        except apsw.SQLError:
            return False
        return True

    def _has_virtual_tables(self) -> bool:
        return any(table.kind == "virtual" for table in read_tables(self.query))

    def query(self, sql: str, *bindings: Value) -> Rows:
        """What the captured database says. The twin is asked too while reading takes locks that stay."""
        if self._twin is not None and not self._twin.idle:
            with contextlib.suppress(Exception):
                self._twin.query(sql, *bindings)
        return self.captured.query(sql, *bindings)

    # The capture.

    def _begin(self, tables: tuple[str, ...] | None) -> None:
        connection = self.captured.connection
        [self._producer], [self._consumer] = create_event_bus(1, capacity=CAPACITY, arena_bytes=ARENA_BYTES)
        chosen = None if tables is None else {name.lower() for name in tables}

        def captured(name: str) -> bool:
            return chosen is None or name.lower() in chosen

        query = self.query
        if not self.captured.settled:
            raise InvalidError("a transaction is open")
        if self.kind.log:
            self._log = SqliteEventLog(connection.filename, driver="apsw")
        self._history = SchemaHistory(query, captured)
        self._replica = Replica({name: image_of(query, name) for name in layout_of(query, captured)})
        try:
            self._capture = SqliteCapture(connection, self._producer, tables=tables, log=self._log)
        except CaptureError as error:
            raise InvalidError(str(error)) from error
        if self._twin is not None:
            self._add_triggers(self._twin, sorted(self._replica.tables))

    def _add_triggers(self, twin: Session, names: list[str]) -> None:
        """Triggers that never fire, hooks that do nothing: SQLite and apsw run a statement otherwise where they are.

        It first takes all rows of an INSERT ... SELECT, say, then writes them. So a capture does no more than these;
        docs/capture.md has what they change.
        """
        twin.query("CREATE TEMP TABLE never(x)")
        twin.connection.preupdate_hook(lambda _: None, id="twin")
        twin.connection.set_commit_hook(lambda: False, id="twin")
        for number, name in enumerate(names):
            quoted = name.replace('"', '""')
            for op in ("INSERT", "UPDATE", "DELETE"):
                twin.query(
                    f'CREATE TEMP TRIGGER never_{op}_{number} BEFORE {op} ON main."{quoted}" WHEN random() IS NULL'
                    " BEGIN DELETE FROM never WHERE 0; SELECT RAISE(ABORT, 'never'); END"
                )

    def _judge(self, step: Step, outcome: Outcome) -> None:
        fault = step.fault
        by_fault = fault is not None and fault.kind in MAY_BE_REFUSED and self.captured.faults.fired
        refusable = step.refusable or by_fault
        if outcome.error == "CaptureError":
            self._tally["refused"] += 1
            if not (refusable or self._refusable):
                raise Difference(f"{step}: refused, though nothing happened that cannot be captured: {outcome}")
        if self._running:
            self._ended(succeeded=not outcome.error)
            if outcome.error == "InterruptError" and self._running.startswith(("SAVEPOINT", "RELEASE")):
                self._savepoints.clear()  # it may have been made, or released, before the interrupt was seen
        # A function's exception undoes its statement, whatever its conflict clause is. Not so an aggregate's: SQLite
        # does not count it among what may fail half-way, and the rows that were written before it stay.
        raised = outcome.error == "InjectedError" and fault is not None and fault.kind == "function"
        undone = raised and "agg(" not in step.sql and "win(" not in step.sql
        if undone and step.do in ("sql", "partly") and not self.captured.settled:
            self._check_recorded(f"{self._running}: undone", self._recorded)
        if step.do == "enter" and not outcome.error:
            self._savepoints.append(("", self._recorded))
        elif step.do in ("leave", "fail") and ("", 0) in [(name, 0) for name, _ in self._savepoints]:
            while self._savepoints.pop()[0]:
                pass
        if step.do == "other":  # its triggers may write any table
            for name in layout_of(self.query, lambda name: name in self._replica.tables):
                self._replica.reload(name, image_of(self.query, name))
        self._settle(several=step.do == "many")
        self._refusable = not self.captured.settled and (self._refusable or refusable)

    def _before(self, sql: str) -> None:
        """A statement is about to run, and the one before it in the same string has ended."""
        if self._capture is None:
            return
        if self._running:
            self._ended(succeeded=True)
            self._settle(several=False)
        self._running, self._recorded = sql, self._capture.pending

    def _ended(self, *, succeeded: bool) -> None:
        """Follows the savepoints: what was recorded since one must go with it."""
        first, *words = self._running.rstrip("; ").split()
        if not succeeded or not words:
            return
        name = words[-1]
        if first == "SAVEPOINT":
            self._savepoints.append((name, self._recorded))
            return
        if first not in ("ROLLBACK", "RELEASE") or name not in [known for known, _ in self._savepoints]:
            return
        while self._savepoints[-1][0] != name:
            self._savepoints.pop()
        if first == "RELEASE":
            self._savepoints.pop()
        else:
            self._check_recorded(self._running, self._savepoints[-1][1])

    def _check_recorded(self, what: str, expected: int) -> None:
        assert self._capture is not None
        if self._capture.pending != expected:
            raise Difference(f"{what}: {self._capture.pending} changes are pending, {expected} are left")

    # The checks.

    def _settle(self, *, several: bool) -> None:
        """Compares everything if no transaction is open; if one is, nothing may have come out."""
        capture, captured = self._capture, self.captured
        assert capture is not None
        events = self._drained()
        if not captured.settled:
            self._was_open = True
            if events:
                raise Difference(f"{len(events)} events before the commit: {_shown(events)}")
            if captured.connection.txn_state("main") != apsw.SQLITE_TXN_WRITE:
                # Nothing is written, or a RELEASE that was to commit failed: SQLite keeps the savepoints behind it.
                if capture.pending:
                    raise Difference(f"{capture.pending} changes are pending, and nothing is written")
                self._savepoints = [(name, 0) for name, _ in self._savepoints]
            if not captured.connection.in_transaction or captured.connection.txn_state("main"):
                self._history.observe(capture.pending)
            return
        self._savepoints.clear()
        self._tally["commits" if events else "ends without events"] += 1
        self._tally["events"] += len(events)
        if events and events[0].lsn != self._replica.lsn + 1:
            raise Difference(f"two commits with one lsn: {_shown(events)}")
        if len({event.lsn for event in events}) > 1 and not several:
            raise Difference(f"one commit with several lsn: {_shown(events)}")
        if self._log is not None:
            batches = self._log.read(0, self._replica.sequence + 1, 2**62)
            logged = [event for batch in batches for event in batch]
            if logged != events:
                raise Difference(f"the log has {len(logged)} {_shown(logged)}, the ring {len(events)} {_shown(events)}")
        version = captured.connection.data_version("main")
        if events or version != self._data_version or self._was_open:
            self._data_version = version
            try:
                self._compare(events)
            except Difference as error:
                error.add_note(f"events: {_shown(events)}")
                raise
        self._was_open = False
        numbers = capture.pending, capture.dropped, capture.lsn, capture.emitted
        expected = 0, 0, self._replica.lsn, self._replica.sequence
        if numbers != expected:
            raise Difference(f"pending, dropped, lsn, emitted: {numbers} of the capture, {expected} by the events")

    def _drained(self) -> list[WriteEvent]:
        events: list[WriteEvent] = []
        while batch := list(self._consumer.drain(CAPACITY)):
            events += batch
        return events

    def _compare(self, events: Sequence[WriteEvent]) -> None:
        query = self.query
        found = query("PRAGMA main.integrity_check")
        if found != [("ok",)]:
            twins = "" if self._twin is None else f"; the twin: {self._twin.query('PRAGMA main.integrity_check')}"
            raise Difference(f"integrity_check: {found}{twins}")
        self._history.replay(self._replica, events)
        for name in self._history.layout:
            if self._running.startswith("VACUUM"):
                self._replica.renumber(name, image_of(query, name))
            self._replica.check(name, image_of(query, name))

    def _compare_counters(self, twin: Session, step: Step, *, settled_before: bool, failed: bool) -> None:
        mine, theirs = self.captured, twin
        # A cached statement whose table has gone takes the write lock before it fails, and keeps it while a cursor is
        # open. What is cached differs, since SQLite prepares all again when the capture's triggers come.
        states = [(s.connection.in_transaction, mine.has_cursors or s.settled) for s in (mine, theirs)]
        if states[0] != states[1]:
            raise Difference(f"{step}: in_transaction, settled: {states[0]}, of the twin {states[1]}")
        rowids = [s.connection.last_insert_rowid() for s in (mine, theirs)]
        # VACUUM sets it, to what depends on how many tables there are; a log has some.
        if rowids[0] != rowids[1] and self._log is None:
            raise Difference(f"{step}: last_insert_rowid() is {rowids[0]}, of the twin {rowids[1]}")
        # A log counts its rows in total_changes(), and a COMMIT that writes it changes one row.
        writes = step.sql.startswith(("INSERT", "UPDATE", "DELETE", "REPLACE")) and ";" not in step.sql
        alone = step.do == "sql" and writes and settled_before and mine.settled and not failed
        if step.do == "open" or failed or any(word in step.sql for word in CHANGES_LOST_BY):
            self._changes_lost = True
        elif writes:
            self._changes_lost = False
        if (self._log is None and not self._changes_lost) or alone:
            counts = [s.connection.changes() for s in (mine, theirs)]
            if counts[0] != counts[1]:
                raise Difference(f"{step}: changes() is {counts[0]}, of the twin {counts[1]}")
        if self._log is None and not self._virtual:
            totals = [s.connection.total_changes() for s in (mine, theirs)]
            if totals[0] != totals[1]:
                raise Difference(f"{step}: total_changes() is {totals[0]}, of the twin {totals[1]}")
        if mine.settled:
            self._compare_content(twin, step)

    def _compare_content(self, twin: Session, step: Step) -> None:
        # What SQLite remembers of a view whose table has gone depends on who read it before.
        tables, others = ([t for t in read_tables(q) if t.kind != "view"] for q in (self.captured.query, twin.query))
        # SQLite's full-text search writes its tables at other moments when another virtual table takes part.
        self._virtual |= any(table.kind == "virtual" for table in tables)
        if tables != others:
            raise Difference(f"{step}: another schema than the twin's")
        for table in tables:
            if table.kind != "view":
                rows = [session.query(f"SELECT * FROM {table.sql}") for session in (self.captured, twin)]
                if repr(rows[0]) != repr(rows[1]):
                    raise Difference(f"{step}: {table.sql} is {rows[0]}, of the twin {rows[1]}")

    def _count(self, step: Step, outcome: Outcome) -> None:
        self._tally["statements"] += max(1, len(step.bindings) if step.do == "many" else step.sql.count(";") + 1)
        if step.sql.startswith("ROLLBACK"):
            self._tally["rollbacks"] += 1
        if step.fault is not None and self.captured.faults.fired:
            self._tally[f"fault: {step.fault.kind}"] += 1
        elif outcome.error:
            self._tally[f"error: {outcome.error}"] += 1

    def finish(self) -> None:
        """Whatever happened: what was left open ends, and a transaction that nothing disturbs commits."""
        for name in "xy":
            self.step(Step("close", name=name))
        self.step(Step("done"))
        if self.captured.connection.in_transaction:
            self.step(Step("sql", "ROLLBACK"))
        self.step(Step("sql", "CREATE TABLE IF NOT EXISTS main.innocent(a)"))
        self.step(Step("sql", "BEGIN; INSERT INTO main.innocent VALUES (1), (2); COMMIT"))

    @property
    def pending(self) -> int:
        """Changes of the transaction that is open."""
        return 0 if self._capture is None else self._capture.pending

    def close(self) -> None:
        if self._capture is not None:
            self._consumer.close()
            self._producer.close()
        for session in (self.captured, self._twin):
            if session is not None:
                session.close()
        if self._log is not None:
            self._log.close()


def _shown(events: Sequence[WriteEvent]) -> str:
    shown = [f"{e.sequence}/{e.lsn} {e.op!s} {e.collection} {e.row_id}" for e in events[:12]]
    return "[" + ", ".join(shown) + (", ...]" if len(events) > 12 else "]")
