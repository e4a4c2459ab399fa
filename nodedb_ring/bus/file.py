"""The file that processes share a bus through: how it is made, found, checked and removed.

::

    offset              bytes                          what
    0                   1 page                         head: what the bus is, written once (``_HEAD``)
    blocks_at           num_cores * block_bytes        a block for each core's ring, laid out as ``region`` says

It is made without a name, with all of its room allocated, and gets its name when it is complete. So whoever finds it
finds all of it, a creator that is killed leaves nothing, and a lack of memory shows at creation and not at some later
store. The role of an end is a lock on a byte of the file, which the kernel releases when the holder dies.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import mmap
import os
import re
import stat
import struct
import weakref
from collections.abc import Generator
from pathlib import Path
from typing import Final, final

from .._ring import block_bytes
from ..core.backpressure import BackpressureConfig
from ..errors import ClosedError, LayoutError
from .directory import (
    PREFIX,
    boot_id,
    check_directory,
    check_proc,
    link,
    new_file,
)

__all__ = ["MOST_CORES", "BusFile", "names", "remove"]

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_MAGIC: Final = int.from_bytes(b"ringbus1", "little")
_VERSION: Final = 2
_ROW_BYTES: Final = 128
_NO_FIFO: Final = frozenset(
    {errno.ENOENT, errno.EPERM, errno.EACCES, errno.EROFS, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENAMETOOLONG}
)
_PAGE: Final = 4096
MOST_CORES: Final = 2**16
_HEAD: Final = struct.Struct("<QIIQQQQQ4IIIQ16s")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    """The first page of a bus's file, in the order of ``_HEAD``."""

    magic: int = _MAGIC
    version: int = _VERSION
    num_cores: int
    capacity: int
    arena_bytes: int
    block_bytes: int
    blocks_at: int = _PAGE
    file_bytes: int
    throttle_enter: int
    throttle_exit: int
    suspend_enter: int
    suspend_exit: int
    row_bytes: int = _ROW_BYTES
    reserved: int = 0
    bus_id: int
    boot_id: bytes
    """Identifies the boot of the machine in which it was made; zeros if the kernel does not say."""

    def thresholds(self) -> tuple[int, int, int, int]:
        return self.throttle_enter, self.throttle_exit, self.suspend_enter, self.suspend_exit


@final
class OpenFile:
    """The descriptor of a bus's file, which is closed when the last reference to this has gone.

    A call that uses the number keeps this: after ``close()`` in another thread, the number could be another file's.
    """

    __slots__ = ("__weakref__", "fd")

    fd: int

    def __init__(self, file: io.FileIO) -> None:
        self.fd = file.fileno()
        # Not os.close of the number: if an interrupt comes before this line or before the caller has the object, the
        # file is closed twice, and the number may be another file's by then.
        weakref.finalize(self, file.close)


