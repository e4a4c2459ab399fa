"""consumers(): the ends of all cores, or none of them, and then no producer notices anything."""

from __future__ import annotations

import errno
import os
import resource

import pytest

from nodedb_ring import ClosedError, CorruptRingError, RoleTaken, merge
from tests.unit.builders import event, fill, sequences
from tests.unit.runners import in_child
from tests.unit.shared_buses import BusMaker, Peer, claim_consumer


def test_the_consumers_of_all_cores(make_bus: BusMaker) -> None:
    bus = make_bus(3)
    with bus.producer(1) as producer:
        fill(producer, 1, 2)
    consumers = bus.consumers()
    assert [consumer.core_id for consumer in consumers] == [0, 1, 2]
    bus.producer(0).close()
    bus.producer(2).close()
    assert [(core_id, sequences(each)) for core_id, each in merge(consumers)] == [(1, [1, 2])]
    for consumer in consumers:
        consumer.close()
    assert [stats.consumer_claims for stats in bus.stats()] == [1, 1, 1]


def test_one_that_another_process_has_is_named_and_none_is_held(make_bus: BusMaker) -> None:
    bus = make_bus(3)
    producers = [bus.producer(core_id) for core_id in range(3)]
    fill(producers[0], 1, 1)
    with Peer(bus) as other:
        other.ask(claim_consumer, 2)
        with pytest.raises(RoleTaken, match=f"consumer of core 2: is claimed by process {other.pid}") as raised:
            bus.consumers()
        assert raised.value.pid == other.pid
        assert raised.value.__notes__ == ["consumer of core 2: could not be claimed, so none of the bus was"]
        # No producer was told of a consumer that came and went: events stay, and more are taken.
        assert not any(producer.is_consumer_disconnected for producer in producers)
        assert all(producer.emit(event(2)) for producer in producers)
        assert [stats.consumer_claims for stats in bus.stats()] == [0, 0, 1]
    # None is held, or this claim would be refused.
    assert [sequences(consumer.drain()) for consumer in bus.consumers()] == [[1, 2], [2], [2]]


def test_a_corrupt_block_is_named_and_none_is_held(make_bus: BusMaker) -> None:
    bus = make_bus(2)
    block = 4096 + (os.path.getsize(bus.path) - 4096) // 2
    with open(bus.path, "r+b") as file:
        published = 128
        assert os.pread(file.fileno(), 4, block + 12) == (1).to_bytes(4, "little"), "the block of core 1"
        os.pwrite(file.fileno(), (1 << 40).to_bytes(8, "little"), block + published)
    with pytest.raises(CorruptRingError, match="core 1"):
        bus.consumers()
    bus.consumer(0)


def test_without_descriptors_the_core_is_named(make_bus: BusMaker) -> None:
    bus = make_bus(3)

    def claim() -> list[str]:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        most = max(map(int, os.listdir("/proc/self/fd")))
        found: list[str] = []
        for limit in range(1, most + 20):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            try:
                consumers = bus.consumers()
            except OSError as error:
                found += error.__notes__ if error.errno == errno.EMFILE else [str(error)]
            else:
                assert len(consumers) == 3
                return found
        return found

    # One more descriptor each time, until there are enough for all.
    notes = [f"consumer of core {core_id}: could not be claimed, so none of the bus was" for core_id in range(3)]
    assert sorted(set(in_child(claim))) == notes


def test_a_closed_bus(make_bus: BusMaker) -> None:
    bus = make_bus(2)
    bus.close()
    with pytest.raises(ClosedError):
        bus.consumers()
