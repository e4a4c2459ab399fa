"""What a bus needs of its directory, of the file system and of this process; and what killed creations left behind.

If something is lacking, an error names it before anything is made. A file that is being made has no name
(``O_TMPFILE``), so it disappears with its creator, however that ends. A file system without such files gets a hidden
name for that time, as every file system did up to version 0.2. A kill leaves that file, and ``unfinished`` finds it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import io
import os
import re
import signal
import struct
from collections.abc import Generator
from pathlib import Path
from typing import Final, NoReturn

__all__ = [
    "DEFAULT_DIRECTORY",
    "PREFIX",
    "UnfinishedFile",
    "boot_id",
    "check_directory",
    "check_proc",
    "link",
    "new_file",
    "remove_unfinished",
    "unfinished",
]

DEFAULT_DIRECTORY: Final = Path("/dev/shm")  # noqa: S108 - only this user's files are opened there, and by no link
"""The default directory of buses, a file system in memory."""
PREFIX: Final = "nodedb_ring."
"""Begins the name of a bus's file. A file that is being made has a dot before it and the bus's id at its end."""

_UNFINISHED: Final = re.compile(rf"\.{re.escape(PREFIX)}(.+)\.[0-9a-f]{{16}}")
_DESCRIPTORS: Final = Path("/proc/self/fd")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
# What open() and link() raise on a file system without O_TMPFILE (EISDIR and ENOENT come from kernels that do not know
# the flag), where this process may not write, and without hard links.
_NO_TMPFILE: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL, errno.ENOSYS})
_NOT_WRITABLE: Final = frozenset({errno.EACCES, errno.EROFS})
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
_NO_LOCKS: Final = frozenset({errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EACCES})
_NO_FIFOS: Final = frozenset({errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})
_FLOCK: Final = struct.Struct("@hhqqi")  # struct flock: type, whence, start, length, pid
_ELSEWHERE: Final = "pass another directory, one in memory"


def check_directory(directory: Path) -> None:
    """Refuses a path that is not a directory.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        There is nothing, or something else.
    """
    if directory.is_dir():
        return
    if directory == DEFAULT_DIRECTORY:
        remedy = "mount a tmpfs there (a container has one of --shm-size), or pass directory="
    else:
        remedy = "make it, or pass another"
    if directory.exists():
        raise NotADirectoryError(errno.ENOTDIR, f"is not a directory to keep buses in: {remedy}", str(directory))
    raise FileNotFoundError(errno.ENOENT, f"there is no such directory to keep buses in: {remedy}", str(directory))


def check_proc() -> None:
    """Refuses a system where files cannot be reopened and linked by their descriptors.

    Raises
    ------
    FileNotFoundError
        Nothing is mounted at ``/proc``.
    """
    if not _DESCRIPTORS.is_dir():
        raise FileNotFoundError(
            errno.ENOENT,
            "buses are made, and their ends claimed, through this directory: mount /proc (mount -t proc proc /proc)",
            str(_DESCRIPTORS),
        )


def boot_id() -> bytes:
    """16 bytes that the kernel chose when this machine started; zeros if it does not say."""
    try:
        return bytes.fromhex(_BOOT_ID.read_text().strip().replace("-", ""))
    except OSError:
        return bytes(16)


def new_file(hidden: Path, head: bytes) -> io.FileIO:
    """A new file that only this user can use, with a head: without a name, or with the hidden one.

    Only closing the returned object closes the descriptor, and that may be repeated.

    Raises
    ------
    OSError
        The directory cannot be written to, or the file system lacks what a bus needs. The message says which.
    """
    # Tried with the hidden name, which create() removes whatever interrupts it.
    _check_fifos(hidden)
    try:
        file = io.FileIO(hidden.parent, "r+", opener=_open_without_name)
    except OSError as error:
        if error.errno in _NOT_WRITABLE:
            _refuse_directory(hidden.parent, error)
        if error.errno not in _NO_TMPFILE:
            raise
        file = io.FileIO(hidden, "x+", opener=_open_hidden)
    try:
        # The umask may have taken away permissions.
        os.fchmod(file.fileno(), 0o600)
        _check_file_system(file.fileno(), hidden.parent, head)
    except BaseException:
        file.close()
        raise
    return file


def _check_fifos(hidden: Path) -> None:
    try:
        os.mkfifo(hidden, 0o600)
    except OSError as error:
        if error.errno in _NOT_WRITABLE:
            _refuse_directory(hidden.parent, error)
        if error.errno not in _NO_FIFOS:
            raise
        raise OSError(
            error.errno,
            f"{os.strerror(error.errno)}: the file system, or this process's sandbox, makes no FIFOs, by which event"
            f" loops are woken: {_ELSEWHERE}, or allow mknod()",
            str(hidden.parent),
        ) from None
    hidden.unlink()


def _open_without_name(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_TMPFILE, 0o600)


def _open_hidden(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _refuse_directory(directory: Path, error: OSError) -> NoReturn:
    raise type(error)(
        error.errno,
        f"{os.strerror(error.errno or 0)}: user {os.geteuid()} can make no bus here: {_ELSEWHERE}",
        str(directory),
    ) from None


def _check_file_system(fd: int, directory: Path, head: bytes) -> None:
    try:
        os.pwrite(fd, head, 0)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise OSError(
            errno.EINVAL, f"the file system takes no writes, hugetlbfs say: {_ELSEWHERE}", str(directory)
        ) from None
    try:
        for kind in (fcntl.F_WRLCK, fcntl.F_UNLCK):
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0))
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise OSError(
            error.errno,
            f"{os.strerror(error.errno)}: the file system, or this process's sandbox, has no open file description"
            f" locks (F_OFD_SETLK), by which ends are held: {_ELSEWHERE}",
            str(directory),
        ) from None


def link(file: io.FileIO, path: Path) -> None:
    """Gives a new file its name, if that is free.

    Raises
    ------
    FileExistsError
        It is not.
    OSError
        The file system, or a sandbox, makes no hard links.
    """
    try:
        # An absolute path needs no src_dir_fd, but with one Python calls linkat() instead of link(), which would link
        # the entry in /proc and not the file that it leads to.
        os.link(_DESCRIPTORS / str(file.fileno()), path, src_dir_fd=file.fileno(), follow_symlinks=True)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        raise OSError(
            error.errno,
            f"{os.strerror(error.errno)}: the file system, or this process's sandbox, makes no hard links, by which a"
            f" bus gets its name: {_ELSEWHERE}, or allow linkat()",
            str(path),
        ) from None


@dataclasses.dataclass(frozen=True, slots=True)
class UnfinishedFile:
    """A file of a creation that was killed, on a file system without ``O_TMPFILE`` or in a version up to 0.2.

    Attributes
    ----------
    name : str
        The name of the bus.
    path : Path
    size : int
        Its size on the file system, in bytes.
    """

    name: str
    path: Path
    size: int


def unfinished(directory: Path) -> list[UnfinishedFile]:
    """The unfinished files of this user in a directory that no process has open, sorted by path."""
    return list(_abandoned(directory))


def remove_unfinished(directory: Path) -> list[UnfinishedFile]:
    """Removes the files of ``unfinished``, and returns them."""
    removed: list[UnfinishedFile] = []
    for found in _abandoned(directory):
        with contextlib.suppress(FileNotFoundError):
            found.path.unlink()
            removed.append(found)
    return removed


def _abandoned(directory: Path) -> Generator[UnfinishedFile, None, None]:
    """Unfinished files, each leased to this process until the next is yielded: no other process opens it meanwhile."""
    check_directory(directory)
    for path in sorted(directory.iterdir()):
        match = _UNFINISHED.fullmatch(path.name)
        if match is None:
            continue
        # Suppressed: another user's file, or one that was removed meanwhile. A FIFO cannot be leased.
        with contextlib.suppress(OSError), io.FileIO(path, "r+", opener=_open_there) as file:
            status = os.fstat(file.fileno())
            if status.st_uid == os.geteuid() and _lease(file.fileno()):
                yield UnfinishedFile(match[1], path, status.st_blocks * 512)


def _open_there(path: str, flags: int) -> int:
    # O_NONBLOCK: it may be a FIFO, whose opening would wait for the other end.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _lease(fd: int) -> bool:
    """Takes a write lease on a file: whether no other process, in any namespace, has it open or mapped.

    The kernel grants the lease only then. False also if the kernel cannot say.
    """
    # If another process opens the file, the kernel sends this signal to the lease's holder. SIGURG is ignored by
    # default, while SIGIO would end the process.
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError:
        return False
    return True
