"""Cores made and dropped by several threads at once: everything is given back, and no core sees another's."""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from nodedb_ring import EventBus, EventConsumer, EventProducer, create_event_bus
from tests.unit.builders import event, sequences

from .contention import Contest, rounds
from .journal import memory_directory

THREADS: Final = 4
CORES: Final = 25
"""Of each thread, and so a hundred at once."""

Made = tuple[list[EventProducer], list[EventConsumer]]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def mappings() -> int:
    """Mappings of the size of a page or more that rings could have made."""
    return len(Path("/proc/self/maps").read_text().splitlines())


def use(made: Made, first: int) -> None:
    """Each core gets numbers of its own, and gives them back."""
    producers, consumers = made
    for producer in producers:
        number = first + producer.core_id
        assert producer.emit(event(number))
        assert producer.emit(event(number + 1))
    for consumer in consumers:
        number = first + consumer.core_id
        assert sequences(consumer.drain(1)) == [number]
        with consumer.lease() as batch:
            assert sequences(batch) == [number + 1]


class Exchange:
    """Cores that one thread has made and another drops."""

    def __init__(self) -> None:
        self.left: list[Made] = []


def make(number: int, cores: int) -> Callable[[Exchange], None]:
    def call(exchange: Exchange) -> None:
        made = create_event_bus(cores, 4, arena_bytes=256)
        use(made, 1 + number * 1000)
        # The ends are dropped here, in disorder, or by whoever comes next.
        producers, consumers = made
        if number % 2:
            del producers[::2], consumers[1::2]
        exchange.left.append(made)
        del made, producers, consumers
        exchange.left.pop(0)

    return call


def test_a_hundred_private_cores_are_made_and_dropped() -> None:
    def check(exchange: Exchange, results: list[Any]) -> None:
        assert results == [None] * THREADS, results
        assert not exchange.left

    def run(count: int) -> None:
        Contest([make(number, CORES) for number in range(THREADS)], prepare=lambda _: Exchange(), check=check).run(
            count
        )

    run(2)
    gc.collect()
    before = descriptors(), mappings()
    run(rounds(300, with_gil=10))
    gc.collect()
    assert descriptors() == before[0]
    # Stacks of threads and the allocator's own come and go; those of a hundred cores would be two hundred.
    assert mappings() < before[1] + CORES


def test_cores_of_shared_buses_are_made_and_dropped() -> None:
    with memory_directory() as directory:

        def make(number: int) -> Callable[[list[int]], None]:
            def call(_: list[int]) -> None:
                name = f"cores-{number}"
                with EventBus.create(name, 5, 4, arena_bytes=256, directory=directory) as bus:
                    made = [bus.producer(core_id) for core_id in range(5)], bus.consumers()
                    use(made, 1 + number * 1000)
                    assert [stats.lag for stats in bus.stats()] == [0] * 5
                    bus.unlink()
                # Some are closed, some collected, all after their bus was closed.
                made[0][0].close()
                made[1][1].close()

            return call

        def check(_: list[int], results: list[Any]) -> None:
            assert results == [None] * THREADS, results

        def run(count: int) -> None:
            Contest([make(number) for number in range(THREADS)], prepare=lambda _: [0], check=check).run(count)

        run(2)
        gc.collect()
        before = descriptors(), mappings()
        run(rounds(200, with_gil=10))
        gc.collect()
        assert descriptors() == before[0]
        assert mappings() < before[1] + CORES
        assert EventBus.list(directory=directory) == []
        assert list(directory.iterdir()) == []


@pytest.mark.parametrize("end", ["producer", "consumer"])
def test_an_end_that_is_dropped_has_gone(end: str) -> None:
    """The last reference to it goes in one of several threads; the other end sees that, and all that was emitted."""

    class Shared:
        def __init__(self, _: int) -> None:
            [producer], [consumer] = create_event_bus(1, 8, arena_bytes=256)
            for number in range(1, 5):
                assert producer.emit(event(number))
            self.stays: EventProducer | EventConsumer = consumer if end == "producer" else producer
            dropped = producer if end == "producer" else consumer
            self.references: list[list[EventProducer | EventConsumer]] = [[dropped] for _ in range(THREADS)]

        def drop(self, number: int) -> None:
            self.references[number].clear()

    def check(subject: Shared, results: list[Any]) -> None:
        assert results == [None] * THREADS
        gc.collect()
        if isinstance(subject.stays, EventConsumer):
            assert not subject.stays.is_producer_disconnected
            assert sequences(subject.stays.drain()) == [1, 2, 3, 4]
            assert subject.stays.is_producer_disconnected
        else:
            assert subject.stays.is_consumer_disconnected
            subject.stays.bind()
            assert not subject.stays.emit(event(5))

    Contest(
        [functools.partial(Shared.drop, number=number) for number in range(THREADS)],
        prepare=Shared,
        check=check,
    ).run(rounds(300, with_gil=10))
