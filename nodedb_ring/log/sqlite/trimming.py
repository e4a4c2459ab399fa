"""Deletes stored batches from the beginning of a core, a few rows in a transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from .drivers import Bindings
from .schema import DELETE_TRIMMED, REMEMBER_LAST, TRIMMED

__all__ = ["TRIM_ROWS", "trim_batches"]

_Query: TypeAlias = Callable[[str, str, Bindings], list[tuple[Any, ...]]]
_Execute: TypeAlias = Callable[[str, str, Bindings], None]

TRIM_ROWS: Final = 16
"""Rows that are deleted in one transaction, so that appends get their turn."""


def trim_batches(query: _Query, execute: _Execute, undone: str, core_id: int, *, upto: int) -> None:
    """Deletes the rows of a core that have no number above `upto`. Its highest number is stored elsewhere first."""
    if not query(undone, TRIMMED, (core_id, upto, 1)):
        return
    execute(undone, REMEMBER_LAST, (core_id, upto))
    while query(undone, TRIMMED, (core_id, upto, 1)):
        execute(undone, DELETE_TRIMMED, (core_id, upto, TRIM_ROWS))
