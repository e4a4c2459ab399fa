"""What a creation of a bus leaves behind when its process is killed or interrupted, and who removes it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import gc
import mmap
import os
import signal
import stat
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from nodedb_ring import EventBus
from nodedb_ring.bus import directory as bus_directory
from nodedb_ring.bus import file as bus_file
from nodedb_ring.bus.directory import UnfinishedFile, remove_unfinished, unfinished
from tests.unit.builders import fill, sequences
from tests.unit.runners import in_child, in_thread

from .created import AS_ROOT, NOBODY, create, refusal

# ---- killed while it makes one


def killed(call: Callable[[], object], at: Callable[[pytest.MonkeyPatch, Callable[..., Any]], None]) -> None:
    """Runs a call in a child that kills itself where `at` puts that."""

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            at(pytest.MonkeyPatch(), die)
            call()
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


DEATHS: dict[str, Callable[[pytest.MonkeyPatch, Callable[..., Any]], None]] = {
    "with the file just made": lambda patch, die: patch.setattr(os, "fchmod", die),
    "before its memory is there": lambda patch, die: patch.setattr(os, "posix_fallocate", die),
    "with its memory": lambda patch, die: patch.setattr(mmap, "mmap", die),
    "in the midst of the rings": lambda patch, die: patch.setattr(bus_file.BusFile, "block", die),
    "before the name": lambda patch, die: patch.setattr(os, "link", die),
}


@pytest.mark.parametrize("death", DEATHS)
def test_a_maker_that_is_killed_leaves_nothing(death: str, directory: Path) -> None:
    killed(lambda: create(directory), DEATHS[death])
    assert os.listdir(directory) == []
    with create(directory) as bus:
        fill(bus.producer(0), 1, 3)
        assert sequences(bus.consumer(0).drain()) == [1, 2, 3]


@pytest.mark.parametrize("death", DEATHS)
def test_without_tmpfile_what_it_leaves_is_found_and_removed(
    death: str, directory: Path, without_tmpfile: None
) -> None:
    killed(lambda: create(directory), DEATHS[death])
    [left] = unfinished(directory)
    assert left.name == "bus"
    assert os.listdir(directory) == [left.path.name]
    assert left.size == os.stat(left.path).st_blocks * 512
    assert EventBus.list(directory=directory) == []
    assert remove_unfinished(directory) == [left]
    assert os.listdir(directory) == []
    assert (unfinished(directory), remove_unfinished(directory)) == ([], [])


def test_without_tmpfile_a_bus_is_the_same(directory: Path, without_tmpfile: None) -> None:
    with create(directory) as bus:
        assert os.listdir(directory) == ["nodedb_ring.bus"]
        status = bus.path.stat()
        assert (status.st_nlink, stat.S_IMODE(status.st_mode)) == (1, 0o600)
        assert status.st_blocks * 512 >= status.st_size
        with pytest.raises(FileExistsError):
            create(directory)
        fill(bus.producer(0), 1, 3)
        assert sequences(EventBus.open("bus", directory=directory).consumer(0).drain()) == [1, 2, 3]


@pytest.mark.parametrize("wrong", [errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL])
def test_each_error_of_a_kernel_without_tmpfile(wrong: int, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, flags: int) -> int:
        raise OSError(wrong, os.strerror(wrong), path)

    monkeypatch.setattr(bus_directory, "_open_without_name", refuse)
    create(directory).close()
    assert os.listdir(directory) == ["nodedb_ring.bus"]


# ---- what older versions left


def leave(directory: Path, name: str = "old") -> Path:
    """What a maker of version 0.2 left that was killed."""
    path = directory / f".nodedb_ring.{name}.0123456789abcdef"
    path.write_bytes(bytes(8192))
    return path


def test_an_open_file_is_not_touched(directory: Path) -> None:
    path = leave(directory)
    with path.open("rb+"):
        assert (unfinished(directory), remove_unfinished(directory)) == ([], [])
    assert [found.path for found in unfinished(directory)] == [path]


def test_a_file_that_another_process_is_creating_is_not_touched(directory: Path, without_tmpfile: None) -> None:
    def observe() -> list[UnfinishedFile]:
        return in_child(lambda: [*unfinished(directory), *remove_unfinished(directory)])

    from nodedb_ring import BackpressureConfig

    with bus_file.BusFile.create(
        "new", directory, num_cores=1, capacity=16, arena_bytes=4096, config=BackpressureConfig()
    ):
        assert observe() == []
        assert len(os.listdir(directory)) == 1
    assert os.listdir(directory) == ["nodedb_ring.new"]


def test_a_file_that_is_only_mapped_is_not_touched(directory: Path) -> None:
    path = leave(directory)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    with path.open("rb+") as file:
        at = libc.mmap(None, 8192, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, file.fileno(), 0)
    assert (unfinished(directory), remove_unfinished(directory)) == ([], [])
    assert libc.munmap(ctypes.c_void_p(at), 8192) == 0
    assert len(remove_unfinished(directory)) == 1


def test_where_nobody_can_say_whether_it_is_open_it_is_not_touched(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(directory)
    real = fcntl.fcntl

    def refuse(fd: int, command: int, argument: Any = 0) -> Any:
        if command == fcntl.F_SETLEASE:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(fd, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    assert (unfinished(directory), remove_unfinished(directory)) == ([], [])
    assert len(os.listdir(directory)) == 1


def test_nothing_else_is_taken_for_one(directory: Path) -> None:
    os.mkfifo(directory / ".nodedb_ring.wake.0123456789abcdef")
    (directory / ".nodedb_ring.d.0123456789abcdef").mkdir()
    (directory / ".nodedb_ring.link.0123456789abcdef").symlink_to("/etc/hostname")
    for name in (".nodedb_ring.short.0123", "nodedb_ring.bus", ".nodedb_ring.x.0123456789abcdefg", ".other"):
        (directory / name).write_bytes(b"x")
    before = sorted(os.listdir(directory))
    assert (unfinished(directory), remove_unfinished(directory)) == ([], [])
    assert sorted(os.listdir(directory)) == before


@AS_ROOT
def test_another_users_is_not_touched(directory: Path) -> None:
    os.chown(leave(directory), NOBODY, -1)
    assert (unfinished(directory), remove_unfinished(directory)) == ([], [])


def test_a_bus_named_wake_leaves_what_is_found(directory: Path) -> None:
    path = leave(directory, "wake")
    assert [(found.name, found.path) for found in remove_unfinished(directory)] == [("wake", path)]


def test_who_opens_it_meanwhile_does_not_end_the_process(directory: Path) -> None:
    path = leave(directory)

    def observe() -> int:
        found = 0
        for _ in bus_directory._abandoned(directory):  # pyright: ignore[reportPrivateUsage]
            found += 1
            # The kernel notifies the holder of the lease by a signal.
            with pytest.raises(BlockingIOError):
                os.open(path, os.O_RDWR | os.O_NONBLOCK)
        return found

    assert in_child(observe) == 1


# ---- interrupted


OURS = {bus_file.__file__, bus_directory.__file__}


class AtLine:
    """Interrupts a call before the line of that number that it comes to in the two modules."""

    def __init__(self, number: int) -> None:
        self._left = number
        self.came = False

    def __call__(self, frame: FrameType, what: str, _: object) -> Any:
        if frame.f_code.co_filename not in OURS:
            return None
        if what == "line":
            self._left -= 1
            if self._left < 0 and not self.came:
                self.came = True
                raise KeyboardInterrupt
        return self


def interrupted(call: Callable[[], object], number: int) -> bool:
    """Whether the call was interrupted. Each descriptor is closed once, although its number may be reused by then."""
    at_line = AtLine(number)
    kept: list[BaseException] = []

    def run() -> None:
        sys.settrace(at_line)
        try:
            call()
        except KeyboardInterrupt as error:
            # With the frames, whose variables go only when all of the numbers are somebody else's.
            kept.append(error)

    # In a thread of its own: one that is raised while a with block handles another leaves the interpreter with that.
    in_thread(run)
    others = [os.open("/dev/null", os.O_RDONLY) for _ in range(6)]
    kept.clear()
    gc.collect()
    for other in others:
        assert stat.S_ISCHR(os.fstat(other).st_mode)
        os.close(other)
    return at_line.came


CALLS: dict[str, Callable[[Path], object]] = {
    "create": lambda directory: create(directory, "new").close(),
    "open": lambda directory: EventBus.open("bus", directory=directory).close(),
    "list": lambda directory: EventBus.list(directory=directory),
    "refused": lambda directory: refusal(lambda: EventBus.open("none", directory=directory)),
    "taken": lambda directory: refusal(lambda: create(directory)),
    "unfinished": unfinished,
}


@pytest.mark.parametrize("has_tmpfile", [True, False])
@pytest.mark.parametrize("what", CALLS)
def test_an_interrupt_at_any_line_closes_each_descriptor_once(
    what: str, has_tmpfile: bool, directory: Path, request: pytest.FixtureRequest
) -> None:
    if not has_tmpfile:
        request.getfixturevalue("without_tmpfile")
    with create(directory) as bus:
        leave(directory)
        (directory / "nodedb_ring.none").write_bytes(bytes(100))
        there = sorted(os.listdir(directory))
        gc.collect()
        # What is there now need not be gone through each time.
        gc.freeze()
        before = len(os.listdir("/proc/self/fd"))
        number = 0
        with warnings.catch_warnings():
            # Of files that are left to the collector: an interrupt can come before their owner is assigned.
            warnings.simplefilter("ignore", ResourceWarning)
            while interrupted(lambda: CALLS[what](directory), number):
                # It may have come just after the name, or just before the hidden one is removed.
                with contextlib.suppress(FileNotFoundError):
                    EventBus.open("new", directory=directory).unlink()
                if not has_tmpfile:
                    for path in directory.glob(".nodedb_ring.new.*"):
                        path.unlink()
                gc.collect()
                assert len(os.listdir("/proc/self/fd")) == before, number
                assert sorted(os.listdir(directory)) == there, number
                number += 1
        gc.unfreeze()
        assert number > 10
        fill(bus.producer(0), 1, 1)
