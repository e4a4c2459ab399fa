"""What a bus needs of directory, file system and process: each lack is named, and nothing is left behind."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import gc
import mmap
import os
import select
import shutil
import signal
import stat
import sys
import uuid
import warnings
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from nodedb_ring import EventBus, LayoutError, create_event_bus
from nodedb_ring.bus import directory as bus_directory
from nodedb_ring.bus import file as bus_file
from nodedb_ring.bus.directory import UnfinishedFile, remove_unfinished, unfinished
from nodedb_ring.bus.file import remove
from tests.unit.builders import event, fill, sequences
from tests.unit.runners import in_child, in_thread
from tests.unit.sandbox import Refusal, mounting, refusing
from tests.unit.shared_buses import SECONDS, SHM, BusMaker, new_name

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
NOBODY = 65534


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that every user may come to and write to, in memory."""
    made = SHM / f"{new_name()}.d"
    made.mkdir()
    made.chmod(0o777)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def without_tmpfile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that makes no files without a name."""

    def refuse(path: str, flags: int) -> int:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), path)

    monkeypatch.setattr(bus_directory, "_open_without_name", refuse)


def refusal(call: Callable[[], object]) -> tuple[str, int | None, str]:
    """What a call raises: its type, its errno and its text."""
    try:
        call()
    except Exception as error:
        return type(error).__name__, getattr(error, "errno", None), str(error)
    return "nothing", None, ""


def create(directory: Path, name: str = "bus") -> EventBus:
    return EventBus.create(name, 1, 16, directory=directory)


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


# ---- the directory


def test_a_path_that_is_not_a_directory(tmp_path: Path) -> None:
    missing, file = tmp_path / "missing", tmp_path / "file"
    file.write_text("")
    calls: list[Callable[[Path], object]] = [
        create,
        lambda path: EventBus.open("bus", directory=path),
        lambda path: EventBus.list(directory=path),
        lambda path: remove("bus", path),
        unfinished,
    ]
    for call in calls:
        assert refusal(partial(call, missing))[:2] == ("FileNotFoundError", errno.ENOENT)
        with pytest.raises(FileNotFoundError, match=r"no such directory .*: make it, or pass another: '.*/missing'"):
            call(missing)
        with pytest.raises(NotADirectoryError, match=r"is not a directory .*: make it, or pass another: '.*/file'"):
            call(file)


def test_no_dev_shm() -> None:
    calls: list[Callable[[], object]] = [
        lambda: EventBus.create("bus", 1, 16),
        lambda: EventBus.open("bus"),
        EventBus.list,
        lambda: remove("bus", SHM),
    ]
    for call in calls:
        kind, code, text = mounting("tmpfs", "/dev")(partial(refusal, call))
        assert (kind, code) == ("FileNotFoundError", errno.ENOENT)
        assert "mount a tmpfs there" in text
        assert "directory=" in text
        assert "'/dev/shm'" in text


def test_a_directory_of_any_length_that_the_system_takes(tmp_path: Path) -> None:
    """A bus's longest path, that of a FIFO, is kept nowhere that it might not fit."""
    deep = tmp_path
    while len(os.fsencode(deep)) < 3500:
        deep /= "d" * 250
    deep.mkdir(parents=True)
    with create(deep) as bus:
        producer, consumer = bus.producer(0), bus.consumer(0)
        assert [each for each in os.listdir(deep) if ".wake." in each]
        consumer.fileno()
        fill(producer, 1, 1)
        assert select.select([consumer], [], [], SECONDS)[0]
        assert sequences(consumer.drain()) == [1]


def test_a_directory_that_is_read_only(tmp_path: Path) -> None:
    run = mounting("tmpfs", str(tmp_path), "size=1m")

    def refused() -> tuple[str, int | None, str]:
        ctypes.CDLL(None).mount(b"none", os.fsencode(tmp_path), None, 32 | 1, None)  # MS_REMOUNT | MS_RDONLY
        return refusal(lambda: create(tmp_path))

    kind, code, text = run(refused)
    assert (kind, code) == ("OSError", errno.EROFS)
    assert f"user {os.geteuid()} can make no bus here: pass another directory" in text


