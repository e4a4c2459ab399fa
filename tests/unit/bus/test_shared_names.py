"""Names of shared buses: where their files are, which are listed, and how one is removed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nodedb_ring import EventBus
from tests.unit.builders import fill, sequences
from tests.unit.shared_buses import BusMaker, Held, Peer, another_users, claim_consumer, claim_producer, drain, emit

from .created import named

# the name comes last


def create_many(held: Held, directory: str, count: int) -> None:
    for number in range(count):
        EventBus.create(f"b{number}", 2, 2048, directory=directory).close()


def test_a_name_that_is_listed_is_a_whole_bus(bus: EventBus, tmp_path: Path) -> None:
    # A process that lists while buses are created sees only complete ones, and never a temporary name.
    count = 60
    seen: set[str] = set()
    with Peer(bus) as maker:
        maker.post(create_many, str(tmp_path), count)
        while len(seen) < count:
            names = EventBus.list(directory=tmp_path)
            assert names == sorted(names)
            assert set(names) <= {f"b{number}" for number in range(count)}
            for name in set(names) - seen:
                other = EventBus.open(name, directory=tmp_path)
                assert (other.num_cores, other.capacity) == (2, 2048)
                assert [one.producer_claims for one in other.stats()] == [0, 0]
                other.close()
            assert seen <= set(names)
            seen.update(names)
        maker.answer()
    assert sorted(os.listdir(tmp_path)) == sorted(f"nodedb_ring.b{number}" for number in range(count))


# directory


@pytest.mark.parametrize("kind", [str, Path])
def test_a_directory_of_choice(kind: Callable[[Path], Any], tmp_path: Path) -> None:
    bus = EventBus.create("here", 1, 16, directory=kind(tmp_path))
    assert (bus.directory, bus.path) == (tmp_path, tmp_path / "nodedb_ring.here")
    assert EventBus.list(directory=kind(tmp_path)) == ["here"]
    assert "here" not in EventBus.list()
    with pytest.raises(FileNotFoundError):
        EventBus.open("here")
    other = EventBus.open("here", directory=kind(tmp_path))
    fill(bus.producer(0), 1, 2)
    assert sequences(other.consumer(0).drain()) == [1, 2]
    other.unlink()
    assert os.listdir(tmp_path) == []


def test_a_relative_directory_stays_the_same_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d").mkdir()
    monkeypatch.chdir(tmp_path)
    bus = EventBus.create("here", 1, 16, directory="d")
    monkeypatch.chdir("/")
    with Peer(bus, "spawn") as other:
        other.ask(claim_producer)
        other.ask(emit, 1, 2)
    assert sequences(bus.consumer(0).drain()) == [1, 2]
    bus.unlink()
    assert os.listdir(tmp_path / "d") == []


# list


def test_list_names_the_buses_sorted(make_bus: BusMaker, tmp_path: Path) -> None:
    assert EventBus.list(directory=tmp_path) == []
    for name in ("b", "c", "a"):
        make_bus(name=name, directory=tmp_path)
    assert EventBus.list(directory=tmp_path) == ["a", "b", "c"]
    EventBus.open("b", directory=tmp_path).unlink()
    assert EventBus.list(directory=tmp_path) == ["a", "c"]


def test_list_reads_dev_shm(bus: EventBus) -> None:
    assert bus.name in EventBus.list()
    bus.unlink()
    assert bus.name not in EventBus.list()


def test_list_names_nothing_else(make_bus: BusMaker, tmp_path: Path) -> None:
    bus = make_bus(name="bus", directory=tmp_path)
    assert bus.consumer(0).fileno() >= 0  # its FIFO beside the file is not listed as a bus
    (tmp_path / "nodedb_ring").write_bytes(b"")
    (tmp_path / "nodedb_ring.").write_bytes(b"")
    (tmp_path / "other.bus").write_bytes(bus.path.read_bytes())
    (tmp_path / "nodedb_ring.directory").mkdir()
    (tmp_path / "nodedb_ring.link").symlink_to(bus.path)
    os.mkfifo(tmp_path / "nodedb_ring.fifo")
    assert EventBus.list(directory=tmp_path) == ["bus"]


def test_list_leaves_out_other_users_buses(make_bus: BusMaker, tmp_path: Path) -> None:
    bus = make_bus(name="theirs", directory=tmp_path)
    with another_users(bus.path):
        assert EventBus.list(directory=tmp_path) == []
    assert EventBus.list(directory=tmp_path) == ["theirs"]


# unlink


def test_unlink_removes_the_name_and_may_be_repeated(bus: EventBus) -> None:
    other = EventBus.open(bus.name)
    bus.unlink()
    with pytest.raises(FileNotFoundError):
        EventBus.open(bus.name)
    assert named() == set()
    bus.unlink()
    other.unlink()


def test_processes_that_have_it_open_continue(bus: EventBus) -> None:
    producer = bus.producer(0)
    with Peer(bus) as other:
        other.ask(claim_consumer)
        bus.unlink()
        fill(producer, 1, 3)
        assert other.ask(drain) == [1, 2, 3]
        # Claims are made on the file, whatever its name.
        producer.close()
        other.ask(claim_producer)
        assert other.ask(emit, 4, 5) == [True, True]
        assert other.ask(drain) == [4, 5]
        [stats] = bus.stats()
        assert (stats.producer_pid, stats.consumer_pid) == (other.pid, other.pid)


def test_unlink_removes_the_files_beside_the_bus(make_bus: BusMaker, tmp_path: Path) -> None:
    bus = make_bus(2, name="a", directory=tmp_path)
    consumers = [bus.consumer(core_id) for core_id in range(2)]
    assert all(consumer.fileno() >= 0 for consumer in consumers)
    bus.unlink()
    assert os.listdir(tmp_path) == []


def test_a_name_may_be_used_again_and_a_repeated_unlink_spares_its_new_bus(bus: EventBus, make_bus: BusMaker) -> None:
    bus.unlink()
    second = make_bus(2, name=bus.name)
    fill(bus.producer(0), 1, 2)
    assert [one.producer.emitted for one in second.stats()] == [0, 0]
    bus.unlink()
    assert EventBus.open(bus.name).num_cores == 2
    assert sequences(bus.consumer(0).drain()) == [1, 2]
