"""A bus goes to another process by name, however that process is made; the ends stay where they were claimed."""

from __future__ import annotations

import concurrent.futures
import copy
import multiprocessing
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nodedb_ring import EventBus, RoleTaken
from tests.unit.builders import event, events, fill, ring, sequences
from tests.unit.shared_buses import (
    METHODS,
    BusMaker,
    Held,
    Peer,
    claim_consumer,
    claim_producer,
    close_producer,
    drain,
    emit,
    new_name,
)

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def what_it_is(held: Held) -> tuple[str, str, int, int, int]:
    return held.bus.name, str(held.bus.path), held.bus.num_cores, held.bus.capacity, held.bus.arena_bytes


@pytest.mark.parametrize("method", METHODS)
def test_a_child_gets_the_bus_as_an_argument(method: str, make_bus: BusMaker, tmp_path: Path) -> None:
    bus = make_bus(2, 32, arena_bytes=9000, directory=tmp_path)
    here = bus.consumer(1)
    mine = bus.producer(0)
    with Peer(bus, method) as other:
        assert other.ask(what_it_is) == (bus.name, str(bus.path), 2, 32, 9000)
        other.ask(claim_producer, 1)
        assert other.ask(emit, 1, 5) == [True] * 5
        assert list(here.drain(timeout=None)) == events(1, 5)
        fill(mine, 11, 13)
        other.ask(claim_consumer, 0)
        assert other.ask(drain) == [11, 12, 13]
        with pytest.raises(RoleTaken) as raised:
            bus.producer(1)
        assert raised.value.pid == other.pid
        assert [(one.producer_pid, one.consumer_pid) for one in bus.stats()] == [
            (os.getpid(), other.pid),
            (other.pid, os.getpid()),
        ]
        other.ask(close_producer)
        assert len(here.drain(timeout=None)) == 0
        assert here.is_producer_disconnected
        other.kill()
        assert mine.is_consumer_disconnected


@pytest.mark.parametrize("method", METHODS)
def test_a_handle_that_is_closed_later_does_not_matter_to_the_child(method: str, make_bus: BusMaker) -> None:
    base = make_bus()
    handle = EventBus.open(base.name)
    with Peer(handle, method) as other:
        other.ask(claim_producer)
        handle.close()
        assert other.ask(emit, 1, 3) == [True] * 3
        assert sequences(base.consumer(0).drain()) == [1, 2, 3]


def emit_some(bus: EventBus, core_id: int, count: int) -> tuple[int, bool]:
    with bus.producer(core_id) as producer:
        fill(producer, 1, count)
        return core_id, bus.stats()[core_id].producer_pid == os.getpid()


def test_a_pool_of_processes(make_bus: BusMaker) -> None:
    bus = make_bus(4)
    context: Any = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, context) as pool:
        done = [pool.submit(emit_some, bus, core_id, 3 + core_id) for core_id in range(4)]
        assert [each.result(40) for each in done] == [(core_id, True) for core_id in range(4)]
    for core_id in range(4):
        consumer = bus.consumer(core_id)
        assert list(consumer.drain()) == events(1, 3 + core_id)
        assert consumer.is_producer_disconnected


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pickling_opens_by_name(protocol: int, bus: EventBus) -> None:
    pickled = pickle.dumps(bus, protocol)
    assert len(pickled) < 1000
    other = pickle.loads(pickled)
    assert isinstance(other, EventBus)
    assert other is not bus
    assert (other.name, other.path) == (bus.name, bus.path)
    fill(bus.producer(0), 1, 2)
    assert sequences(other.consumer(0).drain()) == [1, 2]


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy])
def test_a_copy_is_another_handle_of_the_same_bus(make: Callable[[EventBus], EventBus], bus: EventBus) -> None:
    other = make(bus)
    bus.close()
    assert [one.core_id for one in other.stats()] == [0]


def test_a_bus_whose_name_has_gone_is_not_found(bus: EventBus) -> None:
    pickled = pickle.dumps(bus)
    bus.unlink()
    with pytest.raises(FileNotFoundError, match=bus.name):
        pickle.loads(pickled)


def test_a_bus_in_a_directory_of_its_own(tmp_path: Path) -> None:
    bus = EventBus.create(new_name(), 1, 16, directory=tmp_path)
    other = pickle.loads(pickle.dumps(bus))
    assert other.directory == tmp_path
    other.unlink()
    assert os.listdir(tmp_path) == []


def test_the_ends_refuse_to_be_pickled_and_say_what_can_be(bus: EventBus) -> None:
    producer, consumer = bus.producer(0), bus.consumer(0)
    fill(producer, 1, 2)
    for end in (producer, consumer):
        for protocol in PROTOCOLS:
            with pytest.raises(TypeError, match="EventBus"):
                pickle.dumps(end, protocol)
        for make in (copy.copy, copy.deepcopy):
            with pytest.raises(TypeError):
                make(end)
    lease = consumer.lease(1)
    with pytest.raises(TypeError):
        pickle.dumps(lease)
    with pytest.raises(TypeError):
        pickle.dumps(producer.ring)
    # Events and batches do: they are values.
    assert list(pickle.loads(pickle.dumps(lease.batch))) == [event(1)]
    lease.release()
    fill(producer, 3, 3)
    assert sequences(consumer.drain()) == [2, 3]


def test_the_ends_of_a_private_bus_do_not_pickle_either() -> None:
    for end in ring():
        with pytest.raises(TypeError):
            pickle.dumps(end)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_an_end_as_an_argument_is_refused_before_the_child_starts(method: str, bus: EventBus) -> None:
    context: Any = multiprocessing.get_context(method)
    producer = bus.producer(0)
    process = context.Process(target=emit_some, args=(producer, 0, 1))
    with pytest.raises(TypeError, match="EventBus"):
        process.start()
    fill(producer, 1, 1)
