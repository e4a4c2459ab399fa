"""What an error of SQLite's means to the caller of the log."""

from __future__ import annotations

import errno
from typing import Any, Final

from ...errors import CorruptLogError, LogError

__all__ = ["is_busy", "is_constraint", "translated", "watermark_is_higher"]

# SQLite's result codes. The two drivers name them differently, or not at all.
_BUSY: Final = 5
_READONLY: Final = 8
_IOERR: Final = 10
_CORRUPT: Final = 11
_FULL: Final = 13
_CONSTRAINT: Final = 19
_NOTADB: Final = 26
_IOERR_SHMSIZE: Final = 10 | 19 << 8


def is_busy(code: int) -> bool:
    """Whether another connection held the file locked."""
    return code & 0xFF == _BUSY


def is_constraint(code: int) -> bool:
    """Whether a row violated a constraint of its table."""
    return code & 0xFF == _CONSTRAINT


def translated(error: Exception, code: int, *, path: str, undone: str, busy_seconds: float) -> Exception:
    """What to raise for an error with an extended result code, which left something undone."""
    primary = code & 0xFF
    if primary == _FULL or code == _IOERR_SHMSIZE:
        return OSError(errno.ENOSPC, f"no space for the event log; {undone}", path)
    if primary == _IOERR:
        return OSError(errno.EIO, f"the event log: {error}; {undone}", path)
    if primary == _BUSY:
        return LogError(
            f"{path}: {undone}: another connection kept it locked for {busy_seconds:g} s; end its transaction"
        )
    if primary == _READONLY:
        return LogError(
            f"{path}: {undone}: it is read-only; open it without read_only=True, as a user who may write the file"
        )
    if primary == _NOTADB:
        return LogError(f"{path}: {undone}: it is not a SQLite database; name another file")
    if primary == _CORRUPT:
        return CorruptLogError(f"{path}: {undone}: the database is damaged: {error}; restore it from a copy")
    return LogError(f"{path}: {undone}: {error}")


def watermark_is_higher(undone: str, stored: list[tuple[Any, ...]]) -> LogError:
    """What to raise where a watermark would move back."""
    stands = f"at {stored[0][0]} already" if stored else "higher"
    return LogError(f"{undone}: it stands {stands}; rewind=True moves it back, and the group gets events again")
