"""``bind()`` handed around among threads that all call the end: one at a time is in the ring, and no event is lost."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Final

import pytest

from nodedb_ring import BusyError, EventBatch, EventConsumer, EventProducer, OwnershipError, create_event_bus
from tests.unit.builders import event, events, sequences

from . import watchdog
from .contention import eager_switches, rounds

SLOTS: Final = 16
ARENA: Final = 1024
THREADS: Final = 3
EVENTS: Final = rounds(20_000, with_gil=600)


def emit(producer: EventProducer, first: int) -> int:
    return producer.emit(event(first))


def emit_batch(producer: EventProducer, first: int) -> int:
    return producer.emit_batch(EventBatch.from_events(events(first, first + 2)))


def reserve(producer: EventProducer, first: int) -> int:
    with producer.reserve(3) as rows:
        rows["op"] = 1
    return rows.published


def wait_and_emit(producer: EventProducer, first: int) -> int:
    return producer.wait_for_room(1, timeout=0.0001) and producer.emit(event(first))


EMITTING: Final[dict[str, Callable[[EventProducer, int], int]]] = {
    "emit": emit,
    "emit_batch": emit_batch,
    "reserve": reserve,
    "wait_for_room": wait_and_emit,
}


def drain(consumer: EventConsumer) -> list[int]:
    return sequences(consumer.drain(3))


def receive(consumer: EventConsumer) -> list[int]:
    taken = consumer.try_recv()
    return [] if taken is None else [taken.sequence]


def lease(consumer: EventConsumer) -> list[int]:
    with consumer.lease(3) as batch:
        return sequences(batch)


def wait_and_drain(consumer: EventConsumer) -> list[int]:
    return sequences(consumer.drain(3, timeout=0.0001))


TAKING: Final[dict[str, Callable[[EventConsumer], list[int]]]] = {
    "drain": drain,
    "try_recv": receive,
    "lease": lease,
    "waiting": wait_and_drain,
}


class Traffic:
    """Several threads at each end; each makes the end its own again and again, without asking the others."""

    def __init__(self) -> None:
        [self.producer], [self.consumer] = create_event_bus(1, SLOTS, arena_bytes=ARENA)
        self.is_over = False
        self.takers: set[int] = set()
        """The threads that have got something."""

    def emitting(self, call: Callable[[EventProducer, int], int]) -> int:
        """How many events the ring took from this thread."""
        taken, producer = 0, self.producer
        while not self.is_over:
            try:
                producer.bind()
                # If another thread binds and emits from here on, the number is old, and the call is refused.
                first = producer.next_sequence
                taken += call(producer, first)
            except (OwnershipError, BusyError):
                continue
            if first > EVENTS:
                break
        return taken

    def taking(self, call: Callable[[EventConsumer], list[int]]) -> list[list[int]]:
        """What this thread got, call by call."""
        got: list[list[int]] = []
        while not self.consumer.is_producer_disconnected and not self.is_over:
            try:
                self.consumer.bind()
                got.append(call(self.consumer))
            except (OwnershipError, BusyError):
                continue
            if got[-1]:
                self.takers.add(threading.get_ident())
        return [each for each in got if each]

    def emitting_all(self) -> list[list[int]]:
        """All events, one by one, from one thread, until the end has changed hands, too; how many they were."""
        sent = 0
        while (sent < EVENTS // 2 or len(self.takers) < 2) and not self.is_over:
            sent += self.producer.emit(event(sent + 1))
        self.producer.close()
        return [[sent]]

    def stop(self) -> None:
        self.is_over = True


def in_order(calls: list[list[int]]) -> list[int]:
    """All that was got: each call's numbers rise, and lie between those of two others."""
    numbers = [number for call in sorted(calls) for number in call]
    assert numbers == sorted(set(numbers)), "an event came twice, or two calls were in the ring at once"
    return numbers


@pytest.mark.parametrize("call", [*EMITTING, "all"])
def test_the_producer_is_handed_around(call: str) -> None:
    traffic = Traffic()
    kinds = list(EMITTING.values())[:THREADS] if call == "all" else [EMITTING[call]] * THREADS
    done: list[None] = []

    def emitting(kind: Callable[[EventProducer, int], int]) -> list[list[int]]:
        taken = traffic.emitting(kind)
        done.append(None)
        if len(done) == THREADS:
            traffic.producer.close()
        return [[taken]]

    with eager_switches():
        *takens, got = watchdog.run(
            *(lambda kind=kind: emitting(kind) for kind in kinds),
            lambda: traffic.taking(drain),
            progress=lambda: traffic.producer.stats().emitted_sequence,
            stop=traffic.stop,
        )
    stats = traffic.producer.stats()
    numbers = in_order(got)
    # In the order in which they came, too: there is one consumer.
    assert [number for each in got for number in each] == numbers
    assert len(numbers) == sum(taken for [[taken]] in takens) == stats.emitted
    assert traffic.consumer.stats().received == stats.emitted
    assert (stats.slots_in_use, stats.bytes_in_use) == (0, 0)


@pytest.mark.parametrize("call", [*TAKING, "all"])
def test_the_consumer_is_handed_around(call: str) -> None:
    traffic = Traffic()
    kinds = list(TAKING.values())[:THREADS] if call == "all" else [TAKING[call]] * THREADS

    with eager_switches():
        [[[sent]], *got] = watchdog.run(
            traffic.emitting_all,
            *(lambda kind=kind: traffic.taking(kind) for kind in kinds),
            progress=lambda: traffic.consumer.stats().received,
            stop=traffic.stop,
        )
    assert in_order([each for thread in got for each in thread]) == list(range(1, sent + 1))
    stats = traffic.consumer.stats()
    assert (stats.received, stats.held) == (sent, 0)


def test_the_consumer_is_handed_around_while_batches_are_dropped_elsewhere() -> None:
    """Memory for a batch is taken in the middle of a drain: whoever gives some back meanwhile must not open the end."""
    traffic = Traffic()
    dropped: list[EventBatch] = []

    def drain_and_hand_on(consumer: EventConsumer) -> list[int]:
        found = consumer.drain(3)
        numbers = sequences(found)
        dropped.append(found)
        return numbers

    def drop() -> list[list[int]]:
        while not traffic.consumer.is_producer_disconnected and not traffic.is_over:
            with contextlib.suppress(IndexError):
                dropped.pop()
        return []

    with eager_switches():
        [[[sent]], *got] = watchdog.run(
            traffic.emitting_all,
            *[lambda: traffic.taking(drain_and_hand_on)] * 2,
            drop,
            drop,
            progress=lambda: traffic.consumer.stats().received,
            stop=traffic.stop,
        )
    assert in_order([each for thread in got for each in thread]) == list(range(1, sent + 1))
    assert traffic.consumer.stats().received == sent