class BusFile:
    """A bus's file, open and mapped. ``create`` and ``open`` make it.

    Thread safety
    -------------
    Immutable but for ``close``.
    """

    __slots__ = (
        "__weakref__",
        "_head",
        "_identity",
        "_map",
        "_opened",
        "arena_bytes",
        "capacity",
        "num_cores",
        "path",
        "thresholds",
    )

    path: Path
    num_cores: int
    capacity: int
    arena_bytes: int
    thresholds: tuple[int, int, int, int]
    _head: _Head
    _identity: tuple[int, int]
    _map: mmap.mmap
    _opened: OpenFile | None

    def __init__(self, path: Path, file: io.FileIO, head: _Head) -> None:
        self.path = path
        self.num_cores = head.num_cores
        self.capacity = head.capacity
        self.arena_bytes = head.arena_bytes
        self.thresholds = head.thresholds()
        self._head = head
        self._map = _mapped(file.fileno(), head.file_bytes, path)
        status = os.fstat(file.fileno())
        self._identity = status.st_dev, status.st_ino
        self._opened = OpenFile(file)

    @classmethod
    @contextlib.contextmanager
    def create(
        cls, name: str, directory: Path, *, num_cores: int, capacity: int, arena_bytes: int, config: BackpressureConfig
    ) -> Generator[BusFile, None, None]:
        """A context with a file without a name, allocated and zeroed, in which the caller lays out the rings.

        At the end of the ``with`` block the file gets its name. After an exception nothing is left of it.

        Raises
        ------
        OSError
            ENOSPC: the file system has no room for it.
        FileExistsError
            There is a bus of that name, this user's or another's.
        FileNotFoundError, NotADirectoryError
            There is no such directory, or no ``/proc``.
        """
        path = _path(name, directory)
        check_directory(directory)
        check_proc()
        if os.path.lexists(path):
            raise _name_taken(path)
        size = _PAGE + num_cores * block_bytes(capacity, arena_bytes)
        head = _Head(
            num_cores=num_cores,
            capacity=capacity,
            arena_bytes=arena_bytes,
            block_bytes=block_bytes(capacity, arena_bytes),
            file_bytes=size,
            throttle_enter=config.throttle_enter,
            throttle_exit=config.throttle_exit,
            suspend_enter=config.suspend_enter,
            suspend_exit=config.suspend_exit,
            bus_id=int.from_bytes(os.urandom(8), "little"),
            boot_id=boot_id(),
        )
        hidden = directory / f".{path.name}.{head.bus_id:016x}"
        try:
            file = new_file(hidden, _HEAD.pack(*dataclasses.astuple(head)))
            try:
                _allocate(file.fileno(), size, path)
                made = cls(path, file, head)
                yield made
                link(file, path)
            except FileExistsError:
                file.close()
                raise _name_taken(path) from None
            except BaseException:
                file.close()
                raise
        finally:
            # It exists if the file system makes no files without a name. (A read-only one refuses to unlink any name.)
            if os.path.lexists(hidden):
                hidden.unlink()

    @classmethod
    def open(cls, name: str, directory: Path) -> BusFile:
        """Maps a bus after checking its file and its head.

        Raises
        ------
        FileNotFoundError
            There is none of that name.
        PermissionError
            It is another user's.
        LayoutError
            It is not a bus, or one of another version, layout, size or boot.
        """
        path = _path(name, directory)
        check_directory(directory)
        file = _open_own_file(path)
        try:
            head = _checked_head(path, file.fileno())
            _check_boot(path, head)
            return cls(path, file, head)
        except BaseException:
            file.close()
            raise

    def block(self, core_id: int) -> memoryview:
        """The bytes of one core's ring."""
        start = self._head.blocks_at + core_id * self._head.block_bytes
        return memoryview(self._map)[start : start + self._head.block_bytes]

    def blocks(self) -> memoryview:
        """Those of all cores, one behind the other."""
        return memoryview(self._map)[self._head.blocks_at :]

    def own_block(self, core_id: int) -> memoryview:
        """The same in a separate mapping: a forked child maps private memory over the part that leases show."""
        start = self._head.blocks_at + core_id * self._head.block_bytes
        # A block of few slots begins within a page.
        before = start % mmap.ALLOCATIONGRANULARITY
        size = before + self._head.block_bytes
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        file = self.opened()
        return memoryview(mmap.mmap(file.fd, size, flags=flags, offset=start - before))[before:]

    def wake_path(self, core_id: int) -> bytes:
        """The FIFO that signals a core's asynchronous waiter, made unless it is there.

        Empty if there can be none: the bus was unlinked, so nothing would remove it later, or this process may not make
        one. Waiters then check the ring by themselves, some 12 times a second.
        """
        file = self.opened()
        path = _wake_path(self.path.parent, self._head.bus_id, core_id)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkfifo(path, 0o600)
        except OSError as error:
            if error.errno not in _NO_FIFO:
                raise
            return b""
        # Checked after the FIFO is made: an unlink meanwhile either removes the FIFO or is seen here.
        if os.fstat(file.fd).st_nlink == 0:
            path.unlink(missing_ok=True)
            return b""
        return os.fsencode(path)

    def opened(self) -> OpenFile:
        """The descriptor to claim ends and to ask for claims through.

        Raises
        ------
        ClosedError
            The file is closed.
        """
        file = self._opened
        if file is None:
            raise ClosedError(f"{self.path}: the bus is closed; open it again")
        return file

    def check_claimable(self) -> None:
        """Whether this process can claim ends.

        Raises
        ------
        PermissionError
            The process has changed its user since it opened the bus.
        FileNotFoundError
            There is no ``/proc``.
        """
        file = self.opened()
        owner = os.fstat(file.fd).st_uid
        if owner != os.geteuid():
            raise PermissionError(
                errno.EPERM,
                f"belongs to user {owner}, and this process runs as {os.geteuid()} by now: claim ends before setuid, or"
                " create the bus after it",
                str(self.path),
            )
        check_proc()

    def is_linked(self) -> bool:
        """Whether the name leads to this file. It can be called after ``close``."""
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) == self._identity

    def unlink(self) -> None:
        """Removes the name, if it still leads to this file, and the FIFOs. It can be called after ``close``."""
        with contextlib.suppress(FileNotFoundError):
            if self.is_linked():
                self.path.unlink()
        _remove_fifos(self.path.parent, self._head)

    def close(self) -> None:
        """Closes the descriptor, once no call uses it. May be repeated. The last ring that uses it ends the mapping."""
        self._opened = None