@AS_ROOT
def test_a_directory_of_another_user(directory: Path) -> None:
    directory.chmod(0o755)

    def refused() -> tuple[str, int | None, str]:
        os.setuid(NOBODY)
        return refusal(lambda: create(directory))

    kind, code, text = in_child(refused)
    assert (kind, code) == ("PermissionError", errno.EACCES)
    assert f"user {NOBODY} can make no bus here: pass another directory" in text


# ---- the file system


def test_no_hard_links(directory: Path) -> None:
    run = refusing(Refusal("linkat"), Refusal("link"))
    kind, code, text = run(lambda: refusal(lambda: create(directory)))
    assert (kind, code) == ("PermissionError", errno.EPERM)
    assert "makes no hard links, by which a bus gets its name" in text
    assert "allow linkat()" in text
    assert os.listdir(directory) == []


@pytest.mark.parametrize("wrong", [errno.EPERM, errno.EOPNOTSUPP])
def test_no_fifos(directory: Path, wrong: int) -> None:
    run = refusing(Refusal("mknod", wrong), Refusal("mknodat", wrong))
    _, code, text = run(lambda: refusal(lambda: create(directory)))
    assert code == wrong
    assert "makes no FIFOs, by which event loops are woken: pass another directory" in text
    assert "allow mknod()" in text
    assert os.listdir(directory) == []


def test_no_hard_links_and_no_tmpfile(directory: Path, without_tmpfile: None) -> None:
    run = refusing(Refusal("linkat", errno.EOPNOTSUPP), Refusal("link", errno.EOPNOTSUPP))
    assert "makes no hard links" in run(lambda: refusal(lambda: create(directory)))[2]
    assert os.listdir(directory) == []


def test_hugetlbfs(tmp_path: Path) -> None:
    def refused() -> tuple[tuple[str, int | None, str], list[str]]:
        return refusal(lambda: create(tmp_path)), os.listdir(tmp_path)

    (kind, code, text), left = mounting("hugetlbfs", str(tmp_path))(refused)
    assert (kind, code) == ("OSError", errno.EINVAL)
    assert "takes no writes, hugetlbfs say: pass another directory" in text
    assert left == []


def test_no_locks(directory: Path) -> None:
    run = refusing(Refusal("fcntl", errno.EINVAL, (1, fcntl.F_OFD_SETLK)))
    kind, code, text = run(lambda: refusal(lambda: create(directory)))
    assert (kind, code) == ("OSError", errno.EINVAL)
    assert "has no open file description locks" in text
    assert os.listdir(directory) == []


