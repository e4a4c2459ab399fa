"""Deletes stored batches from the beginning of a core, a few rows in a transaction."""

from __future__ import annotations

from typing import Final

from .drivers import Execute, Query
from .schema import DELETE_TRIMMED, REMEMBER_LAST, TRIMMED

__all__ = ["TRIM_ROWS", "trim_batches"]

TRIM_ROWS: Final = 16
"""Rows that are deleted in one transaction, so that appends get their turn."""


def trim_batches(query: Query, execute: Execute, undone: str, core_id: int, *, upto: int) -> None:
    """Deletes the rows of a core that have no number above `upto`. Its highest number is stored elsewhere first."""
    if not query(undone, TRIMMED, (core_id, upto, 1)):
        return
    execute(undone, REMEMBER_LAST, (core_id, upto))
    while query(undone, TRIMMED, (core_id, upto, 1)):
        execute(undone, DELETE_TRIMMED, (core_id, upto, TRIM_ROWS))