def names(directory: Path) -> list[str]:
    """The names of this user's buses in a directory, sorted. Other files are left out."""
    check_directory(directory)
    found: list[str] = []
    for path in directory.iterdir():
        name = path.name.removeprefix(PREFIX)
        if name != path.name and _NAME.fullmatch(name):
            # Another user's, not a bus, or removed meanwhile: it could not be opened.
            with contextlib.suppress(OSError, LayoutError), _open_own_file(path) as file:
                _checked_head(path, file.fileno())
                found.append(name)
    return sorted(found)


def remove(name: str, directory: Path) -> None:
    """Removes a bus by name without opening it, even if it is of another version or corrupt.

    Raises
    ------
    FileNotFoundError, PermissionError, LayoutError
        There is none; it is another user's; what has its name is not a regular file.
    """
    path = _path(name, directory)
    check_directory(directory)
    with _open_own_file(path) as file, contextlib.suppress(LayoutError):
        _remove_fifos(directory, _checked_head(path, file.fileno()))
    path.unlink()


def _allocate(fd: int, size: int, path: Path) -> None:
    """Allocates all of a file now. Otherwise a store could end in a SIGBUS when memory runs out."""
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        wrong = error.errno or errno.ENOSPC
        raise OSError(
            wrong,
            f"{os.strerror(wrong)}: a bus of {size} bytes; ask for fewer cores or events, or pass another directory",
            str(path),
        ) from None


def _mapped(fd: int, size: int, path: Path) -> mmap.mmap:
    """Maps the whole file, and fills the page tables now rather than at the first event in each page."""
    try:
        return mmap.mmap(fd, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        raise OSError(
            errno.ENODEV,
            "the file system maps no files into several processes: pass another directory, one in memory",
            str(path.parent),
        ) from None


def _name_taken(path: Path) -> FileExistsError:
    remedy = "open it, or unlink it first"
    with contextlib.suppress(FileNotFoundError):
        owner = os.lstat(path).st_uid
        if owner != os.geteuid():
            remedy = f"it is user {owner}'s, and this process runs as {os.geteuid()}: choose another name"
    return FileExistsError(errno.EEXIST, f"there is a bus of this name: {remedy}", str(path))


def _path(name: str, directory: Path) -> Path:
    if not isinstance(name, str):
        raise TypeError(f"name {name!r}: must be a str, not {type(name).__name__}")
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"name {name!r}: must be letters, digits, '_', '-' and '.', at most 128, no '.' or '-' in front"
        )
    return directory / f"{PREFIX}{name}"


def _wake_path(directory: Path, bus_id: int, core_id: int) -> Path:
    return directory / f".{PREFIX}wake.{bus_id:016x}.{core_id}"


def _remove_fifos(directory: Path, head: _Head) -> None:
    for path in directory.glob(f".{PREFIX}wake.{head.bus_id:016x}.*"):
        path.unlink(missing_ok=True)


