"""The file that processes share a bus through: how it is made, found, checked and removed.

::

    offset              bytes                          what
    0                   1 page                         head: what the bus is, written once (``_HEAD``)
    blocks_at           num_cores * block_bytes        a block for each core's ring, laid out as ``region`` says

It is made under a temporary name, with all of its room allocated, and linked to its own name when it is complete:
whoever finds it finds all of it, and memory that runs out does so at creation and not at some later store. An end's
role is a lock on a byte of the file, which its holder's death frees.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import mmap
import os
import re
import secrets
import stat
import struct
import weakref
from collections.abc import Generator
from pathlib import Path
from typing import Final

from ._ring import block_bytes
from .backpressure import BackpressureConfig
from .errors import CapacityError, LayoutError

__all__ = ["DEFAULT_DIRECTORY", "BusFile", "make_fifo", "names", "remove"]

DEFAULT_DIRECTORY: Final = Path("/dev/shm")  # noqa: S108 - only this user's files are opened there, and by no link
"""Where buses are unless asked otherwise: a file system in memory."""

_PREFIX: Final = "nodedb_ring."
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_MAGIC: Final = int.from_bytes(b"ringbus1", "little")
_VERSION: Final = 1
_ROW_BYTES: Final = 128
_PAGE: Final = 4096
_MOST_CORES: Final = 2**16
_HEAD: Final = struct.Struct("<QIIQQQQQ4IIIQ")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    """What a bus says of itself, in the order of ``_HEAD``."""

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

    def thresholds(self) -> tuple[int, int, int, int]:
        return self.throttle_enter, self.throttle_exit, self.suspend_enter, self.suspend_exit


class BusFile:
    """A bus's file, open and mapped. ``create`` and ``open`` make it.

    Thread safety
    -------------
    Immutable but for ``close``.
    """

    __slots__ = (
        "__weakref__",
        "_closing",
        "_fd",
        "_head",
        "_identity",
        "_map",
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
    _fd: int
    _identity: tuple[int, int]
    _map: mmap.mmap
    _closing: weakref.finalize[[int], BusFile]

    def __init__(self, path: Path, fd: int, head: _Head) -> None:
        self.path = path
        self.num_cores = head.num_cores
        self.capacity = head.capacity
        self.arena_bytes = head.arena_bytes
        self.thresholds = head.thresholds()
        self._head = head
        self._fd = fd
        # The page tables, too, are better filled now than at the first event of each page.
        self._map = mmap.mmap(fd, head.file_bytes, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        status = os.fstat(fd)
        self._identity = status.st_dev, status.st_ino
        self._closing = weakref.finalize(self, os.close, fd)

    @classmethod
    @contextlib.contextmanager
    def create(
        cls, name: str, directory: Path, *, num_cores: int, capacity: int, arena_bytes: int, config: BackpressureConfig
    ) -> Generator[BusFile, None, None]:
        """A file under a temporary name, its room allocated and zeroed, for whoever lays out the rings in the block.

        At the end of the block it is linked to its own name; after an exception nothing is left of it.

        Raises
        ------
        OSError
            ENOSPC: the file system has no room for it.
        FileExistsError
            There is a bus of that name.
        CapacityError
            More cores than a file could hold.
        """
        if num_cores > _MOST_CORES:
            raise CapacityError(f"num_cores {num_cores}: must be at most {_MOST_CORES}")
        path = _path(name, directory)
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
            bus_id=secrets.randbits(64),
        )
        temporary = directory / f".{path.name}.{head.bus_id:016x}"
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                # Whatever the umask takes away.
                os.fchmod(fd, 0o600)
                _allocate(fd, size, path)
                os.pwrite(fd, _HEAD.pack(*dataclasses.astuple(head)), 0)
                file = cls(path, fd, head)
            except BaseException:
                os.close(fd)
                raise
            try:
                yield file
                os.link(temporary, path)
            except FileExistsError:
                file.close()
                raise FileExistsError(
                    errno.EEXIST, "there is a bus of this name: open it, or unlink it first", str(path)
                ) from None
            except BaseException:
                file.close()
                raise
        finally:
            temporary.unlink()

    @classmethod
    def open(cls, name: str, directory: Path) -> BusFile:
        """Maps a bus, once its file and its head were checked.

        Raises
        ------
        FileNotFoundError
            There is none of that name.
        PermissionError
            It is another user's.
        LayoutError
            It is no bus, or one of another version, layout or size.
        """
        path = _path(name, directory)
        fd = _open_own_file(path)
        try:
            return cls(path, fd, _checked_head(path, fd))
        except BaseException:
            os.close(fd)
            raise

    def block(self, core_id: int) -> memoryview:
        """The bytes of one core's ring."""
        start = self._head.blocks_at + core_id * self._head.block_bytes
        return memoryview(self._map)[start : start + self._head.block_bytes]

    def own_block(self, core_id: int) -> memoryview:
        """The same in a mapping of its own: over what leases show a forked child maps private memory."""
        start = self._head.blocks_at + core_id * self._head.block_bytes
        # A block of few slots begins within a page.
        before = start % mmap.ALLOCATIONGRANULARITY
        size = before + self._head.block_bytes
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        return memoryview(mmap.mmap(self._fd, size, flags=flags, offset=start - before))[before:]

    def wake_path(self, core_id: int) -> bytes:
        """The FIFO that signals a core's asynchronous waiter. It is there once somebody waits so."""
        return os.fsencode(_wake_path(self.path.parent, self._head.bus_id, core_id))

    def fileno(self) -> int:
        """The descriptor to claim ends and to ask for claims through."""
        return self._fd

    def is_linked(self) -> bool:
        """Whether the name leads to this file, and not to none or to another one. After ``close``, too."""
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) == self._identity

    def unlink(self) -> None:
        """Removes the name, if it is this file's still, and the FIFOs. After ``close``, too."""
        with contextlib.suppress(FileNotFoundError):
            if self.is_linked():
                self.path.unlink()
        _remove_fifos(self.path.parent, self._head)

    def close(self) -> None:
        """Closes the descriptor; may be repeated. The mapping goes with the last ring that lies in it."""
        self._closing()


