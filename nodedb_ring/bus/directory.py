"""What a bus needs of its directory, of the file system there and of this process, and what creations left behind.

Whatever is lacking is an error that names it, before anything is made. A file that is being made has no name
(``O_TMPFILE``) and so goes with its maker, however that ends. On a file system that makes no such files it has a
hidden name meanwhile, as it had everywhere up to version 0.2: a kill leaves that, and ``unfinished`` finds it.
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
"""Where buses are unless asked otherwise: a file system in memory."""
PREFIX: Final = "nodedb_ring."
"""Of a bus's file, before its name. A file in the making has a dot before it and its bus's id behind it."""

_UNFINISHED: Final = re.compile(rf"\.{re.escape(PREFIX)}(.+)\.[0-9a-f]{{16}}")
_DESCRIPTORS: Final = Path("/proc/self/fd")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
# What a file system says that has no O_TMPFILE: EISDIR and ENOENT are kernels' that do not know the flag.
_NO_TMPFILE: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL, errno.ENOSYS})
_NOT_WRITABLE: Final = frozenset({errno.EACCES, errno.EROFS})
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
_NO_LOCKS: Final = frozenset({errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EACCES})
_NO_FIFOS: Final = frozenset({errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})
_FLOCK: Final = struct.Struct("@hhqqi")  # struct flock: type, whence, start, length, pid
_ELSEWHERE: Final = "pass another directory, one in memory"


def check_directory(directory: Path) -> None:
    """Whether there is such a directory at all.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        There is none, or something else.
    """
    if directory.is_dir():
        return
    if directory == DEFAULT_DIRECTORY:
        remedy = "mount a tmpfs there (a container has one of --shm-size), or pass directory="
    else:
        remedy = "make it, or pass another"
    if directory.exists():
        raise NotADirectoryError(errno.ENOTDIR, f"is no directory to keep buses in: {remedy}", str(directory))
    raise FileNotFoundError(errno.ENOENT, f"there is no such directory to keep buses in: {remedy}", str(directory))


def check_proc() -> None:
    """Whether files can be opened anew and be linked, by their descriptors.

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
    """16 bytes that the kernel chose when this machine started; zeros where it does not say."""
    try:
        return bytes.fromhex(_BOOT_ID.read_text().strip().replace("-", ""))
    except OSError:
        return bytes(16)


def new_file(hidden: Path, head: bytes) -> io.FileIO:
    """A new file in that directory for this user alone, with a head: without a name, or under a hidden one.

    Closing what is returned, which may be repeated, is the only thing that closes its descriptor.

    Raises
    ------
    OSError
        The directory cannot be written to, or the file system lacks what a bus needs: which.
    """
    # Under a name that create() removes, whatever interrupts it.
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
        # Whatever the umask takes away.
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
    """Gives a new file its name, if nobody has it.

    Raises
    ------
    FileExistsError
        Somebody has.
    OSError
        The file system, or a sandbox, makes no hard links.
    """
    try:
        # With a descriptor of a directory, which an absolute path does not need, Python calls linkat() and not link(),
        # which would link what /proc has there and not the file that it leads to.
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
    """What a creation left that was killed, on a file system without ``O_TMPFILE`` or in a version up to 0.2.

    Attributes
    ----------
    name : str
        Of the bus that it was to be.
    path : Path
    size : int
        Bytes that it occupies.
    """

    name: str
    path: Path
    size: int


def unfinished(directory: Path) -> list[UnfinishedFile]:
    """Those of this user in a directory that nobody has open, by path."""
    return list(_abandoned(directory))


def remove_unfinished(directory: Path) -> list[UnfinishedFile]:
    """Removes them, and returns them."""
    removed: list[UnfinishedFile] = []
    for found in _abandoned(directory):
        with contextlib.suppress(FileNotFoundError):
            found.path.unlink()
            removed.append(found)
    return removed


def _abandoned(directory: Path) -> Generator[UnfinishedFile, None, None]:
    """Unfinished files, each leased to this process until the next is asked for: nobody else opens it meanwhile."""
    check_directory(directory)
    for path in sorted(directory.iterdir()):
        match = _UNFINISHED.fullmatch(path.name)
        if match is None:
            continue
        # Another user's, or gone since. What is no regular file, the FIFO of a bus say, is leased to nobody.
        with contextlib.suppress(OSError), io.FileIO(path, "r+", opener=_open_there) as file:
            status = os.fstat(file.fileno())
            if status.st_uid == os.geteuid() and _lease(file.fileno()):
                yield UnfinishedFile(match[1], path, status.st_blocks * 512)


def _open_there(path: str, flags: int) -> int:
    # Without waiting for the other end of what may be a FIFO.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _lease(fd: int) -> bool:
    """Whether no other process has this file open or mapped, in whichever namespace; false where nobody can say.

    The kernel grants a write lease on no other terms.
    """
    # Whoever opens it meanwhile has the holder sent a signal: one that is ignored, where SIGIO would end the process.
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError:
        return False
    return True
