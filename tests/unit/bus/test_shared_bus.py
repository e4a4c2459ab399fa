"""Buses in files: created, opened and closed."""

from __future__ import annotations

import errno
import gc
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nodedb_ring import (
    DEFAULT_EVENT_BUS_CAPACITY,
    BackpressureConfig,
    CapacityError,
    ClosedError,
    EventBus,
    PressureState,
)
from tests.unit.builders import event, events, fill, sequences
from tests.unit.shared_buses import SHM, BusMaker, Held, Peer, claim_producer, emit, new_name

from .created import named

# create


def test_what_a_new_bus_says_of_itself(make_bus: BusMaker) -> None:
    name = new_name()
    bus = make_bus(3, 100, name=name, arena_bytes=5000)
    assert (bus.name, bus.num_cores, bus.capacity, bus.arena_bytes) == (name, 3, 128, 5000)
    assert bus.directory == SHM
    assert bus.path == SHM / f"nodedb_ring.{name}"
    assert bus.path.is_file()


def test_capacity_and_arena_have_the_defaults_of_the_private_bus() -> None:
    name = new_name()
    with EventBus.create(name, 1) as bus:
        try:
            assert bus.capacity == DEFAULT_EVENT_BUS_CAPACITY
            assert bus.arena_bytes == 256 * DEFAULT_EVENT_BUS_CAPACITY
        finally:
            bus.unlink()


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_the_file_is_for_its_owner_only_with_any_umask(umask: int, make_bus: BusMaker) -> None:
    before = os.umask(umask)
    try:
        bus = make_bus()
    finally:
        os.umask(before)
    status = bus.path.stat()
    assert stat.S_ISREG(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_uid == os.geteuid()


def test_the_whole_file_has_its_memory_from_the_start(make_bus: BusMaker) -> None:
    # A page that is not allocated yet would be requested by a later write, which is a SIGBUS if memory is full.
    status = make_bus(2, 1024).path.stat()
    assert status.st_blocks * 512 >= status.st_size >= 2 * (1024 * (4 + 128) + 256 * 1024)


def test_an_existing_name_is_refused_and_its_bus_untouched(make_bus: BusMaker) -> None:
    bus = make_bus()
    producer = bus.producer(0)
    fill(producer, 1, 3)
    with pytest.raises(FileExistsError, match=bus.name):
        EventBus.create(bus.name, 2, 64)
    assert named() == {f"nodedb_ring.{bus.name}"}
    again = EventBus.open(bus.name)
    assert (again.num_cores, again.capacity) == (1, 16)
    fill(producer, 4, 4)
    assert list(again.consumer(0).drain()) == events(1, 4)


def try_to_create(held: Held, name: str, num_cores: int) -> str:
    try:
        EventBus.create(name, num_cores, 16)
    except FileExistsError:
        return "exists"
    return "made"


def test_one_of_several_simultaneous_creations_succeeds(make_bus: BusMaker) -> None:
    base = make_bus()
    with Peer(base) as one, Peer(base) as two, Peer(base) as three:
        peers = [one, two, three]
        for _ in range(20):
            name = new_name()
            try:
                for number, peer in enumerate(peers, 1):
                    peer.post(try_to_create, name, number)
                reported = [peer.answer() for peer in peers]
                assert sorted(reported) == ["exists", "exists", "made"]
                assert EventBus.open(name).num_cores == reported.index("made") + 1
            finally:
                EventBus.open(name).unlink()
    assert named() == {f"nodedb_ring.{base.name}"}


@pytest.mark.parametrize(
    "name", ["", "a/b", "../a", "/a", "a\0b", "n" * 129, "größe", ".a", "-a", "a b", "a\n", "\udcff"]
)
def test_a_name_that_is_not_plain_is_refused(name: str, tmp_path: Path) -> None:
    calls: list[Callable[[], object]] = [
        lambda: EventBus.create(name, 1, 16, directory=tmp_path),
        lambda: EventBus.open(name, directory=tmp_path),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="name"):
            call()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", [None, 3, b"bytes", Path("p")])
def test_a_name_is_a_str(name: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="name"):
        EventBus.create(name, 1, 16, directory=tmp_path)
    with pytest.raises(TypeError, match="name"):
        EventBus.open(name, directory=tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a", "a.b-c_d", "0", "N" * 128])
def test_names_that_serve(name: str, tmp_path: Path, make_bus: BusMaker) -> None:
    make_bus(name=name, directory=tmp_path)
    assert os.listdir(tmp_path) == [f"nodedb_ring.{name}"]
    assert EventBus.list(directory=tmp_path) == [name]
    assert EventBus.open(name, directory=tmp_path).name == name


BAD_SIZES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"num_cores": 0}, CapacityError, "num_cores 0"),
    ({"num_cores": -1}, CapacityError, "num_cores -1"),
    ({"num_cores": True}, TypeError, "num_cores True"),
    ({"num_cores": 1.0}, TypeError, "num_cores 1.0"),
    ({"capacity": 0}, CapacityError, "capacity 0"),
    ({"capacity": 2**32 + 1}, CapacityError, "capacity 4294967297"),
    ({"arena_bytes": 0}, CapacityError, "arena_bytes 0"),
    ({"arena_bytes": 2**32}, CapacityError, "arena_bytes 4294967296"),
]


