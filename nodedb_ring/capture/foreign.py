"""``ForeignCommits``: whether somebody else has committed to a captured database, of whom its log knows nothing.

SQLite's ``PRAGMA data_version`` changes when another connection has committed, in any journal mode, and does not count
how often. So what the log has of others is compared, too: a captured commit has moved the log's last number, and the
log's own work (watermarks, claims, trims, batches of other producers) has changed its other tables. A change for which
neither is a reason was made by a connection that is not captured.
"""

from __future__ import annotations

import logging
from typing import Final, Literal, cast, final

import apsw

from ..ends.logger import log_safely
from ..errors import CaptureError
from ..log.sqlite.schema import LAST_COMMIT
from ._own_sql import rows

__all__ = ["ForeignCommits"]

_WORK: Final = (
    "SELECT group_name, core_id, sequence, batch_id FROM main.nodedb_ring_watermark",
    "SELECT group_name, core_id, pid, host, since FROM main.nodedb_ring_follower",
    "SELECT core_id, last_sequence, trimmed_sequence FROM main.nodedb_ring_core",
)
_RANGES: Final = """WITH RECURSIVE core(id) AS (
    SELECT (SELECT core_id FROM main.nodedb_ring_log ORDER BY core_id LIMIT 1)
    UNION ALL SELECT (SELECT core_id FROM main.nodedb_ring_log WHERE core_id > core.id ORDER BY core_id LIMIT 1)
        FROM core WHERE core.id NOTNULL)
SELECT id, (SELECT first_sequence FROM main.nodedb_ring_log WHERE core_id = id ORDER BY first_sequence LIMIT 1),
    (SELECT last_sequence FROM main.nodedb_ring_log WHERE core_id = id AND id <> ? ORDER BY first_sequence DESC LIMIT 1)
FROM core WHERE id NOTNULL"""


@final
class ForeignCommits:
    """What a capture knows of the others that write its database.

    Parameters
    ----------
    connection : apsw.Connection
        Outside a transaction.
    logged_core : int or None
        The core that the capture logs.
    action : "warn" or "raise"
    """

    def __init__(self, connection: apsw.Connection, logged_core: int | None, action: Literal["warn", "raise"]) -> None:
        self._logged_core = logged_core
        self._action = action
        self._last_commit, self._work, self._ranges = self._read(connection)

    def changed(self, connection: apsw.Connection, own_commit: int) -> None:
        """Another connection has committed since the last call; `own_commit` is the number of the capture's last one.

        Called while the connection holds the write lock, before it changes anything.

        Raises
        ------
        CaptureError
            It was none that is captured, and the action is "raise".
        """
        last_commit, work, ranges = self._last_commit, self._work, self._ranges
        self._last_commit, self._work, self._ranges = self._read(connection)
        if self._logged_core is not None:
            if self._logged_core not in ranges and self._logged_core in self._ranges:
                # The capture's own first commits since then.
                ranges[self._logged_core] = self._ranges[self._logged_core]
            if self._last_commit > max(own_commit, last_commit) or (self._work, self._ranges) != (work, ranges):
                return
        message = (
            f"{connection.filename!r}: another connection has committed to it that is not captured, so events of its"
            " changes are missing; attach a capture with this log to each connection that writes"
        )
        if self._logged_core is None:
            message += ", or pass on_foreign_commit='ignore': without a log captures do not know each other"
        if self._action == "raise":
            raise CaptureError(message)
        log_safely(logging.WARNING, "%s", message)

    def _read(self, connection: apsw.Connection) -> tuple[int, list[object], dict[object, object]]:
        """The last commit's number, what the log's own work writes, and the first and last number of each core."""
        if self._logged_core is None:
            return 0, [], {}
        work: list[object] = [sorted(rows(connection, query), key=repr) for query in _WORK]
        ranges: dict[object, object] = {
            core: (first, last) for core, first, last in rows(connection, _RANGES, (self._logged_core,))
        }
        [(last_commit,)] = rows(connection, f"SELECT {LAST_COMMIT}")

        return cast("int", last_commit), work, ranges
