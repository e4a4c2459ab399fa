"""A captured database with a log in it. It is read through apsw, as a process with a capture must."""

# apsw's types name collections.abc.Buffer, which Python 3.11 does not have.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw

from nodedb_ring import WriteEvent
from nodedb_ring.log.sqlite import SqliteEventLog
from tests.unit.capture.captured import Core, open_database


class LoggedCore(Core):
    """A captured database with a log in it."""

    def __init__(self, connection: apsw.Connection, *, capacity: int = 1024, arena_bytes: int | None = None) -> None:
        super().__init__(connection, capacity=capacity, arena_bytes=arena_bytes)
        self.log = SqliteEventLog(connection.filename, driver="apsw")

    def start(self, **options: Any) -> LoggedCore:
        super().start(log=self.log, **options)
        return self

    def logged(self) -> list[WriteEvent]:
        return all_logged(self.log)

    def log_rows(self) -> list[tuple[object, ...]]:
        """First number, last number and count of each row of the log, as another connection sees them."""
        query = "SELECT first_sequence, last_sequence, count FROM nodedb_ring_log ORDER BY first_sequence"
        other = apsw.Connection(self.connection.filename)
        found = [tuple(values) for values in other.execute(query)]
        other.close()
        return found


def all_logged(log: SqliteEventLog, core_id: int = 0) -> list[WriteEvent]:
    return [event for batch in log.read(core_id, 0, 2**63 - 1) for event in batch]


def numbers(events: list[WriteEvent]) -> list[int]:
    return [event.sequence for event in events]


FILE_JOURNALS = ["delete", "wal"]


def logged_core(
    journal: str, folder: Path, *, capacity: int = 1024, arena_bytes: int | None = None, **options: Any
) -> LoggedCore:
    connection = open_database(journal, folder)
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE)")
    return LoggedCore(connection, capacity=capacity, arena_bytes=arena_bytes).start(**options)
