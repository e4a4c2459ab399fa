"""Each end of a shared ring has one live holder; when it closes, is collected or dies, a successor continues."""

from __future__ import annotations

import ctypes
import functools
import os
import pickle
import platform
import random
import signal
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import pytest

from nodedb_ring import (
    EventBus,
    EventConsumer,
    EventProducer,
    ForkError,
    OwnershipError,
    RoleTaken,
)
from tests.unit.builders import batch, event, events, fill, sequences, sized
from tests.unit.runners import Running, in_child, in_thread
from tests.unit.shared_buses import (
    SECONDS,
    BusMaker,
    Held,
    Peer,
    claim_consumer,
    claim_producer,
    close_consumer,
    close_producer,
    drain,
    emit,
    end,
    is_alive,
    lease,
    next_sequence,
    refusal,
    release,
)

End = EventProducer | EventConsumer
ROLES = ["producer", "consumer"]

libc = ctypes.PyDLL(None, use_errno=True)  # keeps the GIL: the child continues with it


def c_fork() -> int:
    """A fork that Python knows nothing of."""
    pid: int = libc.fork()
    return pid


FORKS = [os.fork, c_fork]
CLONE = {"x86_64": 56, "aarch64": 220}[platform.machine()]


def raw_fork() -> int:
    """A fork that the C library knows nothing of."""
    pid: int = libc.syscall(CLONE, int(signal.SIGCHLD), 0, 0, 0, 0)
    return pid


def claim(bus: EventBus, role: str, core_id: int = 0) -> End:
    return bus.producer(core_id) if role == "producer" else bus.consumer(core_id)


def claim_there(held: Held, role: str, core_id: int = 0) -> None:
    if role == "producer":
        claim_producer(held, core_id)
    else:
        claim_consumer(held, core_id)


def close_there(held: Held, role: str) -> None:
    if role == "producer":
        close_producer(held)
    else:
        close_consumer(held)


def pid_of(bus: EventBus, role: str) -> int | None:
    [stats] = bus.stats()
    return stats.producer_pid if role == "producer" else stats.consumer_pid


def claims_of(bus: EventBus, role: str) -> int:
    [stats] = bus.stats()
    return stats.producer_claims if role == "producer" else stats.consumer_claims


def assert_taken(bus: EventBus, role: str, pid: int) -> None:
    """The end is held: here and in a process of its own a claim is refused, in the holder's name."""
    with pytest.raises(RoleTaken, match=rf"{role}.*\b{pid}\b") as raised:
        claim(bus, role)
    assert raised.value.pid == pid
    assert pid_of(bus, role) == pid


# a second claim


@pytest.mark.parametrize("role", ROLES)
def test_a_second_claim_in_this_process(role: str, bus: EventBus) -> None:
    held = claim(bus, role)
    for handle in (bus, EventBus.open(bus.name)):
        assert_taken(handle, role, os.getpid())
        assert in_thread(lambda: kind_of(lambda: claim(bus, role))) == "RoleTaken"
    assert claims_of(bus, role) == 1
    assert held.core_id == 0


@pytest.mark.parametrize("role", ROLES)
def test_a_second_claim_across_processes(role: str, bus: EventBus) -> None:
    with Peer(bus) as one, Peer(bus) as two:
        one.ask(claim_there, role)
        assert_taken(bus, role, one.pid)
        kind, text, pid = two.ask(refusal, functools.partial(claim_there, role=role))
        assert (kind, pid) == ("RoleTaken", one.pid)
        assert role in text
        assert str(one.pid) in text
        # Refusing has not moved anything: the holder works on, the other end is free.
        assert claims_of(bus, role) == 1
        two.ask(claim_there, "consumer" if role == "producer" else "producer")
        producing, consuming = (one, two) if role == "producer" else (two, one)
        assert producing.ask(emit, 1, 3) == [True] * 3
        assert consuming.ask(drain) == [1, 2, 3]


@pytest.mark.parametrize("role", ROLES)
def test_a_claim_here_is_refused_elsewhere(role: str, bus: EventBus) -> None:
    held = claim(bus, role)
    with Peer(bus) as other:
        kind, _, pid = other.ask(refusal, functools.partial(claim_there, role=role))
    assert (kind, pid) == ("RoleTaken", os.getpid())
    assert held.core_id == 0


def test_role_taken_is_an_ownership_error_and_pickles(bus: EventBus) -> None:
    producer = bus.producer(0)
    with pytest.raises(OwnershipError) as raised:
        bus.producer(0)
    again = pickle.loads(pickle.dumps(raised.value))
    assert type(again) is RoleTaken
    assert (again.pid, str(again)) == (os.getpid(), str(raised.value))
    producer.close()