def _open_own_file(path: Path) -> io.FileIO:
    """Opens a file that may be a bus: a regular file of this user's, not a symbolic link.

    Only closing the returned object closes the descriptor, and that may be repeated.
    """
    try:
        file = io.FileIO(path, "r+", opener=_open_no_link)
    except FileNotFoundError:
        raise FileNotFoundError(
            errno.ENOENT, "no bus of this name: EventBus.list() returns the names", str(path)
        ) from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise LayoutError(f"{path}: is not a regular file, and so no bus") from None
        if error.errno == errno.EACCES:
            # Most often because it is another user's: only its owner can open a bus's file.
            _check_owner(path, os.lstat(path).st_uid)
        raise
    try:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise LayoutError(f"{path}: is not a regular file, and so no bus")
        _check_owner(path, status.st_uid)
    except BaseException:
        file.close()
        raise
    return file


def _open_no_link(path: str, flags: int) -> int:
    # O_NONBLOCK: it may be a FIFO, whose opening would wait for the other end.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _check_owner(path: Path, owner: int) -> None:
    if owner != os.geteuid():
        raise PermissionError(
            errno.EPERM,
            f"belongs to user {owner}, and this process runs as {os.geteuid()}: run it as that user, or create a bus of"
            " another name",
            str(path),
        )


def _check_boot(path: Path, head: _Head) -> None:
    """Refuses a file on a disk that was made before the machine started: after a loss of power it may be incomplete."""
    now = boot_id()
    if any(head.boot_id) and any(now) and head.boot_id != now:
        # Imported here: few processes ever show this message.
        import uuid

        raise LayoutError(
            f"{path}: was made in boot {uuid.UUID(bytes=head.boot_id)}, and this is boot {uuid.UUID(bytes=now)}: the"
            " machine has started again since, and the file may hold half of what was written; unlink the bus, create"
            " it again, and replay from the log"
        )


def _checked_head(path: Path, fd: int) -> _Head:
    size = os.fstat(fd).st_size
    if size < _PAGE:
        raise LayoutError(f"{path}: {size} bytes: is truncated, or no bus, which has a head of {_PAGE}")
    head = _Head(**dict(zip(_Head.__slots__, _HEAD.unpack(os.pread(fd, _HEAD.size, 0)), strict=True)))
    if head.magic != _MAGIC:
        raise LayoutError(f"{path}: magic {head.magic:#x}: is not a bus, which has {_MAGIC:#x}")
    if head.version != _VERSION:
        raise LayoutError(
            f"{path}: version {head.version}: this build reads version {_VERSION}; use one version in all processes"
        )
    if head.row_bytes != _ROW_BYTES:
        raise LayoutError(f"{path}: rows of {head.row_bytes} bytes: this build has {_ROW_BYTES}")
    if head.capacity < 1 or head.capacity > 2**32 or head.capacity & (head.capacity - 1):
        raise LayoutError(f"{path}: capacity {head.capacity}: is not a power of two up to {2**32}")
    if not 1 <= head.arena_bytes < 2**32:
        raise LayoutError(f"{path}: arena_bytes {head.arena_bytes}: is not in 1 .. {2**32 - 1}")
    if not 1 <= head.num_cores <= MOST_CORES:
        raise LayoutError(f"{path}: num_cores {head.num_cores}: is not in 1 .. {MOST_CORES}")
    if head.block_bytes != block_bytes(head.capacity, head.arena_bytes):
        raise LayoutError(
            f"{path}: block_bytes {head.block_bytes}: a ring of {head.capacity} events and {head.arena_bytes} bytes of "
            f"payload has {block_bytes(head.capacity, head.arena_bytes)}"
        )
    if head.blocks_at != _PAGE:
        raise LayoutError(f"{path}: blocks_at {head.blocks_at}: is not {_PAGE}")
    expected = head.blocks_at + head.num_cores * head.block_bytes
    if head.file_bytes != expected:
        raise LayoutError(f"{path}: file_bytes {head.file_bytes}: {head.num_cores} cores take {expected}")
    if size != expected:
        wrong = "is truncated" if size < expected else "is too long"
        raise LayoutError(f"{path}: {size} bytes: {wrong}; the bus has {expected}")
    try:
        BackpressureConfig(
            throttle_enter=head.throttle_enter,
            throttle_exit=head.throttle_exit,
            suspend_enter=head.suspend_enter,
            suspend_exit=head.suspend_exit,
        )
    except ValueError as error:
        raise LayoutError(f"{path}: thresholds {head.thresholds()}: {error}") from None
    return head
