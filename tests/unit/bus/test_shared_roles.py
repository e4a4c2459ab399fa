"""Each end of a shared ring has one live holder: how a claim is refused, and how it ends."""

from __future__ import annotations

import functools
import os
import pickle
import signal
import threading
from typing import Any

import pytest

from nodedb_ring import EventBus, OwnershipError, RoleTaken
from tests.unit.builders import events, fill, sequences
from tests.unit.ends.end_calls import kind_of
from tests.unit.runners import in_child, in_thread
from tests.unit.shared_buses import BusMaker, Peer, claim_consumer, close_consumer, drain, emit, lease, refusal, release

from .claims import (
    ROLES,
    End,
    assert_taken,
    claim,
    claim_there,
    claims_of,
    close_there,
    pid_of,
)

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