@pytest.mark.parametrize(("wrong", "kind", "text"), BAD_SIZES)
def test_sizes_are_refused_as_for_the_private_bus(
    wrong: dict[str, Any], kind: type[Exception], text: str, tmp_path: Path
) -> None:
    sizes: dict[str, Any] = {"num_cores": 1, "capacity": 16, "directory": tmp_path} | wrong
    with pytest.raises(kind, match=text):
        EventBus.create("a", **sizes)
    assert os.listdir(tmp_path) == []


def test_no_room_is_an_enospc_at_creation_and_leaves_nothing() -> None:
    status = os.statvfs(SHM)
    name = new_name()
    # More than the whole file system has: nobody else's memory is taken meanwhile.
    cores = status.f_blocks * status.f_frsize // (DEFAULT_EVENT_BUS_CAPACITY * (4 + 128 + 256)) + 2
    with pytest.raises(OSError, match=name) as raised:
        EventBus.create(name, cores)
    assert raised.value.errno == errno.ENOSPC
    assert named() == set()
    assert os.statvfs(SHM).f_bfree >= status.f_bfree * 0.9
    with pytest.raises(FileNotFoundError):
        EventBus.open(name)


def test_more_than_a_file_can_hold_leaves_nothing() -> None:
    with pytest.raises(CapacityError, match=str(2**40)):
        EventBus.create(new_name(), 2**40)
    assert named() == set()


# open


def test_an_opened_bus_is_the_same_bus(make_bus: BusMaker) -> None:
    bus = make_bus(2, 32, arena_bytes=4096)
    other = EventBus.open(bus.name)
    assert (other.name, other.path, other.directory) == (bus.name, bus.path, bus.directory)
    assert (other.num_cores, other.capacity, other.arena_bytes) == (2, 32, 4096)
    producer, consumer = bus.producer(1), other.consumer(1)
    assert (producer.core_id, producer.capacity, consumer.core_id) == (1, 32, 1)
    fill(producer, 1, 5)
    assert list(consumer.drain()) == events(1, 5)
    assert [one.producer.emitted for one in other.stats()] == [0, 5]


def test_another_process_opens_it_by_name(bus: EventBus) -> None:
    consumer = bus.consumer(0)
    with Peer(bus) as other:
        assert other.ask(open_and_emit, bus.name) == [True, True, True]
    assert list(consumer.drain()) == events(1, 3)


def open_and_emit(held: Held, name: str) -> list[bool]:
    held.bus = EventBus.open(name)
    claim_producer(held)
    return emit(held, 1, 3)


