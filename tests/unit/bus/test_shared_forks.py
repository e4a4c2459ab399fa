"""Ends and claims of a shared ring across fork and exec: a child inherits no role."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import pytest

from nodedb_ring import EventBus, ForkError, RoleTaken
from tests.unit.builders import event, events, fill, sequences
from tests.unit.ends.end_calls import consuming, kind_of, producing
from tests.unit.forks import FORKS, c_fork, raw_fork
from tests.unit.runners import Running, in_child
from tests.unit.shared_buses import SECONDS, BusMaker, Held, Peer, end, is_alive

from .claims import ROLES, assert_taken, claim, claim_there, close_there, pid_of


def check_inherited_ends(bus: EventBus, fork: Callable[[], int]) -> None:
    producer, consumer = bus.producer(0), bus.consumer(0)
    fill(producer, 1, 4)
    assert consumer.try_recv() == event(1)
    lease = consumer.lease(1)

    def child() -> list[str]:
        emitting = [*producing(producer), producer.bind]
        receiving = [*consuming(consumer), consumer.fileno, consumer.bind]
        return [kind_of(call) for call in emitting + receiving]

    assert in_child(child, fork) == ["ForkError"] * 12
    fill(producer, 5, 6)
    assert list(lease.batch) == [event(2)]
    lease.release()
    assert sequences(consumer.drain()) == [3, 4, 5, 6]
    assert not producer.is_consumer_disconnected
    assert not consumer.is_producer_disconnected


@pytest.mark.parametrize("fork", FORKS)
def test_inherited_ends_refuse(fork: Callable[[], int], bus: EventBus) -> None:
    check_inherited_ends(bus, fork)


def test_inherited_ends_refuse_after_a_fork_that_the_c_library_knows_nothing_of(bus: EventBus) -> None:
    # From a child, which has one thread: a lock that another thread held at that moment, malloc's for one, would stay
    # taken in the clone forever. The threads of all libraries that other tests have imported live on in this process.
    in_child(lambda: check_inherited_ends(bus, raw_fork))


@pytest.mark.parametrize("fork", FORKS)
def test_a_fork_error_says_what_to_do(fork: Callable[[], int], bus: EventBus) -> None:
    producer = bus.producer(0)

    def child() -> str:
        with pytest.raises(ForkError) as raised:
            producer.emit(event())
        return str(raised.value)

    text = in_child(child, fork)
    assert "producer of core 0" in text
    assert "fork" in text


@pytest.mark.parametrize("fork", FORKS)
@pytest.mark.parametrize("how", ["close", "collect"])
def test_a_child_s_calls_of_inherited_ends_change_nothing_shared(
    how: str, fork: Callable[[], int], bus: EventBus
) -> None:
    ends: list[Any] = [bus.producer(0), bus.consumer(0)]
    fill(ends[0], 1, 3)
    ends.append(ends[1].lease(1))
    before = bus.stats()

    def child() -> bool:
        if how == "close":
            ends[2].release()
            ends[0].close()
            ends[1].close()
        ends.clear()
        return EventBus.open(bus.name).stats() == before

    assert in_child(child, fork)
    assert bus.stats() == before
    assert_taken(bus, "producer", os.getpid())
    assert_taken(bus, "consumer", os.getpid())
    producer, consumer, lease = ends
    fill(producer, 4, 5)
    assert list(lease.batch) == [event(1)]
    assert list(consumer.drain()) == events(2, 5)


def test_a_child_claims_again_from_the_inherited_bus(bus: EventBus) -> None:
    producer = bus.producer(0)
    parent = os.getpid()

    def while_the_parent_holds_it() -> tuple[str, int | None]:
        with pytest.raises(RoleTaken) as raised:
            bus.producer(0)
        return type(raised.value).__name__, raised.value.pid

    def when_it_is_free() -> tuple[list[bool], int | None, int]:
        mine = bus.producer(0)
        done = [mine.emit(each) for each in events(2, 4)]
        [stats] = bus.stats()
        return done, stats.producer_pid, os.getpid()

    fill(producer, 1, 1)
    assert in_child(while_the_parent_holds_it) == ("RoleTaken", parent)
    producer.close()
    done, named, child = in_child(when_it_is_free)
    assert done == [True] * 3
    assert named == child != parent
    assert list(bus.consumer(0).drain()) == events(1, 4)


@pytest.mark.parametrize("fork", FORKS)
def test_a_child_may_claim_an_end_that_the_parent_releases_while_it_runs(
    fork: Callable[[], int], bus: EventBus
) -> None:
    consumer = bus.consumer(0)
    fill(bus.producer(0), 1, 3)
    assert consumer.try_recv() == event(1)
    closed, reported = os.pipe()

    def child() -> list[int]:
        assert kind_of(lambda: bus.consumer(0)) == "RoleTaken"
        os.write(reported, b"x")
        while os.read(asked, 1) != b"y":
            pass
        return sequences(bus.consumer(0).drain())

    asked, asking = os.pipe()

    def close() -> None:
        os.read(closed, 1)
        consumer.close()
        os.write(asking, b"y")

    closer = Running(close)
    try:
        # A child that is forked while a thread waits for the GIL would wait for that thread to take it.
        closer.until_asleep()
        assert in_child(child, fork) == [2, 3]
        closer.result()
    finally:
        for fd in (closed, reported, asked, asking):
            os.close(fd)


@pytest.mark.parametrize("fork", [*FORKS, raw_fork])
@pytest.mark.parametrize("role", ROLES)
def test_an_end_closed_right_after_a_fork_is_free_at_once(role: str, fork: Callable[[], int], bus: EventBus) -> None:
    # The child may not have run yet: it has what it inherited still open.
    for _ in range(20):
        held = claim(bus, role)
        child = fork()
        if child == 0:
            signal.alarm(SECONDS)
            while True:
                signal.pause()
        try:
            held.close()
            claim(bus, role).close()
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def claim_beside_forks(held: Held) -> list[int]:
    """Claims everything while another thread forks; returns the children, which live on with what they inherited."""
    children: list[int] = []
    stop = threading.Event()

    def fork_on() -> None:
        while not stop.is_set() and len(children) < 100:
            children.append(hold_inherited(held, through_python=True))

    forker = threading.Thread(target=fork_on)
    forker.start()
    for core_id in range(held.bus.num_cores):
        held.others += [held.bus.producer(core_id), held.bus.consumer(core_id)]
    stop.set()
    forker.join()
    return children


def test_a_fork_during_a_claim_gives_the_child_no_role(make_bus: BusMaker) -> None:
    bus = make_bus(200, 1, arena_bytes=64)
    with Peer(bus) as other:
        children = other.ask(claim_beside_forks)
        try:
            assert {(one.producer_pid, one.consumer_pid) for one in bus.stats()} == {(other.pid, other.pid)}
            other.kill()
            for core_id in range(bus.num_cores):
                for role in ROLES:
                    claim(bus, role, core_id).close()
            assert all(map(is_alive, children))
        finally:
            for child in children:
                end(child)


def hold_inherited(held: Held, through_python: bool) -> int:
    """Forks a process that keeps all that it inherited, and never ends by itself; it runs when this returns."""
    reading, writing = os.pipe()
    pid = os.fork() if through_python else c_fork()
    if pid == 0:
        signal.alarm(SECONDS)
        os.write(writing, b"x")
        while True:
            signal.pause()
    os.read(reading, 1)
    os.close(reading)
    os.close(writing)
    return pid


@pytest.mark.parametrize("through_python", [True, False])
@pytest.mark.parametrize("role", ROLES)
def test_a_child_does_not_hold_a_role_beyond_its_parent_s_death(role: str, through_python: bool, bus: EventBus) -> None:
    with Peer(bus) as other:
        other.ask(claim_there, role)
        child = other.ask(hold_inherited, through_python)
        try:
            assert_taken(bus, role, other.pid)
            other.kill()
            assert is_alive(child)
            assert pid_of(bus, role) is None
            successor = claim(bus, role)
            assert pid_of(bus, role) == os.getpid()
            assert is_alive(child)
            successor.close()
        finally:
            end(child)


@pytest.mark.parametrize("through_python", [True, False])
@pytest.mark.parametrize("role", ROLES)
def test_a_child_does_not_hold_a_role_that_its_parent_closes(role: str, through_python: bool, bus: EventBus) -> None:
    with Peer(bus) as other:
        other.ask(claim_there, role)
        child = other.ask(hold_inherited, through_python)
        try:
            other.ask(close_there, role)
            assert claim(bus, role).core_id == 0
            assert is_alive(child)
        finally:
            end(child)


@pytest.mark.parametrize("role", ROLES)
def test_the_death_of_a_child_frees_nothing(role: str, bus: EventBus) -> None:
    with Peer(bus) as other:
        other.ask(claim_there, role)
        for through_python in (True, False):
            end(other.ask(hold_inherited, through_python))
            assert_taken(bus, role, other.pid)


def execute(held: Held) -> int:
    """Starts another program that gets every descriptor that a program may get."""
    return subprocess.Popen(["/bin/sleep", str(SECONDS)], close_fds=False).pid


@pytest.mark.parametrize("role", ROLES)
def test_another_program_does_not_hold_a_role(role: str, bus: EventBus) -> None:
    with Peer(bus) as other:
        other.ask(claim_there, role)
        program = other.ask(execute)
        try:
            other.kill()
            assert is_alive(program)
            assert pid_of(bus, role) is None
            assert claim(bus, role).core_id == 0
        finally:
            end(program)


def test_another_program_gets_no_descriptor_of_the_bus(bus: EventBus) -> None:
    producer, consumer = bus.producer(0), bus.consumer(0)
    consumer.fileno()
    listing = subprocess.run(
        ["/bin/ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True, text=True, check=True
    ).stdout
    assert bus.name not in listing
    assert "pidfd" not in listing
    assert "eventpoll" not in listing
    fill(producer, 1, 1)
