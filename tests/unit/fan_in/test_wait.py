"""wait: which ends have something or have ended, what wakes it, and which ends it refuses."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

from nodedb_ring import (
    ArgumentError,
    ClosedError,
    CorruptRingError,
    EventConsumer,
    ForkError,
    OwnershipError,
    create_event_bus,
    wait,
)
from tests.unit.builders import event, fill, ring, sequences
from tests.unit.bus.waiters import is_silent, producing_peer, readable
from tests.unit.runners import Running, in_child, in_new_interpreter, in_thread
from tests.unit.sandbox import Refusal, refusing
from tests.unit.shared_buses import (
    SLEEPS_OFTEN,
    WAITING,
    WAITING_FD,
    WAITING_GATE,
    WAITING_THREAD,
    BusMaker,
    emit,
    header_word,
    set_header_word,
)

from .many import KINDS, rings, taken_over

kinds = pytest.mark.parametrize("kind", KINDS)


def places(ends: list[EventConsumer], timeout: float | None = None) -> list[int]:
    """Where in the list those are that are ready."""
    return [ends.index(end) for end in wait(ends, timeout)]


def take_over_and_wait(ends: list[EventConsumer], timeout: float | None = None) -> Running[list[int]]:
    return taken_over(ends, lambda: places(ends, timeout))


# what is ready


@kinds
def test_all_that_are_ready_in_the_order_given(kind: str, make_bus: BusMaker) -> None:
    producers, consumers = rings(kind, make_bus)
    for place in (3, 1):
        fill(producers[place], 1, 2)
    assert places(consumers) == [1, 3]
    assert wait(reversed(consumers)) == [consumers[3], consumers[1]]
    # It takes nothing, and returns them until they are drained.
    assert len(consumers[1].drain(1)) == 1
    assert places(consumers) == [1, 3]
    assert [len(consumers[place].drain()) for place in (1, 3)] == [1, 2]
    assert wait(consumers, 0) == []


@kinds
def test_an_end_that_has_ended_is_returned_each_time(kind: str, make_bus: BusMaker) -> None:
    producers, consumers = rings(kind, make_bus)
    producers[2].close()
    for _ in range(3):
        assert places(consumers) == [2]


def test_a_closed_end_has_ended() -> None:
    _producers, consumers = create_event_bus(3, 16)
    consumers[1].close()
    assert places(consumers) == [1]
    with pytest.raises(ClosedError):
        consumers[1].drain()


def test_an_end_with_a_lease_out_and_nothing_else_is_not_ready() -> None:
    producers, consumers = create_event_bus(2, 16)
    fill(producers[0], 1, 1)
    with consumers[0].lease():
        assert wait(consumers, 0) == []
        fill(producers[0], 2, 2)
        assert places(consumers) == [0]


def test_no_ends_are_ready_at_once() -> None:
    assert wait([], None) == []


def test_ends_may_change_between_two_calls() -> None:
    producers, consumers = create_event_bus(2, 16)
    fill(producers[0], 1, 1)
    assert wait(consumers[1:], 0) == []
    assert wait(consumers) == consumers[:1]
    other_producer, other = ring()
    fill(other_producer, 1, 1)
    assert wait([*consumers, other]) == [consumers[0], other]


# what wakes it


@kinds
def test_an_event_of_any_core_wakes_it(kind: str, make_bus: BusMaker, sleep: str) -> None:
    producers, consumers = rings(kind, make_bus)
    for number in (1, 2):
        for place, producer in enumerate(producers):
            waiter = take_over_and_wait(consumers)
            waiter.until_asleep()
            assert producer.emit(event(number))
            assert waiter.result() == [place]
            consumers[place].bind()
            assert sequences(consumers[place].drain()) == [number]


@kinds
def test_the_end_of_a_producer_wakes_it(kind: str, make_bus: BusMaker, sleep: str) -> None:
    producers, consumers = rings(kind, make_bus)
    for place, producer in enumerate(producers):
        waiter = take_over_and_wait(consumers[place:])
        waiter.until_asleep()
        producer.close()
        assert waiter.result() == [0]


@kinds
def test_closing_an_end_in_another_thread_wakes_it(kind: str, make_bus: BusMaker, sleep: str) -> None:
    _producers, consumers = rings(kind, make_bus)
    for place in range(len(consumers)):
        waiter = take_over_and_wait(consumers[place:])
        waiter.until_asleep()
        consumers[place].close()
        assert waiter.result() == [0]


def test_an_event_and_the_death_of_another_process_wake_it(make_bus: BusMaker, sleep: str) -> None:
    bus = make_bus(3)
    consumers = bus.consumers()
    with producing_peer(bus, 0), producing_peer(bus, 1) as other:
        waiter = take_over_and_wait(consumers)
        waiter.until_asleep()
        assert other.ask(emit, 1, 1) == [True]
        assert waiter.result() == [1]
        consumers[1].bind()
        assert sequences(consumers[1].drain()) == [1]
        waiter = take_over_and_wait(consumers)
        waiter.until_asleep()
        other.kill()
        assert waiter.result() == [1]


def test_a_death_is_noticed_beside_a_core_that_always_has_something(make_bus: BusMaker) -> None:
    bus = make_bus(2)
    consumers = bus.consumers()
    with producing_peer(bus, 1) as other:
        fill(bus.producer(0), 1, 1)
        assert places(consumers) == [0]
        other.kill()
        # No call of these sleeps.
        while places(consumers) != [0, 1]:
            pass


def test_a_wake_that_never_comes_is_made_up_for(make_bus: BusMaker, sleep: str) -> None:
    """The producer is killed or stopped between two steps: here its bit is taken, so it publishes without a wake."""
    bus = make_bus(2)
    producer, consumers = bus.producer(0), bus.consumers()
    waiter = take_over_and_wait(consumers)
    while not header_word(bus, WAITING):
        time.sleep(0.001)
    waiter.until_asleep()
    set_header_word(bus, WAITING, 0)
    fill(producer, 1, 1)
    assert waiter.result() == [0]


@kinds
def test_a_timeout_is_how_long_it_waits_at_least(kind: str, make_bus: BusMaker, sleep: str) -> None:
    _producers, consumers = rings(kind, make_bus)
    for timeout in (0.0, 0.01, 0.15):
        started = time.monotonic()
        assert wait(consumers, timeout) == []
        assert time.monotonic() - started >= timeout


def test_afterwards_no_producer_has_to_wake_anybody(make_bus: BusMaker, sleep: str) -> None:
    bus = make_bus(3)
    producer, consumers = bus.producer(0), bus.consumers()
    waiting = WAITING_THREAD | WAITING_FD | WAITING_GATE
    bit = {"gate": WAITING_GATE, "futexes": WAITING_THREAD, "epoll": WAITING_FD}[sleep]
    # By the end of the time, by an event of another core, and by one of this.
    assert wait(consumers, 0.001) == []
    assert header_word(bus, WAITING) & waiting == 0
    for core_id in (2, 0):
        waiter = take_over_and_wait(consumers)
        waiter.until_asleep()
        assert header_word(bus, WAITING) & ~SLEEPS_OFTEN == bit
        if core_id:
            consumers[core_id].close()
        else:
            fill(producer, 1, 1)
        assert waiter.result() == [core_id]
        assert header_word(bus, WAITING) & waiting == 0
        del consumers[core_id]


def test_it_sleeps_though_somebody_has_the_descriptors(make_bus: BusMaker, sleep: str) -> None:
    _producers, consumers = rings("mixed", make_bus)
    for consumer in consumers:
        consumer.fileno()
        consumer.spin = 0
    before = time.thread_time()
    assert wait(consumers, 1.0) == []
    # Of a second: one who spins uses all that the machine gives it.
    assert time.thread_time() - before < 0.2


def test_a_descriptor_is_signalled_after_it(make_bus: BusMaker, sleep: str) -> None:
    producers, consumers = rings("mixed", make_bus)
    for place, consumer in enumerate(consumers):
        consumer.fileno()
        assert wait(consumers, 0.001) == []
        assert is_silent(consumer)
        fill(producers[place], 1, 1)
        assert readable(consumer, 10)
        assert len(consumer.drain()) == 1


def test_more_rings_than_one_system_call_takes() -> None:
    producers, consumers = create_event_bus(130, 16, arena_bytes=64)
    waiter = take_over_and_wait(consumers)
    waiter.until_asleep()
    fill(producers[129], 1, 1)
    assert waiter.result() == [129]


@pytest.mark.parametrize("name", ["ENOSYS", "EPERM"])
def test_a_kernel_or_a_sandbox_without_futex_waitv(name: str, make_bus: BusMaker) -> None:
    import errno

    from nodedb_ring.fan_in import _wait_set

    def waits() -> list[list[int]]:
        producers, consumers = rings("private", make_bus)
        found: list[list[int]] = []
        for place in (0, 3):
            waiter = take_over_and_wait(consumers)
            waiter.until_asleep()
            fill(producers[place], 1, 1)
            found.append(waiter.result())
            consumers[place].bind()
            consumers[place].drain()
        assert _wait_set.most_futexes == 1
        return found

    assert refusing(Refusal("futex_waitv", getattr(errno, name)))(waits) == [[0], [3]]


def test_without_membarrier_the_producers_fence(make_bus: BusMaker, sleep: str) -> None:
    def waits() -> list[int]:
        producers, consumers = rings("private", make_bus)
        found: list[int] = []
        for number in range(1, 40):
            place = number % 4
            waiter = take_over_and_wait(consumers)
            waiter.until_asleep()
            fill(producers[place], number, number)
            found += waiter.result()
            consumers[place].bind()
            consumers[place].drain()
        return found

    assert refusing(Refusal("membarrier"))(waits) == [number % 4 for number in range(1, 40)]


def test_without_a_descriptor_left_it_sleeps_in_futexes() -> None:
    program = """
