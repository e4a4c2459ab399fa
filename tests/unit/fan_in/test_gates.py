"""One futex for the sleep on many rings of a bus: whom it wakes, and what a damaged block does to it."""

from __future__ import annotations

import errno
import time

import pytest

from nodedb_ring import EventBus, EventConsumer, wait
from nodedb_ring.fan_in import _wait_set
from tests.unit.builders import fill
from tests.unit.runners import Running
from tests.unit.sandbox import Refusal, refusing
from tests.unit.shared_buses import (
    GATE,
    GATE_CORE,
    SLEEPS_OFTEN,
    WAITING,
    WAITING_GATE,
    BusMaker,
    header_word,
    set_header_word,
)

from .many import taken_over


def asleep_on(ends: list[EventConsumer]) -> Running[list[int]]:
    """A thread that waits on these ends, once it sleeps; it returns the cores that are ready."""
    waiter = taken_over(ends, lambda: [end.core_id for end in wait(ends)])
    waiter.until_asleep()
    return waiter


def test_each_wake_is_counted_once(make_bus: BusMaker) -> None:
    bus = make_bus(4)
    producers, consumers = [bus.producer(core_id) for core_id in range(4)], bus.consumers()
    for number in (1, 2, 3):
        waiter = asleep_on(consumers)
        assert (header_word(bus, WAITING) & ~SLEEPS_OFTEN, header_word(bus, GATE)) == (WAITING_GATE, number - 1)
        fill(producers[number], 1, 1)
        assert waiter.result() == [number]
        assert header_word(bus, GATE) == number
        consumers[number].bind()
        consumers[number].drain()
        # Nobody sleeps, so nobody is to be woken.
        fill(producers[number], 2, 2)
        assert header_word(bus, GATE) == number
        consumers[number].drain()


def test_two_readers_of_a_bus_are_woken_apart(make_bus: BusMaker) -> None:
    bus = make_bus(4)
    producers, consumers = [bus.producer(core_id) for core_id in range(4)], bus.consumers()
    first, second = asleep_on(consumers[:2]), asleep_on(consumers[2:])
    fill(producers[3], 1, 1)
    assert second.result() == [3]
    # The gate of the first reader is that of its first core.
    assert (header_word(bus, WAITING) & ~SLEEPS_OFTEN, header_word(bus, GATE)) == (WAITING_GATE, 0)
    fill(producers[1], 1, 1)
    assert first.result() == [1]
    assert header_word(bus, GATE) == 1


def test_the_close_of_an_end_opens_the_gate(make_bus: BusMaker) -> None:
    bus = make_bus(3)
    producers, consumers = [bus.producer(core_id) for core_id in range(3)], bus.consumers()
    waiter = asleep_on(consumers)
    producers[2].close()
    assert waiter.result() == [2]
    waiter = asleep_on(consumers[:2])
    consumers[1].close()
    assert waiter.result() == [1]


@pytest.mark.parametrize("core_id", [3, 2**32 - 1])
def test_a_gate_that_is_no_cores(make_bus: BusMaker, core_id: int) -> None:
    """Something else has written to the block: the producer goes on, and the waiter looks by itself."""
    bus = make_bus(3)
    producer, consumers = bus.producer(0), bus.consumers()
    waiter = asleep_on(consumers)
    set_header_word(bus, GATE_CORE, core_id)
    fill(producer, 1, 1)
    assert waiter.result() == [0]


def test_ends_of_a_bus_that_was_closed(make_bus: BusMaker) -> None:
    bus = make_bus(3)
    producers, consumers = [bus.producer(core_id) for core_id in range(3)], bus.consumers()
    path = bus.path
    bus.close()
    waiter = asleep_on(consumers)
    fill(producers[1], 1, 1)
    assert waiter.result() == [1]
    assert path.exists()


def test_rings_of_two_buses_have_no_gate(make_bus: BusMaker) -> None:
    one, other = make_bus(2), make_bus(2)
    producers = [bus.producer(1) for bus in (one, other)]
    consumers = [*one.consumers(), *other.consumers()]
    for place, producer in ((1, producers[0]), (3, producers[1])):
        waiter = asleep_on(consumers)
        assert header_word(one, WAITING) & WAITING_GATE == 0
        fill(producer, 1, 1)
        assert waiter.result() == [1]
        consumers[place].bind()
        consumers[place].drain()


def test_one_bus_that_was_opened_twice_has_no_gate(make_bus: BusMaker) -> None:
    bus = make_bus(2)
    with EventBus.open(bus.name, directory=bus.directory) as again:
        producer, consumers = bus.producer(1), [bus.consumer(0), again.consumer(1)]
        waiter = asleep_on(consumers)
        assert header_word(bus, WAITING) & WAITING_GATE == 0
        fill(producer, 1, 1)
        assert waiter.result() == [1]


def test_a_kernel_without_futex_waitv_has_gates(make_bus: BusMaker) -> None:
    def waits() -> list[int]:
        bus = make_bus(3)
        producer, consumers = bus.producer(1), bus.consumers()
        waiter = asleep_on(consumers)
        fill(producer, 1, 1)
        assert _wait_set.most_futexes > 1
        return waiter.result()

    assert refusing(Refusal("futex_waitv", errno.ENOSYS))(waits) == [1]


def test_a_wait_with_a_time_leaves_no_bit(make_bus: BusMaker) -> None:
    bus = make_bus(3)
    consumers = bus.consumers()
    started = time.monotonic()
    assert wait(consumers, 0.05) == []
    assert time.monotonic() - started >= 0.05
    assert header_word(bus, WAITING) & WAITING_GATE == 0
