"""``StoredCommits``: the numbers of the commits that captures stored in a log, and where each ends."""

from __future__ import annotations

from typing import final

from .. import StoredCommit
from .drivers import Query
from .schema import COMMIT_AT, COMMITS_FROM, LAST_COMMIT, ROW_AT

__all__ = ["StoredCommits"]


@final
class StoredCommits:
    """``SqliteEventLog.commits``: ``CommitNumbers`` of a log in a SQLite file."""

    __slots__ = ("_query",)

    def __init__(self, query: Query) -> None:
        self._query = query

    def last(self) -> int:
        """``CommitNumbers.last``."""
        [(number,)] = self._query("the number of the last commit was not read", f"SELECT {LAST_COMMIT}", ())
        return int(number)

    def after(self, core_id: int, sequence: int) -> StoredCommit | None:
        """``CommitNumbers.after``."""
        undone = f"the commit of core {core_id} after {sequence} was not read"
        inside = self._query(undone, ROW_AT, (core_id, sequence + 1))
        first = int(inside[0][0]) if inside else sequence + 1
        found: StoredCommit | None = None
        # A commit of many events has several rows.
        while rows := self._query(undone, COMMITS_FROM, (core_id, first)):
            for number, last, begin in rows:
                if found is not None and (number != found.number or number <= 0):
                    return found
                found = StoredCommit(max(number, 0), last)
                first = begin + 1
        return found

    def before(self, core_id: int, sequence: int) -> int:
        """``CommitNumbers.before``."""
        rows = self._query(f"the commit of core {core_id} at {sequence} was not read", COMMIT_AT, (core_id, sequence))
        return max(0, int(rows[0][0])) if rows else 0
