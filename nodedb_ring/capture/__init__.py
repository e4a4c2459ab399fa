"""Capture of a database's own changes as write events: ``SqliteCapture``, and ``PostgresCapture`` in ``postgres/``.

A file or a folder for each database, with the compiled code that only it needs; ``_change_block.pyx`` is what they
share. Not here: the log beside it (``log/``).

Each database's library is an extra, so a capture is imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import CaptureError

if TYPE_CHECKING:
    from .snapshot import Snapshot
    from .sqlite import SqliteCapture

__all__ = ["CaptureError", "Snapshot", "SqliteCapture"]


def __getattr__(name: str) -> Any:
    if name == "SqliteCapture":
        from .sqlite import SqliteCapture

        return SqliteCapture
    if name == "Snapshot":
        from .snapshot import Snapshot

        return Snapshot
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
