"""Capture of a database's own changes as write events: ``SqliteCapture``.

A file for each database, with the compiled code that only it needs. Not here: the log beside it (``log/``).
"""

from .snapshot import Snapshot
from .sqlite import CaptureError, SqliteCapture

__all__ = ["CaptureError", "Snapshot", "SqliteCapture"]
