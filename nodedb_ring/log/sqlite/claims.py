"""``FileClaim``: that one follower follows a core for a group, held by a lock in a file beside the log.

The kernel drops the lock when its holder dies, whatever killed it and in whichever pid namespace, so a successor need
not wait. Each group and core has a byte of the file, whose place is its row in ``nodedb_ring_follower``; that row says
who holds it, for the message. The lock belongs to the open file (``F_OFD_SETLK``): SQLite's own locks, which belong to
the process and the file of the log, know nothing of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import socket
import struct
import time
import weakref
from datetime import UTC, datetime
from typing import Final, NamedTuple, final

from ...errors import RoleTaken
from .drivers import Execute, Query
from .schema import HOLDER, SET_HOLDER

__all__ = ["FileClaim", "Holder", "claim_file", "claims_path", "is_claimed", "place_of", "role_taken"]

_FLOCK: Final = struct.Struct("@hhqqi4x")  # struct flock: type, whence, start, length, pid


class Holder(NamedTuple):
    """Who follows, as it has stored itself."""

    pid: int
    host: str
    since: float

    @classmethod
    def this_process(cls) -> Holder:
        """The one that asks, from now on."""
        return cls(os.getpid(), socket.gethostname(), time.time())

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since, UTC).isoformat(sep=" ", timespec="seconds")
        return f"process {self.pid} on {self.host}, since {since}"


def claims_path(path: str) -> str:
    """The file of the locks of a log."""
    return f"{path}-followers"


def place_of(group: str, core_id: int) -> int:
    """The byte of a group and core: files need not be as long as their locks."""
    digest = hashlib.blake2b(f"{core_id}:{group}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 2


def role_taken(path: str, group: str, core_id: int, holder: Holder | None) -> RoleTaken:
    """What to raise for a group that has a follower."""
    who = "a process that has not said who it is yet" if holder is None else str(holder)
    return RoleTaken(
        f"{path}: core {core_id} is followed for group {group!r} by {who}; close that follower, or name another group",
        # A pid of another host means nothing here.
        holder.pid if holder is not None and holder.host == socket.gethostname() else None,
    )


@final
class FileClaim:
    """A lock that is held until it is released, or its process has died.

    Thread safety
    -------------
    Any thread, a signal handler and a finalizer.
    """

    __slots__ = ("__weakref__", "_finalizer")

    def __init__(self, fd: int) -> None:
        # A forked child closes its copy: else the lock would be held until the child dies, too.
        self._finalizer: Final = weakref.finalize(self, _close, fd)
        _open.add(fd)

    def check(self) -> None:
        """``GroupClaim.check``: nobody can take a lock over."""

    def release(self) -> None:
        """``GroupClaim.release``."""
        self._finalizer()

    @classmethod
    def take(cls, path: str, place: int) -> FileClaim | None:
        """Claims a byte of the file; None if somebody holds it."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _lock(place))
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        return cls(fd)


def claim_file(
    path: str,
    group: str,
    core_id: int,
    *,
    query: Query,
    execute: Execute,
) -> FileClaim:
    """``SqliteEventLog.claim_group``."""
    undone = f"core {core_id} was not claimed for group {group!r}"
    claim = FileClaim.take(claims_path(path), place_of(group, core_id))
    if claim is None:
        rows = query(undone, HOLDER, (group, core_id))
        raise role_taken(path, group, core_id, Holder(*rows[0]) if rows else None)
    try:
        # On a full disk others are not told who follows.
        with contextlib.suppress(OSError):
            execute(undone, SET_HOLDER, (group, core_id, *Holder.this_process()))
    except BaseException:
        claim.release()
        raise
    return claim


def is_claimed(path: str, place: int) -> bool:
    """Whether somebody holds a byte of the file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Asked for a shared lock, which a file that is only read may have; a holder's is exclusive.
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _lock(place, fcntl.F_RDLCK))
        return int(_FLOCK.unpack(answer)[0]) != fcntl.F_UNLCK
    finally:
        os.close(fd)


def _lock(place: int, kind: int = fcntl.F_WRLCK) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, place, 1, 0)


# Descriptors of this process's claims, for the child of a fork.
_open: Final[set[int]] = set()


def _close(fd: int) -> None:
    if fd in _open:
        _open.discard(fd)
        os.close(fd)


def _leave_to_parent() -> None:
    while _open:
        with contextlib.suppress(OSError):
            os.close(_open.pop())


os.register_at_fork(after_in_child=_leave_to_parent)