@pytest.mark.parametrize("role", ROLES)
def test_one_claim_does_not_concern_other_cores(role: str, make_bus: BusMaker) -> None:
    bus = make_bus(3)
    with Peer(bus) as other:
        other.ask(claim_there, role, 1)
        held = [claim(bus, role, core_id) for core_id in (0, 2)]
        assert [each.core_id for each in held] == [0, 2]
        with pytest.raises(RoleTaken, match="core 1"):
            claim(bus, role, 1)
        other.kill()
        assert claim(bus, role, 1).core_id == 1
        with pytest.raises(RoleTaken, match="core 2"):
            claim(bus, role, 2)


@pytest.mark.parametrize("role", ROLES)
def test_one_of_several_simultaneous_claims_succeeds(role: str, bus: EventBus) -> None:
    with Peer(bus) as one, Peer(bus) as two, Peer(bus) as three:
        peers = [one, two, three]
        for turn in range(1, 21):
            for peer in peers:
                peer.post(refusal, functools.partial(claim_there, role=role))
            reported = [peer.answer() for peer in peers]
            assert sorted(kind for kind, _, _ in reported) == ["RoleTaken", "RoleTaken", "nothing"]
            [winner] = [peer for peer, (kind, _, _) in zip(peers, reported, strict=True) if kind == "nothing"]
            # The winner may not have said yet who it is; a name that is given is right.
            assert {pid for kind, _, pid in reported if kind == "RoleTaken"} <= {winner.pid, None}
            assert (pid_of(bus, role), claims_of(bus, role)) == (winner.pid, turn)
            winner.ask(close_there, role)


@pytest.mark.parametrize("role", ROLES)
def test_of_threads_that_claim_at_once_one_succeeds(role: str, bus: EventBus) -> None:
    for _ in range(10):
        barrier = threading.Barrier(4)
        claimed: list[End] = []
        refused: list[RoleTaken] = []

        def race(
            barrier: threading.Barrier = barrier,
            claimed: list[End] = claimed,
            refused: list[RoleTaken] = refused,
        ) -> None:
            barrier.wait()
            try:
                claimed.append(claim(bus, role))
            except RoleTaken as error:
                refused.append(error)

        threads = [threading.Thread(target=race) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(claimed), len(refused)) == (1, 3)
        claimed[0].close()


# how a claim ends


@pytest.mark.parametrize("how", ["close", "with", "collect"])
@pytest.mark.parametrize("role", ROLES)
def test_close_then_claim(role: str, how: str, bus: EventBus) -> None:
    with Peer(bus) as other:
        for turn in (1, 3, 5):
            held = claim(bus, role)
            assert_taken(bus, role, os.getpid())
            if how == "close":
                held.close()
                held.close()
            elif how == "with":
                with held:
                    pass
            else:
                del held
            assert pid_of(bus, role) is None
            other.ask(claim_there, role)
            assert (pid_of(bus, role), claims_of(bus, role)) == (other.pid, turn + 1)
            other.ask(close_there, role)


@pytest.mark.parametrize("role", ROLES)
def test_closing_an_end_again_does_not_affect_its_successor(role: str, bus: EventBus) -> None:
    first = claim(bus, role)
    first.close()
    second = claim(bus, role)
    first.close()
    del first
    assert_taken(bus, role, os.getpid())
    assert second.core_id == 0


@pytest.mark.parametrize("role", ROLES)
def test_death_frees_the_role(role: str, bus: EventBus) -> None:
    for turn in range(1, 4):
        with Peer(bus) as other:
            other.ask(claim_there, role)
            assert_taken(bus, role, other.pid)
            other.kill()
            assert (pid_of(bus, role), claims_of(bus, role)) == (None, 2 * turn - 1)
        successor = claim(bus, role)
        assert (pid_of(bus, role), claims_of(bus, role)) == (os.getpid(), 2 * turn)
        successor.close()


@pytest.mark.parametrize("role", ROLES)
def test_an_end_that_exits_without_closing_frees_the_role(role: str, bus: EventBus) -> None:
    assert in_child(lambda: claim(bus, role).core_id) == 0
    assert pid_of(bus, role) is None
    assert claim(bus, role).core_id == 0


