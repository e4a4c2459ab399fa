"""A file that is not a whole bus of this version, layout, size and user is refused with an error that says which."""

from __future__ import annotations

import gc
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from nodedb_ring import EventBus, LayoutError, RingError
from tests.unit.builders import events, fill
from tests.unit.shared_buses import BusMaker, another_users

PAGE = 4096


@pytest.fixture
def bus(make_bus: BusMaker, tmp_path: Path) -> EventBus:
    return make_bus(2, name="bus", directory=tmp_path)


def opened(path: Path) -> EventBus:
    return EventBus.open(path.name.removeprefix("nodedb_ring."), directory=path.parent)


def refused(path: Path, match: str) -> str:
    """What opening a file says, which is that it is not a bus, and why."""
    with pytest.raises(LayoutError, match=match) as raised:
        opened(path)
    assert path.name in str(raised.value)
    return str(raised.value)


def copied(bus: EventBus, name: str) -> Path:
    path = bus.directory / f"nodedb_ring.{name}"
    path.write_bytes(bus.path.read_bytes())
    path.chmod(0o600)
    return path


def test_a_copy_of_a_bus_is_a_bus(bus: EventBus) -> None:
    # What the refusals below differ from.
    fill(bus.producer(0), 1, 3)
    copy = opened(copied(bus, "copy"))
    assert [one.producer.emitted for one in copy.stats()] == [3, 0]
    assert list(copy.consumer(0).drain()) == events(1, 3)
    assert [one.producer.slots_in_use for one in bus.stats()] == [3, 0]


def test_a_layout_error_is_a_ring_error_and_a_value_error() -> None:
    assert issubclass(LayoutError, RingError)
    assert issubclass(LayoutError, ValueError)


def test_another_user_s_file_is_a_permission_error(bus: EventBus) -> None:
    with another_users(bus.path):
        with pytest.raises(PermissionError, match="bus") as raised:
            opened(bus.path)
        assert any(str(uid) in str(raised.value) for uid in (65534, bus.path.stat().st_uid))
    assert opened(bus.path).num_cores == 2


def test_a_symbolic_link_is_not_followed(bus: EventBus) -> None:
    link = bus.directory / "nodedb_ring.link"
    link.symlink_to(bus.path)
    refused(link, "link")


def test_a_dangling_link_does_not_create_a_file_elsewhere(bus: EventBus, tmp_path: Path) -> None:
    (tmp_path / "nodedb_ring.link").symlink_to(tmp_path / "target")
    with pytest.raises(FileExistsError):
        EventBus.create("link", 1, 16, directory=tmp_path)
    assert not (tmp_path / "target").exists()


def test_a_directory(tmp_path: Path) -> None:
    path = tmp_path / "nodedb_ring.d"
    path.mkdir()
    refused(path, "director|regular")
    assert path.is_dir()


def test_a_fifo_is_refused_without_waiting_for_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "nodedb_ring.f"
    os.mkfifo(path, 0o600)
    refused(path, "regular")


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "nodedb_ring.e"
    path.touch(0o600)
    refused(path, r"\b0 bytes")


@pytest.mark.parametrize("length", [1, 7, 8, 64, 128, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE])
def test_a_truncated_file(length: int, bus: EventBus) -> None:
    path = copied(bus, "short")
    os.truncate(path, length)
    refused(path, rf"\b{length} bytes")


@pytest.mark.parametrize("off", [-PAGE, -1, 1, PAGE])
def test_a_file_that_is_not_as_long_as_it_says(off: int, bus: EventBus) -> None:
    path = copied(bus, "off")
    length = path.stat().st_size
    os.truncate(path, length + off)
    text = refused(path, rf"\b{length + off} bytes")
    assert str(length) in text