import resource, threading
from nodedb_ring import create_event_bus, wait
producers, consumers = create_event_bus(4, 16)
resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
assert wait(consumers, 0.01) == []
threading.Timer(0.01, producers[2].close).start()
assert wait(consumers) == [consumers[2]]
import nodedb_ring.fan_in._wait_set as wait_set
wait_set.most_futexes = 1
try:
    wait(consumers[:2])
except OSError as error:
    print(error)
# Nothing waits on them any more.
assert len(consumers[0].drain(timeout=0.001)) == 0
"""
    assert in_new_interpreter(program) == "[Errno 24] cannot make an eventfd: Too many open files\n"


# which ends it refuses


def test_another_threads_end_is_refused_before_anything_changes_hands(make_bus: BusMaker) -> None:
    _producers, consumers = rings("mixed", make_bus)
    in_thread(consumers[3].drain)
    for timeout in (None, 0):
        with pytest.raises(OwnershipError, match=f"consumer of core {consumers[3].core_id}: belongs to another thread"):
            wait(consumers, timeout)
    # The others are still anybody's.
    assert in_thread(lambda: wait(consumers[:3], 0)) == []
    with pytest.raises(OwnershipError):
        consumers[0].drain()


def test_the_ends_become_the_waiting_threads() -> None:
    _producers, consumers = create_event_bus(2, 16)
    assert wait(consumers, 0) == []
    with pytest.raises(OwnershipError, match="consumer of core 1"):
        in_thread(consumers[1].drain)


def test_an_inherited_end_is_refused() -> None:
    _, consumers = create_event_bus(2, 16)

    def child() -> str:
        with pytest.raises(ForkError, match="consumer of core 0") as raised:
            wait(consumers)
        return str(raised.value)

    assert "inherited by fork" in in_child(child)


def test_a_corrupt_ring_is_ready_and_hides_no_other(make_bus: BusMaker) -> None:
    bus = make_bus(2)
    producers = [bus.producer(core_id) for core_id in range(2)]
    consumers = bus.consumers()
    published = 128  # of core 0's header
    set_header_word(bus, published, 1 << 40, size=8)
    assert places(consumers) == [0]
    with pytest.raises(CorruptRingError):
        consumers[0].drain()
    # As if nothing were there: the end accepts no more calls, whatever the block says now.
    set_header_word(bus, published, 0, size=8)
    fill(producers[1], 1, 1)
    assert places(consumers) == [0, 1]
    assert len(consumers[1].drain()) == 1


def test_an_end_that_is_given_twice() -> None:
    _producers, consumers = create_event_bus(3, 16)
    with pytest.raises(ArgumentError, match=r"ends\[3\]: the consumer of core 1 is in the list twice"):
        wait([*consumers, consumers[1]])
    # Nothing of the refused call is left.
    assert wait(consumers, 0) == []


@pytest.mark.parametrize("wrong", ["producer", None, 3, "text"])
def test_what_is_no_end(wrong: object) -> None:
    [producer], [consumer] = create_event_bus(1, 16)
    ends: Any = [consumer, producer if wrong == "producer" else wrong]
    with pytest.raises(
        TypeError, match=rf"ends\[1\]: must be an EventConsumer or a Follower, not {type(ends[1]).__name__}"
    ):
        wait(ends)
    assert wait([consumer], 0) == []


def test_an_end_instead_of_a_list_is_not_iterated() -> None:
    [producer], [consumer] = create_event_bus(1, 16)
    fill(producer, 1, 1)
    alone: Any = consumer
    with pytest.raises(TypeError, match="pass \\[end\\]"):
        wait(alone)
    assert sequences(consumer.drain()) == [1]


@pytest.mark.parametrize("timeout", [-1, -math.inf, math.nan])
def test_a_timeout_below_0_or_nan_is_refused(timeout: float) -> None:
    producers, consumers = create_event_bus(2, 16)
    fill(producers[0], 1, 1)
    with pytest.raises(ArgumentError, match=str(timeout)):
        wait(consumers, timeout)


@pytest.mark.parametrize("timeout", [3600, 1e300, math.inf])
def test_a_long_timeout(timeout: float, sleep: str) -> None:
    producers, consumers = create_event_bus(2, 16)
    waiter = take_over_and_wait(consumers, timeout)
    waiter.until_asleep()
    fill(producers[1], 1, 1)
    assert waiter.result() == [1]


def test_the_shortest_spin_counts() -> None:
    _producers, consumers = create_event_bus(2, 16)
    consumers[0].spin = 0.01
    consumers[1].spin = 0.0
    before = time.thread_time()
    for _ in range(20):
        assert wait(consumers, 0.02) == []
    # Of 200 ms that the longer one would poll.
    assert time.thread_time() - before < 0.1


def test_a_producer_claimed_later_is_waited_for(make_bus: BusMaker, sleep: str) -> None:
    bus = make_bus(2)
    consumers = bus.consumers()
    assert wait(consumers, 0.001) == []
    with producing_peer(bus, 1) as other:
        waiter = take_over_and_wait(consumers)
        waiter.until_asleep()
        other.ask(emit, 1, 1)
        assert waiter.result() == [1]