def test_no_shared_maps(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with create(directory, "there"):
        pass

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(mmap, "mmap", refuse)
    calls: list[Callable[[], object]] = [
        lambda: create(directory),
        lambda: EventBus.open("there", directory=directory),
    ]
    for call in calls:
        with pytest.raises(OSError, match="maps no files into several processes: pass another directory") as caught:
            call()
        assert caught.value.errno == errno.ENODEV
    assert os.listdir(directory) == ["nodedb_ring.there"]


# ---- the process


def test_no_proc(directory: Path) -> None:
    run = mounting("tmpfs", "/proc")
    with create(directory) as bus:
        calls: list[Callable[[], object]] = [
            lambda: create(directory, "new"),
            lambda: bus.producer(0),
            lambda: bus.consumer(0),
        ]
        for call in calls:
            kind, code, text = run(partial(refusal, call))
            assert (kind, code) == ("FileNotFoundError", errno.ENOENT)
            assert "mount /proc" in text
            assert "'/proc/self/fd'" in text
        assert os.listdir(directory) == ["nodedb_ring.bus"]
        # Nothing is claimed, and a process that only reads needs no /proc.
        assert bus.stats()[0].producer_claims == 0
        assert run(lambda: len(EventBus.open("bus", directory=directory).stats())) == 1


@pytest.mark.parametrize("wrong", [errno.EINVAL, errno.EPERM, errno.ENOSYS])
def test_no_wipe_on_fork(wrong: int, directory: Path) -> None:
    run = refusing(Refusal("madvise", wrong, (2, 18)))  # MADV_WIPEONFORK
    calls: list[Callable[[], object]] = [lambda: create_event_bus(1, 16), lambda: create(directory)]
    for call in calls:
        _, code, text = run(partial(refusal, call))
        assert code == wrong
        assert "madvise(MADV_WIPEONFORK)" in text
        assert "Linux 4.14" in text
        assert "no memory" not in text
    assert os.listdir(directory) == []


@AS_ROOT
def test_another_users_bus_of_that_name(make_bus: BusMaker) -> None:
    bus = make_bus()

    def as_nobody() -> list[tuple[str, int | None, str]]:
        os.setuid(NOBODY)
        calls = (
            lambda: EventBus.create(bus.name, 1, 16),
            lambda: EventBus.open(bus.name),
            lambda: remove(bus.name, SHM),
        )
        return [refusal(call) for call in calls] + [("", None, str(EventBus.list()))]

    created, opened, removed, listed = in_child(as_nobody)
    assert created[:2] == ("FileExistsError", errno.EEXIST)
    assert f"it is user 0's, and this process runs as {NOBODY}: choose another name" in created[2]
    for each in (opened, removed):
        assert each[:2] == ("PermissionError", errno.EPERM)
        assert f"belongs to user 0, and this process runs as {NOBODY}" in each[2]
        assert str(bus.path) in each[2]
    assert bus.name not in listed[2]
    assert bus.is_linked


def test_a_name_that_is_taken_is_refused_before_any_memory_is(
    make_bus: BusMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = make_bus()
    asked: list[object] = []
    monkeypatch.setattr(os, "posix_fallocate", lambda *given: asked.append(given))
    with pytest.raises(FileExistsError, match="open it, or unlink it first"):
        EventBus.create(bus.name, 1)
    assert asked == []


@AS_ROOT
def test_a_claim_after_setuid(make_bus: BusMaker) -> None:
    bus = make_bus()

    def after_setuid() -> list[tuple[str, int | None, str]]:
        producer = bus.producer(0)
        os.setuid(NOBODY)
        # What was claimed before stays.
        assert producer.emit(event(1))
        assert bus.stats()[0].producer.emitted == 1
        return [refusal(lambda: bus.producer(0)), refusal(lambda: bus.consumer(0))]

    for each in in_child(after_setuid):
        assert each[:2] == ("PermissionError", errno.EPERM)
        assert f"belongs to user 0, and this process runs as {NOBODY} by now: claim ends before setuid" in each[2]
    assert sequences(bus.consumer(0).drain()) == [1]


# ---- the boot


@contextlib.contextmanager
def booted(tmp_path: Path, text: str | None) -> Generator[None, None, None]:
    """As after a start of the machine that has this id; None: where the kernel has none."""
    path = tmp_path / "boot_id"
    if text is not None:
        path.write_text(f"{text}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bus_directory, "_BOOT_ID", path)
        yield
    path.unlink(missing_ok=True)


def test_a_bus_on_a_disk_knows_the_boot_that_it_was_made_in(tmp_path: Path) -> None:
    this = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    other = str(uuid.uuid4())
    with create(tmp_path) as bus:
        assert bus.path.read_bytes()[88:104] == uuid.UUID(this).bytes
        with booted(tmp_path, other):
            with pytest.raises(LayoutError) as refused:
                EventBus.open("bus", directory=tmp_path)
            assert f"{bus.path}: was made in boot {this}, and this is boot {other}: " in str(refused.value)
            assert "unlink the bus, create it again, and replay from the log" in str(refused.value)
            # It is there, takes up the name, and can be removed.
            assert EventBus.list(directory=tmp_path) == ["bus"]
            with pytest.raises(FileExistsError, match="unlink it first"):
                create(tmp_path)
            remove("bus", tmp_path)
            create(tmp_path).close()
            EventBus.open("bus", directory=tmp_path).close()


@pytest.mark.parametrize("made_in_none", [True, False])
def test_where_the_kernel_does_not_say_a_bus_is_opened(made_in_none: bool, tmp_path: Path) -> None:
    with booted(tmp_path, None if made_in_none else str(uuid.uuid4())):
        create(tmp_path).close()
    with booted(tmp_path, None if not made_in_none else str(uuid.uuid4())):
        EventBus.open("bus", directory=tmp_path).close()