def names(directory: Path) -> list[str]:
    """The names of this user's buses in a directory, sorted. Files that are no bus are left out."""
    found: list[str] = []
    for path in directory.iterdir():
        name = path.name.removeprefix(_PREFIX)
        if name != path.name and _NAME.fullmatch(name):
            # Another user's, no bus, or gone since: not one that could be opened.
            with contextlib.suppress(OSError, LayoutError):
                fd = _open_own_file(path)
                try:
                    _checked_head(path, fd)
                    found.append(name)
                finally:
                    os.close(fd)
    return sorted(found)


def remove(name: str, directory: Path) -> None:
    """Removes a bus by name, unopened: also one whose contents are of another version, or corrupt.

    Raises
    ------
    FileNotFoundError, PermissionError, LayoutError
        There is none; it is another user's; there is something under its name that is no file.
    """
    path = _path(name, directory)
    fd = _open_own_file(path)
    try:
        with contextlib.suppress(LayoutError):
            _remove_fifos(directory, _checked_head(path, fd))
    finally:
        os.close(fd)
    path.unlink()


def make_fifo(path: str, file_fd: int) -> None:
    """The FIFO at a bus's ``wake_path``, unless it is there.

    Raises
    ------
    FileNotFoundError
        The bus was unlinked: nobody would ever remove the FIFO.
    """
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    # After, so that an unlink meanwhile has either seen the FIFO or is seen here.
    if os.fstat(file_fd).st_nlink == 0:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        raise FileNotFoundError(
            errno.ENOENT, "the bus was unlinked: ask for a descriptor, or wait asynchronously, before that", path
        )


def _allocate(fd: int, size: int, path: Path) -> None:
    """Takes all the room of a file now: memory that is touched when there is none left is a SIGBUS."""
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        wrong = error.errno or errno.ENOSPC
        raise OSError(
            wrong,
            f"{os.strerror(wrong)}: a bus of {size} bytes; ask for fewer cores or events, or pass another directory",
            str(path),
        ) from None


def _path(name: str, directory: Path) -> Path:
    if not isinstance(name, str):
        raise TypeError(f"name {name!r}: must be a str, not {type(name).__name__}")
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"name {name!r}: must be letters, digits, '_', '-' and '.', at most 128, no '.' or '-' in front"
        )
    return directory / f"{_PREFIX}{name}"


def _wake_path(directory: Path, bus_id: int, core_id: int) -> Path:
    return directory / f".{_PREFIX}wake.{bus_id:016x}.{core_id}"


def _remove_fifos(directory: Path, head: _Head) -> None:
    for path in directory.glob(f".{_PREFIX}wake.{head.bus_id:016x}.*"):
        path.unlink(missing_ok=True)


def _open_own_file(path: Path) -> int:
    """Opens a file that may be a bus: a regular one, of this user's, by no link."""
    try:
        # Without waiting for the other end of what may be a FIFO.
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise FileNotFoundError(
            errno.ENOENT, "no bus of this name: EventBus.list() tells which there are", str(path)
        ) from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise LayoutError(f"{path}: is no regular file, and so no bus") from None
        raise
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise LayoutError(f"{path}: is no regular file, and so no bus")
    if status.st_uid != os.geteuid():
        os.close(fd)
        raise PermissionError(
            errno.EPERM, f"belongs to user {status.st_uid}, and this process runs as {os.geteuid()}", str(path)
        )
    return fd


def _checked_head(path: Path, fd: int) -> _Head:
    size = os.fstat(fd).st_size
    if size < _PAGE:
        raise LayoutError(f"{path}: {size} bytes: is truncated, or no bus, which has a head of {_PAGE}")
    head = _Head(**dict(zip(_Head.__slots__, _HEAD.unpack(os.pread(fd, _HEAD.size, 0)), strict=True)))
    if head.magic != _MAGIC:
        raise LayoutError(f"{path}: magic {head.magic:#x}: is no bus, which has {_MAGIC:#x}")
    if head.version != _VERSION:
        raise LayoutError(
            f"{path}: version {head.version}: this build reads version {_VERSION}; use one version in all processes"
        )
    if head.row_bytes != _ROW_BYTES:
        raise LayoutError(f"{path}: rows of {head.row_bytes} bytes: this build has {_ROW_BYTES}")
    if head.capacity < 1 or head.capacity > 2**32 or head.capacity & (head.capacity - 1):
        raise LayoutError(f"{path}: capacity {head.capacity}: is no power of two up to {2**32}")
    if not 1 <= head.arena_bytes < 2**32:
        raise LayoutError(f"{path}: arena_bytes {head.arena_bytes}: is not in 1 .. {2**32 - 1}")
    if not 1 <= head.num_cores <= _MOST_CORES:
        raise LayoutError(f"{path}: num_cores {head.num_cores}: is not in 1 .. {_MOST_CORES}")
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