@pytest.mark.parametrize("fill_with", [b"\0", b"\xff", b"#!/bin/sh\n"])
def test_a_file_of_something_else(fill_with: bytes, bus: EventBus) -> None:
    path = copied(bus, "else")
    length = path.stat().st_size
    path.write_bytes((fill_with * (length // len(fill_with) + 1))[:length])
    refused(path, "magic|no bus|not a bus")


def test_a_refusal_leaves_nothing_open(bus: EventBus) -> None:
    path = copied(bus, "leak")
    os.truncate(path, PAGE)
    gc.collect()  # what earlier tests left must not go meanwhile
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        refused(path, "bytes")
    assert len(os.listdir("/proc/self/fd")) == before


# Where the head of a file, and that of each core's block, says what it is: offset and struct format.
HEAD = {
    "magic": (0, "<Q"),
    "version": (8, "<I"),
    "num_cores": (12, "<I"),
    "capacity": (16, "<Q"),
    "arena_bytes": (24, "<Q"),
    "block_bytes": (32, "<Q"),
    "blocks_at": (40, "<Q"),
    "file_bytes": (48, "<Q"),
    "throttle_enter": (56, "<I"),
    "throttle_exit": (60, "<I"),
    "suspend_enter": (64, "<I"),
    "suspend_exit": (68, "<I"),
    "row_bytes": (72, "<I"),
}
BLOCK = {
    "magic": (0, "<Q"),
    "version": (8, "<I"),
    "core_id": (12, "<I"),
    "capacity": (16, "<Q"),
    "arena_bytes": (24, "<Q"),
    "index_at": (32, "<Q"),
    "rows_at": (40, "<Q"),
    "arena_at": (48, "<Q"),
    "block_bytes": (56, "<Q"),
    "throttle_enter": (64, "<I"),
    "throttle_exit": (68, "<I"),
    "suspend_enter": (72, "<I"),
    "suspend_exit": (76, "<I"),
}
CHANGES: list[Callable[[int], int]] = [
    lambda value: 0,
    lambda value: 1,
    lambda value: value + 1,
    lambda value: value - 1,
    lambda value: value * 2,
    lambda value: value + PAGE,
    lambda value: value ^ 2**31,
    lambda value: value + 2**32,
    lambda value: 2**64 - 1,
]
# What else may be named: a capacity that is one, but not the one that the block's size is of.
ALSO = {
    "num_cores": "file_bytes",
    "capacity": "block_bytes",
    "arena_bytes": "block_bytes",
    "row_bytes": "rows of",
    "throttle_enter": "thresholds",
    "throttle_exit": "thresholds",
    "suspend_enter": "thresholds",
    "suspend_exit": "thresholds",
}


def change(path: Path, at: int, form: str, by: Callable[[int], int]) -> int | None:
    """Overwrites one field; returns what it holds then, or None if that is what it held before."""
    with path.open("r+b") as file:
        file.seek(at)
        [before] = struct.unpack(form, file.read(struct.calcsize(form)))
        after = by(before) % 256 ** struct.calcsize(form)
        file.seek(at)
        file.write(struct.pack(form, after))
    return None if after == before else int(after)


def block_at(bus: EventBus, core_id: int) -> int:
    return PAGE + core_id * ((bus.path.stat().st_size - PAGE) // bus.num_cores)


@pytest.mark.parametrize("field", HEAD)
def test_a_head_that_says_something_else(field: str, bus: EventBus) -> None:
    at, form = HEAD[field]
    changed = 0
    for number, by in enumerate(CHANGES):
        path = copied(bus, f"head{number}")
        value = change(path, at, form, by)
        if value is not None:
            changed += 1
            refused(path, rf"\b({field}|{ALSO.get(field, field)})")
    assert changed > 4
    assert opened(bus.path).num_cores == 2


@pytest.mark.parametrize("core_id", [0, 1])
@pytest.mark.parametrize("field", BLOCK)
def test_a_block_that_says_something_else(field: str, core_id: int, bus: EventBus) -> None:
    at, form = BLOCK[field]
    changed = 0
    for number, by in enumerate(CHANGES):
        path = copied(bus, f"block{number}")
        value = change(path, block_at(bus, core_id) + at, form, by)
        if value is not None:
            changed += 1
            text = refused(path, rf"core {core_id}.*\b{field}")
            assert str(value) in text or hex(value) in text
    assert changed > 4
    assert opened(bus.path).num_cores == 2


def test_the_tables_above_are_of_this_layout(bus: EventBus) -> None:
    data = bus.path.read_bytes()
    sizes = {"num_cores": 2, "capacity": 16, "arena_bytes": bus.arena_bytes, "file_bytes": len(data), "core_id": 1}
    for table, start in ((HEAD, 0), (BLOCK, block_at(bus, 1))):
        for field, (at, form) in table.items():
            if field in sizes:
                assert struct.unpack_from(form, data, start + at) == (sizes[field],), field


def test_a_version_of_another_build_says_so(bus: EventBus) -> None:
    path = copied(bus, "newer")
    change(path, *HEAD["version"], lambda version: version + 1)
    text = refused(path, "version 3")
    assert "version 2" in text
    assert "newer" not in EventBus.list(directory=bus.directory)


def test_a_refused_file_is_left_unchanged(bus: EventBus) -> None:
    path = copied(bus, "wrong")
    change(path, *HEAD["capacity"], lambda capacity: 3)
    before = path.read_bytes()
    refused(path, "capacity 3")
    assert path.read_bytes() == before
    with pytest.raises(FileExistsError):
        EventBus.create("wrong", 1, 16, directory=bus.directory)
    assert path.read_bytes() == before


def test_a_file_that_shrinks_later_is_seen_at_the_next_open(bus: EventBus) -> None:
    path = copied(bus, "shrinks")
    assert opened(path).num_cores == 2
    os.truncate(path, path.stat().st_size - 1)
    refused(path, "truncated|bytes")