@pytest.mark.parametrize("role", ROLES)
def test_a_stopped_process_is_not_dead(role: str, bus: EventBus) -> None:
    with Peer(bus) as other:
        other.ask(claim_there, role)
        os.kill(other.pid, signal.SIGSTOP)
        _, status = os.waitpid(other.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert_taken(bus, role, other.pid)
        os.kill(other.pid, signal.SIGCONT)
        other.ask(close_there, role)
    assert claim(bus, role).core_id == 0


@pytest.mark.parametrize("role", ROLES)
def test_the_claim_stays_while_the_handle_closes(role: str, bus: EventBus) -> None:
    handle = EventBus.open(bus.name)
    held = claim(handle, role)
    handle.close()
    assert_taken(bus, role, os.getpid())
    held.close()
    assert claim(bus, role).core_id == 0


# leases


@pytest.mark.parametrize("how", ["release", "drop"])
def test_after_close_the_claim_stays_until_the_last_lease_ends(how: str, bus: EventBus) -> None:
    fill(bus.producer(0), 1, 8)
    consumer = bus.consumer(0)
    leases = [consumer.lease(2) for _ in range(3)]
    consumer.close()
    for left in (3, 2, 1):
        assert_taken(bus, "consumer", os.getpid())
        assert len(leases) == left
        if how == "release":
            leases[0].release()
        del leases[0]
    successor = bus.consumer(0)
    # What the leases released is not delivered again; what was never taken is delivered.
    assert sequences(successor.drain()) == [7, 8]
    assert successor.stats().redelivered == 0


def test_a_collected_consumer_s_claim_stays_until_the_last_lease_ends(bus: EventBus) -> None:
    fill(bus.producer(0), 1, 3)
    lease = bus.consumer(0).lease(2)
    assert_taken(bus, "consumer", os.getpid())
    assert list(lease.batch) == events(1, 2)
    lease.release()
    assert sequences(bus.consumer(0).drain()) == [3]


def test_an_array_into_an_ended_lease_keeps_the_claim(bus: EventBus) -> None:
    fill(bus.producer(0), 1, 3)
    consumer = bus.consumer(0)
    lease = consumer.lease(2)
    column: Any = lease.batch.sequence
    with pytest.raises(BufferError):
        lease.release()
    consumer.close()
    assert_taken(bus, "consumer", os.getpid())
    assert column.tolist() == [1, 2]
    del column, lease
    assert sequences(bus.consumer(0).drain()) == [3]


def test_leases_keep_the_memory_when_bus_and_end_have_gone(make_bus: BusMaker) -> None:
    with make_bus() as bus:
        fill(bus.producer(0), 1, 3)
        lease = bus.consumer(0).lease()
        bus.unlink()
    assert list(lease.batch) == events(1, 3)


def test_leases_that_die_with_a_closed_consumer_s_process_are_delivered_again(bus: EventBus) -> None:
    fill(bus.producer(0), 1, 6)
    with Peer(bus) as other:
        other.ask(claim_consumer)
        assert other.ask(lease, 2) == [1, 2]
        assert other.ask(lease, 2) == [3, 4]
        other.ask(release, 0)
        other.ask(close_consumer)
        assert_taken(bus, "consumer", other.pid)
        other.kill()
    successor = bus.consumer(0)
    assert list(successor.drain()) == events(3, 6)
    assert successor.stats().redelivered == 2


# fork


def producing(producer: EventProducer) -> list[Callable[[], object]]:
    def reserve() -> None:
        with producer.reserve(1) as rows:
            rows["op"] = 1

    return [
        lambda: producer.emit(event(90)),
        lambda: producer.emit_batch(batch(90, 91)),
        reserve,
        producer.bind,
    ]


def consuming(consumer: EventConsumer) -> list[Callable[[], object]]:
    return [
        consumer.try_recv,
        consumer.drain,
        lambda: consumer.drain(timeout=None),
        consumer.lease,
        lambda: next(iter(consumer)),
        consumer.fileno,
        consumer.bind,
    ]


def kind_of(call: Callable[[], object]) -> str:
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return "nothing"


def check_inherited_ends(bus: EventBus, fork: Callable[[], int]) -> None:
    producer, consumer = bus.producer(0), bus.consumer(0)
    fill(producer, 1, 4)
    assert consumer.try_recv() == event(1)
    lease = consumer.lease(1)

    def child() -> list[str]:
        return [kind_of(call) for call in producing(producer) + consuming(consumer)]

    assert in_child(child, fork) == ["ForkError"] * 11
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


# successors


def test_a_successor_producer_continues(bus: EventBus) -> None:
    consumer = bus.consumer(0)
    with Peer(bus) as first:
        first.ask(claim_producer)
        assert first.ask(next_sequence) == 1
        assert first.ask(emit, 1, 5) == [True] * 5
        first.kill()
    with Peer(bus) as second:
        second.ask(claim_producer)
        assert second.ask(next_sequence) == 6
        assert second.ask(emit, 6, 7) == [True] * 2
        second.ask(close_producer)
    third = bus.producer(0)
    assert (third.next_sequence, third.emitted_sequence) == (8, 7)
    fill(third, 8, 9)
    assert list(consumer.drain()) == events(1, 9)
    stats = third.stats()
    assert (stats.emitted, stats.dropped, stats.slots_high_water) == (9, 0, 9)


def test_the_numbers_of_dropped_events_are_not_used_again(bus: EventBus) -> None:
    with Peer(bus) as first:
        first.ask(claim_producer)
        assert first.ask(emit, 1, 20) == [True] * 16 + [False] * 4
        first.kill()
    successor = bus.producer(0)
    assert successor.next_sequence == 21
    stats = successor.stats()
    assert (stats.emitted, stats.dropped_full, stats.first_dropped_sequence, stats.last_dropped_sequence) == (
        16,
        4,
        17,
        20,
    )


def reserve_and_stay(held: Held, n: int) -> None:
    reservation = held.producer.reserve(n, 100)
    rows = reservation.__enter__()
    rows["op"] = 1
    held.others.append(reservation)


def test_an_open_reservation_dies_with_its_producer(bus: EventBus) -> None:
    consumer = bus.consumer(0)
    with Peer(bus) as first:
        first.ask(claim_producer)
        first.ask(emit, 1, 2)
        first.ask(reserve_and_stay, 5)
        first.kill()
    successor = bus.producer(0)
    assert successor.next_sequence == 3
    fill(successor, 3, 16)
    assert list(consumer.drain()) == events(1, 16)


def emit_sized(held: Held, first: int, last: int, size: int) -> list[bool]:
    return [held.producer.emit(sized(sequence, size)) for sequence in range(first, last + 1)]


@pytest.mark.parametrize("size", [1, 7, 60, 100, 250])
def test_payload_is_whole_across_successors(size: int, make_bus: BusMaker) -> None:
    # The arena holds two and a half of the largest events: laps begin and end everywhere in a producer's life.
    bus = make_bus(1, 8, arena_bytes=640)
    consumer = bus.consumer(0)
    held = consumer.lease()
    number, received = 1, 0
    for _ in range(8):
        with Peer(bus) as writer:
            writer.ask(claim_producer)
            assert writer.ask(next_sequence) == number
            reported = writer.ask(emit_sized, number, number + 4, size)
            writer.kill()
        lease = consumer.lease(2)
        held.release()
        held = lease
        emitted = [sized(number + at, size) for at, done in enumerate(reported) if done]
        assert list(lease.batch) + list(consumer.drain()) == emitted
        number += 5
        received += len(emitted)
    assert received >= 8


def test_a_successor_consumer_gets_what_waits(bus: EventBus) -> None:
    producer = bus.producer(0)
    fill(producer, 1, 5)
    with Peer(bus) as first:
        first.ask(claim_consumer)
        assert first.ask(drain, 2) == [1, 2]
        first.kill()
    successor = bus.consumer(0)
    assert successor.stats().redelivered == 0
    assert list(successor.drain()) == events(3, 5)
    fill(producer, 6, 6)
    assert successor.try_recv() == event(6)


def test_a_successor_consumer_gets_again_what_leases_held(bus: EventBus) -> None:
    producer = bus.producer(0)
    fill(producer, 1, 12)
    with Peer(bus) as first:
        first.ask(claim_consumer)
        for which in range(1, 10, 3):
            assert first.ask(lease, 3) == [which, which + 1, which + 2]
        first.ask(release, 1)  # 4 to 6
        assert first.ask(drain, 1) == [10]
        fill(producer, 13, 16)
        assert producer.utilization == 75
        first.kill()
    [stats] = bus.stats()
    assert (stats.consumer.received, stats.consumer.held) == (10, 6)
    successor = bus.consumer(0)
    assert list(successor.drain()) == events(1, 3) + events(7, 9) + events(11, 16)
    assert successor.stats().redelivered == bus.stats()[0].consumer.redelivered == 6
    assert successor.stats().held == 0
    assert producer.utilization == 0
    # Every slot serves again, round and round.
    for first_of in range(17, 17 + 64, 16):
        fill(producer, first_of, first_of + 15)
        assert list(successor.drain()) == events(first_of, first_of + 15)


def test_redelivered_counts_over_all_successors(bus: EventBus) -> None:
    fill(bus.producer(0), 1, 4)
    for _ in range(3):
        with Peer(bus) as one:
            one.ask(claim_consumer)
            assert one.ask(lease) == [1, 2, 3, 4]
            one.kill()
    successor = bus.consumer(0)
    assert successor.stats().redelivered == 12
    assert list(successor.drain()) == events(1, 4)
    assert producer_room(bus) == 0


def producer_room(bus: EventBus) -> int:
    return bus.stats()[0].producer.slots_in_use


def test_a_successor_of_a_successor_gets_again_what_is_held_then(bus: EventBus) -> None:
    producer = bus.producer(0)
    fill(producer, 1, 6)
    with Peer(bus) as one:
        one.ask(claim_consumer)
        one.ask(lease, 2)
        one.ask(lease, 2)
        one.ask(release, 0)
        one.kill()
    with Peer(bus) as two:
        two.ask(claim_consumer)
        assert two.ask(lease, 1) == [3]
        # What is delivered again need not be contiguous in the store, so a lease may be shorter than asked.
        assert two.ask(lease, 1) == [4]
        assert two.ask(drain, 1) == [5]
        two.ask(release, 0)
        two.kill()
    successor = bus.consumer(0)
    assert list(successor.drain()) == [event(4), event(6)]
    assert successor.stats().redelivered == 3


@pytest.mark.parametrize("seed", range(8))
def test_any_history_of_leases_is_redelivered_exactly(seed: int, make_bus: BusMaker) -> None:
    chance = random.Random(seed)
    capacity = chance.choice([1, 2, 4, 8, 16])
    bus = make_bus(1, capacity, arena_bytes=chance.choice([200, 1000]))
    producer = bus.producer(0)
    outstanding: list[int] = []  # emitted and not released, in order of position
    redelivered = 0
    number = 1
    for _ in range(5):
        with Peer(bus) as one:
            one.ask(claim_consumer)
            held: list[list[int]] = []
            waiting = list(outstanding)
            for _ in range(chance.randrange(25)):
                choice = chance.random()
                if choice < 0.4:
                    if producer.emit(sized(number, chance.randrange(80))):
                        outstanding.append(number)
                        waiting.append(number)
                    number += 1
                elif choice < 0.65:
                    got = one.ask(lease, chance.randrange(1, 5))
                    assert got == waiting[: len(got)]
                    assert bool(got) == bool(waiting)
                    waiting = waiting[len(got) :]
                    held.append(got)
                elif choice < 0.9 and held:
                    which = chance.randrange(len(held))
                    one.ask(release, which)
                    outstanding = [each for each in outstanding if each not in held[which]]
                    del held[which]
                elif choice >= 0.9:
                    got = one.ask(drain, chance.randrange(1, 3))
                    assert got == waiting[: len(got)]
                    waiting = waiting[len(got) :]
                    outstanding = [each for each in outstanding if each not in got]
            redelivered += sum(map(len, held))
            one.kill()
    consumer = bus.consumer(0)
    assert consumer.stats().redelivered == redelivered
    batch = consumer.drain()
    assert sequences(batch) == outstanding
    for each in batch:
        assert each == sized(each.sequence, len(each.new_value or b""))
    assert producer.utilization == 0


def test_both_ends_may_die_and_be_succeeded(bus: EventBus) -> None:
    with Peer(bus) as one, Peer(bus) as two:
        one.ask(claim_producer)
        two.ask(claim_consumer)
        assert one.ask(emit, 1, 8) == [True] * 8
        assert two.ask(lease, 3) == [1, 2, 3]
        one.kill()
        two.kill()
    with Peer(bus) as one, Peer(bus) as two:
        two.ask(claim_consumer)
        one.ask(claim_producer)
        assert one.ask(next_sequence) == 9
        assert one.ask(emit, 9, 16) == [True] * 8
        assert two.ask(drain) == list(range(1, 17))
        assert bus.stats()[0].consumer.redelivered == 3


def test_one_process_may_hold_both_ends_and_die(bus: EventBus) -> None:
    with Peer(bus) as one:
        one.ask(claim_producer)
        one.ask(claim_consumer)
        one.ask(emit, 1, 4)
        assert one.ask(lease, 2) == [1, 2]
        one.kill()
    assert bus.producer(0).next_sequence == 5
    assert list(bus.consumer(0).drain()) == events(1, 4)


def test_a_successor_belongs_to_its_own_first_thread(bus: EventBus) -> None:
    first = bus.producer(0)
    fill(first, 1, 1)
    first.close()
    second = bus.producer(0)
    assert in_thread(lambda: second.emit(event(2)))
    with pytest.raises(OwnershipError):
        second.emit(event(3))
    assert list(bus.consumer(0).drain()) == events(1, 2)
