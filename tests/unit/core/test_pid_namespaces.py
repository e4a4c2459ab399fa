"""Two pid namespaces share a bus: a number of the other one is nobody's here, or another process's."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from nodedb_ring import EventBus, EventConsumer, RoleTaken
from nodedb_ring.command.cli import main
from tests.unit.builders import fill, sequences
from tests.unit.bus.waiters import has_gone, producing_peer
from tests.unit.sandbox import Refusal, refused_from_here_on
from tests.unit.shared_buses import (
    CONSUMER_PID,
    CONSUMER_PID_NAMESPACE,
    PRODUCER_PID,
    PRODUCER_PID_NAMESPACE,
    Held,
    Peer,
    claim_consumer,
    claim_producer,
    drain,
    emit,
    header_word,
    set_header_word,
)

from .test_lost_wakes import pidfds, without_descriptors

HERE = os.stat("/proc/self/ns/pid").st_ino
ELSEWHERE = HERE + 1


def a_process_that_ended() -> int:
    """The pid of a process that has ended, so that a check by pid finds it dead or not at all."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def move(bus: EventBus, end: str, pid: int, namespace: int = ELSEWHERE) -> None:
    """What the block says of the process that holds an end, as if it had claimed it in that namespace."""
    at, beside = (PRODUCER_PID, PRODUCER_PID_NAMESPACE) if end == "producer" else (CONSUMER_PID, CONSUMER_PID_NAMESPACE)
    set_header_word(bus, beside, namespace, 8)
    set_header_word(bus, at, pid)


def collected(consumer: EventConsumer) -> list[int]:
    async def collect() -> list[int]:
        return [number async for batch in consumer for number in sequences(batch)]

    return asyncio.run(collect())


def test_a_claim_says_its_namespace(bus: EventBus) -> None:
    with bus.producer(0), bus.consumer(0):
        assert header_word(bus, PRODUCER_PID_NAMESPACE, 8) == header_word(bus, CONSUMER_PID_NAMESPACE, 8) == HERE
    assert header_word(bus, PRODUCER_PID_NAMESPACE, 8) == header_word(bus, CONSUMER_PID_NAMESPACE, 8) == 0


def test_a_producer_lives_though_a_process_of_its_number_here_has_ended(bus: EventBus) -> None:
    consumer = bus.consumer(0)
    with producing_peer(bus) as other, subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) as stranger:
        move(bus, "producer", stranger.pid)
        assert len(consumer.drain(timeout=0.1)) == 0  # a check by pid is made now
        assert not pidfds()
        stranger.communicate(b"\n")
        assert not has_gone(consumer)
        other.ask(emit, 1, 3)
        assert sequences(consumer.drain()) == [1, 2, 3]
        assert len(consumer.drain(timeout=0.1)) == 0
        assert not has_gone(consumer)
        other.kill()
        assert collected(consumer) == []
        assert has_gone(consumer)


def test_a_consumer_lives_though_a_process_of_its_number_here_has_ended(bus: EventBus) -> None:
    producer = bus.producer(0)
    with Peer(bus) as other, subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) as stranger:
        other.ask(claim_consumer)
        move(bus, "consumer", stranger.pid)
        assert not has_gone(producer)
        stranger.communicate(b"\n")
        assert not has_gone(producer)
        fill(producer, 1, 16)
        assert not producer.wait_for_room(1, timeout=0.1)
        assert not has_gone(producer)
        assert other.ask(drain) == list(range(1, 17))
        other.kill()
        assert has_gone(producer)


@pytest.mark.parametrize("why", ["another namespace", "pidfd_open refused", "no descriptor"])
def test_an_asynchronous_wait_sees_a_death_that_no_descriptor_signals(why: str, bus: EventBus) -> None:
    if why == "pidfd_open refused":
        # Here, and in the children that the tests fork: so in a process of its own.
        with Peer(bus) as reader, producing_peer(bus) as other:
            reader.ask(refuse_pidfd)
            reader.ask(claim_consumer)
            other.ask(emit, 1, 2)
            reader.post(collect_all)
            other.kill()
            assert reader.answer() == [1, 2]
        return
    consumer = bus.consumer(0)
    with producing_peer(bus) as other:
        other.ask(emit, 1, 2)
        if why == "another namespace":
            move(bus, "producer", a_process_that_ended())

        async def collect() -> list[int]:
            seen: list[int] = []
            async for batch in consumer:
                seen += sequences(batch)
                if seen == [1, 2]:
                    await asyncio.to_thread(other.kill)
            return seen

        if why == "no descriptor":
            consumer.fileno()
            with without_descriptors():
                assert not has_gone(consumer)
        assert asyncio.run(collect()) == [1, 2]
        assert has_gone(consumer)


def refuse_pidfd(_held: Held) -> None:
    refused_from_here_on(Refusal("pidfd_open"))


def collect_all(held: Held) -> list[int]:
    return collected(held.consumer)


def test_a_refusal_says_that_the_holder_is_elsewhere(bus: EventBus) -> None:
    for end, claim in (("producer", bus.producer), ("consumer", bus.consumer)):
        with Peer(bus) as other:
            other.ask(claim_producer if end == "producer" else claim_consumer)
            with pytest.raises(RoleTaken, match=f"{end} of core 0: is claimed by process {other.pid}; ") as refused:
                claim(0)
            assert refused.value.pid == other.pid
            move(bus, end, other.pid)
            with pytest.raises(
                RoleTaken, match=f"is claimed by process {other.pid} of another pid namespace, a container's say; "
            ) as refused:
                claim(0)
            assert refused.value.pid is None


def test_inspection_says_that_a_holder_is_elsewhere(bus: EventBus, capsys: pytest.CaptureFixture[str]) -> None:
    with bus.producer(0), bus.consumer(0):
        move(bus, "consumer", 17)
        [stats] = bus.stats()
        assert (stats.producer_pid, stats.producer_is_elsewhere) == (os.getpid(), False)
        assert (stats.consumer_pid, stats.consumer_is_elsewhere) == (17, True)
        assert main(["inspect", bus.name]) == 0
        assert f"{os.getpid()}  17 elsewhere" in capsys.readouterr().out
    [stats] = bus.stats()
    assert (stats.producer_pid, stats.producer_is_elsewhere) == (None, False)
    assert (stats.consumer_pid, stats.consumer_is_elsewhere) == (None, False)
