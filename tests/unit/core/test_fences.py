"""Who passes the fence before a reader sleeps: the reader by its membarrier, or the producer if it sleeps often."""

from __future__ import annotations

import os
import time

import pytest

from nodedb_ring import EventBus
from tests.unit.builders import fill, sequences
from tests.unit.sandbox import Refusal, refused_from_here_on
from tests.unit.shared_buses import (
    SLEEPS_OFTEN,
    WAITING,
    WAITING_THREAD,
    WAKER_CPU,
    WAKER_FENCES,
    BusMaker,
    Held,
    Peer,
    claim_consumer,
    drain,
    header_word,
    set_header_word,
)

OFTEN = 2
"""Sleeps after few events, one after the other, that make a reader one that sleeps often."""

FEW_EVENTS = 64
MOST_FENCES = 256


def sleep(held: Held) -> None:
    assert len(held.consumer.drain(timeout=0.001)) == 0


def refuse_membarrier(_held: Held) -> None:
    refused_from_here_on(Refusal("membarrier"))


def drain_at_last(held: Held) -> list[int]:
    return sequences(held.consumer.drain(timeout=None))


@pytest.fixture
def wide(make_bus: BusMaker) -> EventBus:
    return make_bus(1, 1024)


def test_a_reader_that_sleeps_after_few_events_asks_for_the_fence(wide: EventBus) -> None:
    producer, consumer = wide.producer(0), wide.consumer(0)
    for number in range(1, OFTEN + 1):
        assert header_word(wide, WAITING) == 0
        fill(producer, number, number)
        assert sequences(consumer.drain()) == [number]
        assert len(consumer.drain(timeout=0.001)) == 0
    assert header_word(wide, WAITING) == SLEEPS_OFTEN


def test_one_that_sleeps_after_many_does_not(wide: EventBus) -> None:
    producer, consumer = wide.producer(0), wide.consumer(0)
    for turn in range(2 * OFTEN):
        first = turn * (FEW_EVENTS + 1) + 1
        fill(producer, first, first + FEW_EVENTS)
        assert len(consumer.drain()) == FEW_EVENTS + 1
        assert len(consumer.drain(timeout=0.001)) == 0
    assert header_word(wide, WAITING) == 0


def test_the_producer_takes_it_back_when_nobody_sleeps_any_more(wide: EventBus) -> None:
    producer, consumer = wide.producer(0), wide.consumer(0)
    for _ in range(OFTEN):
        assert len(consumer.drain(timeout=0.001)) == 0
    fill(producer, 1, MOST_FENCES - 1)
    assert header_word(wide, WAITING) == SLEEPS_OFTEN
    fill(producer, MOST_FENCES, MOST_FENCES)
    assert header_word(wide, WAITING) == 0
    # The reader sleeps with its membarrier again, until it has slept often once more.
    assert len(consumer.drain()) == MOST_FENCES
    assert len(consumer.drain(timeout=0.001)) == 0
    assert header_word(wide, WAITING) == 0
    for _ in range(OFTEN):
        assert len(consumer.drain(timeout=0.001)) == 0
    assert header_word(wide, WAITING) == SLEEPS_OFTEN


def test_a_wake_begins_the_count_again(wide: EventBus) -> None:
    producer = wide.producer(0)
    with Peer(wide) as other:
        other.ask(claim_consumer)
        for _ in range(OFTEN):
            other.ask(sleep)
        fill(producer, 1, MOST_FENCES - 1)
        assert len(other.ask(drain)) == MOST_FENCES - 1
        other.post(drain_at_last)
        while not header_word(wide, WAITING) & WAITING_THREAD:
            time.sleep(0.001)
        fill(producer, MOST_FENCES, MOST_FENCES)
        assert other.answer() == [MOST_FENCES]
        fill(producer, MOST_FENCES + 1, 2 * MOST_FENCES - 1)
        assert header_word(wide, WAITING) & SLEEPS_OFTEN
        fill(producer, 2 * MOST_FENCES, 2 * MOST_FENCES)
        assert not header_word(wide, WAITING) & SLEEPS_OFTEN


@pytest.mark.parametrize("sleeps", [0, 1, OFTEN])
def test_the_membarrier_is_left_out_once_the_producer_is_known_to_fence(wide: EventBus, sleeps: int) -> None:
    """One that is refused says so in the word: so it shows who asked for one."""
    with Peer(wide) as other:
        other.ask(claim_consumer)
        for _ in range(sleeps):
            other.ask(sleep)
        other.ask(refuse_membarrier)
        other.ask(sleep)
        # The sleep that asks for the fence for the first time has a membarrier too.
        expected = {0: WAKER_FENCES, 1: WAKER_FENCES | SLEEPS_OFTEN, OFTEN: SLEEPS_OFTEN}
        assert header_word(wide, WAITING) == expected[sleeps]


def test_a_successor_begins_anew(wide: EventBus) -> None:
    with wide.consumer(0) as consumer:
        for _ in range(OFTEN):
            assert len(consumer.drain(timeout=0.001)) == 0
        assert header_word(wide, WAITING) == SLEEPS_OFTEN
    with wide.consumer(0):
        assert header_word(wide, WAITING) == 0


def test_a_reader_does_not_poll_on_the_processor_that_wakes_it(wide: EventBus) -> None:
    here = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    producer = wide.producer(0)
    with Peer(wide) as other:
        other.ask(claim_consumer)
        other.ask(stay_on, here)
        os.sched_setaffinity(0, {here})
        try:
            other.post(drain_at_last)
            while not header_word(wide, WAITING) & WAITING_THREAD:
                time.sleep(0.001)
            fill(producer, 1, 1)
            assert other.answer() == [1]
            assert header_word(wide, WAKER_CPU) == here + 1
            # Of the second that it waits: it may poll an eighth at least where the producer is elsewhere.
            assert other.ask(processor_time_of_waits) < 0.05
            set_header_word(wide, WAKER_CPU, 0)
            assert other.ask(processor_time_of_waits) > 0.1
        finally:
            os.sched_setaffinity(0, before)


def stay_on(_held: Held, processor: int) -> None:
    os.sched_setaffinity(0, {processor})


def processor_time_of_waits(held: Held) -> float:
    held.consumer.spin = 0.01
    before = time.process_time()
    for _ in range(50):
        assert len(held.consumer.drain(timeout=0.02)) == 0
    return time.process_time() - before