def test_a_bus_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    name = new_name()
    with pytest.raises(FileNotFoundError, match=name):
        EventBus.open(name)
    with pytest.raises(FileNotFoundError, match="a"):
        EventBus.open("a", directory=tmp_path)
    with pytest.raises(FileNotFoundError):
        EventBus.open("a", directory=tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        EventBus.create("a", 1, 16, directory=tmp_path / "none")
    assert os.listdir(tmp_path) == []


def test_the_thresholds_go_with_the_bus(make_bus: BusMaker) -> None:
    config = BackpressureConfig(throttle_enter=30, throttle_exit=20, suspend_enter=60, suspend_exit=40)
    bus = make_bus(2, 10, backpressure=config)
    producer, consumer = EventBus.open(bus.name).producer(1), bus.consumer(1)
    states: list[PressureState] = []
    for number in range(1, 11):
        fill(producer, number, number)
        assert producer.pressure_state is consumer.pressure_state
        states.append(producer.pressure_state)
    # 16 slots: 5 are 31 percent, 10 are 62.
    assert states == [PressureState.NORMAL] * 4 + [PressureState.THROTTLED] * 5 + [PressureState.SUSPENDED]
    assert bus.stats()[1].pressure_state is PressureState.SUSPENDED
    with Peer(bus) as other:
        producer.close()
        assert other.ask(state_of_a_successor) == "SUSPENDED"
        assert len(consumer.drain(6)) == 6  # 25 percent are left
        assert other.ask(state_there) == "THROTTLED"
        assert len(consumer.drain(1)) == 1  # 18
        assert other.ask(state_there) == "NORMAL"


def state_of_a_successor(held: Held) -> str:
    claim_producer(held, 1)
    return state_there(held)


def state_there(held: Held) -> str:
    return held.producer.pressure_state.name


def test_a_core_that_the_bus_does_not_have(make_bus: BusMaker) -> None:
    bus = make_bus(2)
    for core_id in (2, -1, 2**64):
        with pytest.raises((IndexError, ValueError), match=str(core_id)):
            bus.producer(core_id)
        with pytest.raises((IndexError, ValueError), match=str(core_id)):
            bus.consumer(core_id)
    wrong: Any
    for wrong in (None, "0", 0.0):
        with pytest.raises(TypeError, match="core_id"):
            bus.producer(wrong)
        with pytest.raises(TypeError, match="core_id"):
            bus.consumer(wrong)
    assert [(one.producer_claims, one.consumer_claims) for one in bus.stats()] == [(0, 0)] * 2


def test_cores_are_apart(make_bus: BusMaker) -> None:
    bus = make_bus(3, 4)
    producers = [bus.producer(core_id) for core_id in range(3)]
    consumers = [bus.consumer(core_id) for core_id in range(3)]
    assert [producers[1].emit(event(number)) for number in range(1, 7)] == [True] * 4 + [False] * 2
    consumers[2].close()
    for core_id in (0, 1, 2):
        assert producers[core_id].is_consumer_disconnected == (core_id == 2)
        assert producers[core_id].utilization == (100 if core_id == 1 else 0)
    fill(producers[0], 10, 12)
    assert [sequences(consumers[core_id].drain()) for core_id in (0, 1)] == [[10, 11, 12], [1, 2, 3, 4]]


# close


def test_the_ends_live_on_when_the_handle_is_closed(bus: EventBus) -> None:
    producer, consumer = bus.producer(0), bus.consumer(0)
    bus.close()
    fill(producer, 1, 3)
    assert list(consumer.drain()) == events(1, 3)
    [stats] = EventBus.open(bus.name).stats()
    assert stats.producer_pid == stats.consumer_pid == os.getpid()


def test_the_ends_live_on_when_the_handle_is_collected(make_bus: BusMaker) -> None:
    name = make_bus().name
    producer = EventBus.open(name).producer(0)
    consumer = EventBus.open(name).consumer(0)
    with consumer.lease() as empty:
        assert len(empty) == 0
    fill(producer, 1, 3)
    assert list(consumer.drain()) == events(1, 3)


def test_a_closed_handle_refuses(bus: EventBus) -> None:
    bus.close()
    bus.close()
    calls: list[Callable[[], object]] = [lambda: bus.producer(0), lambda: bus.consumer(0), bus.stats]
    for call in calls:
        with pytest.raises(ClosedError, match="closed"):
            call()
    assert bus.name in repr(bus)
    # What it was is still known, and its name may still be removed.
    assert EventBus.open(bus.name).num_cores == bus.num_cores == 1
    bus.unlink()
    assert named() == set()


def test_leaving_the_block_closes_and_does_not_unlink(make_bus: BusMaker) -> None:
    with make_bus() as bus:
        consumer = bus.consumer(0)
    with pytest.raises(ClosedError):
        bus.producer(0)
    with pytest.raises(KeyError), EventBus.open(bus.name) as other:
        raise KeyError
    with pytest.raises(ClosedError):
        other.stats()
    fill(EventBus.open(bus.name).producer(0), 1, 1)
    assert sequences(consumer.drain()) == [1]


def test_closing_and_opening_leak_no_descriptors_and_no_mappings(bus: EventBus) -> None:
    def counts() -> tuple[int, int]:
        maps = Path("/proc/self/maps").read_text()
        return len(os.listdir("/proc/self/fd")), maps.count(bus.path.name)

    def once() -> None:
        with EventBus.open(bus.name) as other:
            producer, consumer = other.producer(0), other.consumer(0)
            assert consumer.fileno() >= 0
            fill(producer, 1, 1)
            assert len(consumer.drain()) == 1
            producer.close()
            consumer.close()
            other.stats()

    once()
    gc.collect()  # what earlier tests left must not go meanwhile
    before = counts()
    for _ in range(5):
        once()
    assert counts() == before


# the rest


def test_repr(make_bus: BusMaker, tmp_path: Path) -> None:
    bus = make_bus(3, 100, name="planets", directory=tmp_path)
    text = repr(bus)
    assert text.startswith(("<EventBus", "EventBus("))
    for part in ("planets", "3", "128"):
        assert part in text
    bus.close()
    assert "closed" in repr(bus)


def test_a_bus_is_made_by_name_only() -> None:
    make: Any = EventBus
    with pytest.raises(TypeError, match=r"create|open"):
        make()
    with pytest.raises(TypeError):
        type("Mine", (make,), {})()
