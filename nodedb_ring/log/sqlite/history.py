"""Tokens of positions in a log, and whether the log still has the history of one."""

from __future__ import annotations

from ..token import LogToken, check_same_log, history_differs
from .drivers import Query
from .schema import BATCH_AT, TRIMMED_BATCH

__all__ = ["checked_sequence", "token_at"]


def token_at(query: Query, log_id: str, core_id: int, sequence: int) -> LogToken:
    """``SqliteEventLog.token``."""
    rows = query(f"core {core_id} at {sequence} has no token yet", BATCH_AT, (core_id, sequence))
    first, batch_id = rows[0] if rows else (None, None)
    return LogToken(log_id, core_id, sequence, first, batch_id)


def checked_sequence(query: Query, log_id: str, core_id: int, token: LogToken) -> int:
    """``SqliteEventLog.sequence_of``."""
    check_same_log(token, log_id=log_id, core_id=core_id)
    if token.first is None:
        return token.sequence
    undone = f"the token {token} was not checked"
    found = query(undone, BATCH_AT, (core_id, token.first))
    if found != [(token.first, token.batch_id)]:
        trimmed = query(undone, TRIMMED_BATCH, (core_id,))
        # Of what lies behind the last batch that was trimmed, nothing is known.
        if not (trimmed and trimmed[0][0] is not None and token.first < trimmed[0][0]):
            raise history_differs(token, "batch {}-{:x}".format(*found[0]) if found else "none there")
    return token.sequence
