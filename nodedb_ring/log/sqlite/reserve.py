"""Room on the disk that a log keeps for the moment when the disk is full.

When it is, SQLite cannot copy the WAL into the database, which would have to grow, and cannot write into the WAL
either: not even a trim, which needs a few pages of it. So a log in a file of its own has a second file beside it, as
long as a WAL may get. A trim that finds no room deletes that file, has the WAL copied, and goes on. If there is no room
for another one afterwards, the database may not grow: appends then use the pages that trims have freed, and the WAL,
which stays as it is.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

from .drivers import Connection
from .opening import CHECKPOINT_BYTES

__all__ = ["RESERVE_BYTES", "keep_reserve", "reserve_path", "use_reserve"]

RESERVE_BYTES: Final = CHECKPOINT_BYTES + 1024 * 1024
_MOST_PAGES: Final = 1_073_741_823
"""What SQLite's own limit was before it was raised; above 8 TB at our page size."""


def reserve_path(path: str) -> str:
    """The file of the reserve of a log."""
    return f"{path}-reserve"


def keep_reserve(connection: Connection, path: str) -> None:
    """Makes the file if there is none and if there is room; without it the database may not grow."""
    reserve = reserve_path(path)
    if not os.path.exists(reserve):
        try:
            _allocate(reserve)
        except OSError:
            connection.query("PRAGMA main.max_page_count = 1")  # SQLite makes that the size that it has.
            return
    connection.query(f"PRAGMA main.max_page_count = {_MOST_PAGES}")


def _allocate(reserve: str) -> None:
    # In one step under its name, so that nobody takes half of one for a reserve.
    unfinished = f"{reserve}.{os.getpid()}"
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        os.posix_fallocate(fd, 0, RESERVE_BYTES)
        os.replace(unfinished, reserve)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
        raise
    finally:
        os.close(fd)


def use_reserve(connection: Connection, path: str) -> None:
    """Frees the room, and has the WAL copied into the database, so that it is written from its beginning again."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(reserve_path(path))
    connection.query("PRAGMA main.wal_checkpoint(RESTART)")
