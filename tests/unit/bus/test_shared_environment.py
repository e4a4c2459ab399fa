"""What a bus needs of directory, file system and process: each lack is named, and nothing is left behind."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import select
import uuid
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path

import pytest

from nodedb_ring import EventBus, LayoutError, create_event_bus
from nodedb_ring.bus import directory as bus_directory
from nodedb_ring.bus.directory import unfinished
from nodedb_ring.bus.file import remove
from tests.unit.builders import event, fill, sequences
from tests.unit.runners import in_child
from tests.unit.sandbox import Refusal, mounting, refusing
from tests.unit.shared_buses import SECONDS, SHM, BusMaker

from .created import AS_ROOT, NOBODY, create, refusal

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
