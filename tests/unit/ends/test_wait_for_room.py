"""wait_for_room: when it returns, what it refuses, and waits for a consumer of another process."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from nodedb_ring import BusyError, ClosedError, EventBus, EventTooLargeError, OwnershipError, RoleTaken
from tests.unit.builders import batch, event, fill, ring, sequences, sized
from tests.unit.runners import Running, in_thread
from tests.unit.shared_buses import Held, Peer, claim_consumer, claim_producer, close_consumer, drain, lease, release

from .full_rings import WAITS, full
from .test_waiting import on_signal, send, when_main_sleeps

# wait_for_room


@pytest.mark.parametrize("timeout", [None, 0, 0.01, 3600])
def test_room_that_is_there(timeout: float | None) -> None:
    producer, _consumer = ring(4)
    assert producer.wait_for_room(4, timeout)
    fill(producer, 1, 3)
    assert producer.wait_for_room(timeout=timeout)
    assert producer.stats().emitted_sequence == 3


def test_room_that_does_not_come() -> None:
    producer, consumer = full()
    assert not producer.wait_for_room(1, 0)
    started = time.monotonic()
    assert not producer.wait_for_room(1, 0.05)
    assert time.monotonic() - started >= 0.05
    consumer.drain(2)
    assert producer.wait_for_room(2, 0)
    assert not producer.wait_for_room(3, 0)
    assert producer.stats().dropped == 0


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_it_returns_when_there_is_room_for_all_and_it_stays(n: int) -> None:
    producer, consumer = full()

    def wait() -> int:
        producer.bind()
        assert producer.wait_for_room(n)
        with producer.reserve(n) as rows:
            rows["op"] = 1
            return len(rows)

    waiter = Running(wait)
    for _ in range(n):
        waiter.until_asleep()
        assert len(consumer.drain(1)) == 1
    assert waiter.result() == n


def test_room_for_payload() -> None:
    producer, consumer = ring(16, arena_bytes=100)
    assert producer.emit(sized(1, 40))
    assert producer.emit(sized(2, 40))
    assert producer.wait_for_room(1, 0, payload_bytes=20)
    assert not producer.wait_for_room(1, 0, payload_bytes=21)
    assert len(consumer.drain(1)) == 1
    # Behind the second there are 20 bytes still, and before it 40.
    assert producer.wait_for_room(2, 0, payload_bytes=40)
    assert not producer.wait_for_room(2, 0, payload_bytes=41)
    assert producer.emit(sized(3, 40))
    assert len(consumer.drain()) == 2
    assert producer.wait_for_room(16, 0, payload_bytes=100)
    assert producer.emit(sized(4, 100))


@pytest.mark.parametrize("n", [0, -1, 5, 2**70])
def test_more_than_the_ring_could_ever_have_is_refused(n: int) -> None:
    producer, _consumer = ring(4)
    with pytest.raises(ValueError, match=f"n {n}.*4"):
        producer.wait_for_room(n, 0)


def test_payload_that_could_never_fit_is_refused() -> None:
    producer, _consumer = ring(4, arena_bytes=100)
    with pytest.raises(EventTooLargeError, match=r"101.*100"):
        producer.wait_for_room(1, 0, payload_bytes=101)
    with pytest.raises(ValueError, match="-1"):
        producer.wait_for_room(1, 0, payload_bytes=-1)


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("timeout", [-1, -math.inf, math.nan])
def test_a_timeout_below_0_or_nan_is_refused(wait: Callable[..., object], timeout: float) -> None:
    producer, _consumer = ring()
    with pytest.raises(ValueError, match=str(timeout)):
        wait(producer, timeout)
    assert producer.stats().emitted == 0


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("timeout", ["soon", [1]])
def test_a_timeout_is_a_number(wait: Callable[..., object], timeout: Any) -> None:
    producer, _consumer = ring()
    with pytest.raises(TypeError):
        wait(producer, timeout)


@pytest.mark.parametrize("wait", WAITS)
def test_a_wrong_thread_a_reservation_and_a_closed_end_are_refused(wait: Callable[..., object]) -> None:
    producer, _consumer = full()
    with pytest.raises(OwnershipError):
        in_thread(lambda: wait(producer, 0))
    with producer.reserve(1), pytest.raises(BusyError, match="reservation"):
        wait(producer, 0)
    producer.close()
    with pytest.raises(ClosedError):
        wait(producer, 0)


@pytest.mark.parametrize("wait", WAITS)
def test_a_waiter_is_not_bound_away(wait: Callable[..., object]) -> None:
    producer, consumer = full()

    def bind_and_wait() -> object:
        producer.bind()
        return wait(producer, None)

    waiter = Running(bind_and_wait)
    waiter.until_asleep()
    with pytest.raises(BusyError, match="waits for room"):
        producer.bind()
    with pytest.raises(OwnershipError):
        producer.emit(event(9))
    consumer.drain()
    assert waiter.result()
    producer.bind()


# between processes


def emit_waiting(held: Held, first: int, last: int, timeout: float | None) -> int:
    return held.producer.emit_batch(batch(first, last), timeout)


def wait_for_room(held: Held, n: int, timeout: float | None) -> bool:
    return held.producer.wait_for_room(n, timeout)


def test_a_consumer_in_another_process_makes_room(bus: EventBus) -> None:
    with Peer(bus) as other, bus.producer(0) as producer:
        other.ask(claim_consumer)
        for first in range(1, 161, 16):
            fill(producer, first, first + 15)
            waiter = when_main_sleeps(lambda: other.post(drain))
            assert producer.wait_for_room(16)
            waiter.result()
            assert other.answer() == list(range(first, first + 16))


@pytest.mark.parametrize("kind", ["waits", "polls"])
def test_a_stream_through_a_small_shared_ring_arrives_whole(kind: str, bus: EventBus) -> None:
    with Peer(bus) as other, bus.consumer(0) as consumer:
        other.ask(claim_producer)
        other.post(emit_waiting, 1, 5000, None)
        seen: list[int] = []
        while len(seen) < 5000:
            seen += sequences(consumer.drain(5, None if kind == "waits" else 0.0))
        assert seen == list(range(1, 5001))
        assert other.answer() == 5000


@pytest.mark.parametrize("how", ["dies", "closes"])
def test_a_consumer_of_another_process_that_goes_ends_the_wait(how: str, bus: EventBus) -> None:
    with Peer(bus) as other, bus.producer(0) as producer:
        other.ask(claim_consumer)
        fill(producer, 1, 16)
        goer = when_main_sleeps(other.kill if how == "dies" else lambda: other.post(close_consumer))
        assert producer.emit_batch(batch(17, 20), timeout=None) == 0
        goer.result()
        assert producer.is_consumer_disconnected
        assert producer.stats().dropped_disconnected == 4


def test_a_consumer_that_has_not_come_yet_is_waited_for(bus: EventBus) -> None:
    with Peer(bus) as other:
        other.ask(claim_producer)
        other.post(emit_waiting, 1, 100, None)
        consumer = bus.consumer(0)
        seen: list[int] = []
        while len(seen) < 100:
            seen += sequences(consumer.drain(timeout=None))
        assert seen == list(range(1, 101))
        assert other.answer() == 100


def test_a_release_wakes_it_as_a_drain_does(bus: EventBus) -> None:
    with Peer(bus) as other, bus.producer(0) as producer:
        other.ask(claim_consumer)
        fill(producer, 1, 16)
        assert other.ask(lease) == list(range(1, 17))
        waiter = when_main_sleeps(lambda: other.post(release, 0))
        assert producer.wait_for_room(16)
        waiter.result()


def test_a_successor_s_releases_wake_a_producer_that_waits_on(bus: EventBus) -> None:
    """The dead consumer's end is taken over before the producer's next check for it."""
    with bus.producer(0) as producer, Peer(bus) as second:
        fill(producer, 1, 16)

        def take_over() -> None:
            second.ask(claim_consumer)
            assert second.ask(drain) == list(range(1, 17))

        waiter = when_main_sleeps(take_over)
        # The successor stays until this has returned: one that has gone again would end the wait, too.
        assert producer.wait_for_room(16)
        waiter.result()


def test_the_role_is_kept_while_a_call_waits(bus: EventBus) -> None:
    """A successor beside a call that has not returned would write where that does."""
    producer = bus.producer(0)
    fill(producer, 1, 16)
    refused: list[RoleTaken] = []

    def close_and_claim() -> None:
        producer.close()
        with pytest.raises(RoleTaken) as raised:
            bus.producer(0)
        refused.append(raised.value)

    with on_signal(signal.SIGUSR1, close_and_claim):
        sender = when_main_sleeps(send(signal.SIGUSR1))
        assert producer.emit_batch(batch(17, 18), timeout=None) == 0
        sender.result()
    assert len(refused) == 1
    with bus.producer(0) as successor:
        assert successor.next_sequence == 17
