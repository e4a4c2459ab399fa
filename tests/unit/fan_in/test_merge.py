"""merge: all batches of all consumers, each core in order, none starved, until all have ended."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from nodedb_ring import (
    ArgumentError,
    CorruptRingError,
    EventBatch,
    EventLoopError,
    EventProducer,
    Merger,
    OwnershipError,
    create_event_bus,
    merge,
)
from tests.unit.builders import batch, emit_with_pauses, event, fill, sequences
from tests.unit.bus.waiters import producing_peer
from tests.unit.runners import Running, in_thread
from tests.unit.shared_buses import WAITING, BusMaker, emit, header_word, set_header_word

from .many import KINDS, rings

kinds = pytest.mark.parametrize("kind", KINDS)


def numbers(merged: Merger, *, on_loop: bool = False) -> dict[int, list[int]]:
    """The numbers of each core, to the end."""
    found: dict[int, list[int]] = {}

    def add(core_id: int, each: EventBatch) -> None:
        assert len(each)
        found.setdefault(core_id, []).extend(sequences(each))

    async def collect() -> None:
        async for core_id, each in merged:
            add(core_id, each)

    if on_loop:
        asyncio.run(collect())
    else:
        for core_id, each in merged:
            add(core_id, each)
    return found


@pytest.mark.parametrize("on_loop", [False, True])
def test_all_events_to_the_end(on_loop: bool, sleep: str) -> None:
    producers, consumers = create_event_bus(4, 16)
    writers = [threading.Thread(target=write, args=(producer, 300)) for producer in producers]
    for writer in writers:
        writer.start()
    assert numbers(merge(consumers, 5), on_loop=on_loop) == {core: list(range(1, 301)) for core in range(4)}
    for writer in writers:
        writer.join()


def write(producer: EventProducer, count: int) -> None:
    with producer:
        emit_with_pauses(producer, count, every=100, seconds=0.001)


@pytest.mark.parametrize("on_loop", [False, True])
def test_other_processes_and_the_death_of_one(on_loop: bool, make_bus: BusMaker, sleep: str) -> None:
    bus = make_bus(3)
    consumers = bus.consumers()
    private_producers, private = create_event_bus(4, 16)
    fill(private_producers[3], 1, 2)
    with producing_peer(bus, 0) as one, producing_peer(bus, 1) as two:
        one.ask(emit, 1, 3)
        two.ask(emit, 1, 4)
        bus.producer(2).close()
        two.kill()

        def end() -> None:
            private_producers[3].close()
            one.kill()

        ending = threading.Timer(0.05, end)
        ending.start()
        found = numbers(merge([*consumers, private[3]]), on_loop=on_loop)
        ending.join()
    assert found == {0: [1, 2, 3], 1: [1, 2, 3, 4], 3: [1, 2]}


@pytest.mark.parametrize("on_loop", [False, True])
def test_each_core_has_a_turn_a_round(on_loop: bool) -> None:
    """One core always has more than a turn hands out: the others get theirs all the same."""
    producers, consumers = create_event_bus(3, 64)
    merged = merge(consumers, 4)
    for producer in producers:
        fill(producer, 1, 40)
    turns: list[int] = []

    def handle(core_id: int, each: EventBatch) -> None:
        turns.append(core_id)
        assert len(each) == 4
        if core_id == 0:
            assert producers[0].emit_batch(batch(100, 103)) == 4

    async def take() -> None:
        for _ in range(30):
            handle(*await anext(merged))

    if on_loop:
        asyncio.run(take())
    else:
        for _ in range(30):
            handle(*next(merged))
    assert turns == [0, 1, 2] * 10


def test_the_loops_other_tasks_run_under_a_flood() -> None:
    producers, consumers = create_event_bus(2, 64)

    async def both() -> int:
        ran = 0

        async def other() -> None:
            nonlocal ran
            while True:
                ran += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        rounds = 0
        async for core_id, _ in merge(consumers):
            producers[core_id].emit(event(rounds + 2))
            rounds += 1
            if rounds == 50:
                break
        task.cancel()
        return ran

    for producer in producers:
        producer.emit(event(1))
    assert asyncio.run(both()) >= 20


def test_max_events_is_the_most_in_a_batch() -> None:
    producers, consumers = create_event_bus(2, 64)
    for producer in producers:
        fill(producer, 1, 10)
        producer.close()
    assert [(core, len(each)) for core, each in merge(consumers, 7)] == [(0, 7), (1, 7), (0, 3), (1, 3)]


@pytest.mark.parametrize("most", [0, -1, 2**63])
def test_max_events_is_checked(most: int) -> None:
    _producers, consumers = create_event_bus(1, 16)
    with pytest.raises(ArgumentError, match=str(most)):
        merge(consumers, most)


def test_no_ends_are_at_their_end() -> None:
    assert list(merge([])) == []
    assert numbers(merge([]), on_loop=True) == {}


@pytest.mark.parametrize("on_loop", [False, True])
def test_a_closed_end_has_ended(on_loop: bool, sleep: str) -> None:
    producers, consumers = create_event_bus(3, 16)
    fill(producers[1], 1, 2)
    consumers[0].close()
    merged = merge(consumers)

    def run() -> dict[int, list[int]]:
        return numbers(merged, on_loop=on_loop)

    running = Running(run)
    running.until_asleep()
    consumers[1].close()
    running.until_asleep()
    fill(producers[2], 1, 1)
    running.until_asleep()
    consumers[2].close()
    assert running.result() == {1: [1, 2], 2: [1]}


def test_an_end_of_iteration_stays_one() -> None:
    producers, consumers = create_event_bus(1, 16)
    producers[0].close()
    merged = merge(consumers)
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(merged)


def test_what_is_refused_when_it_is_made() -> None:
    _producers, consumers = create_event_bus(2, 16)
    with pytest.raises(ArgumentError, match="twice"):
        merge([*consumers, consumers[0]])
    wrong: Any = [None]
    with pytest.raises(TypeError, match=r"ends\[0\]"):
        merge(wrong)


def test_it_may_be_made_in_one_thread_and_iterated_in_another() -> None:
    producers, consumers = create_event_bus(2, 16)
    merged = merge(consumers)
    for producer in producers:
        fill(producer, 1, 1)
        producer.close()
    assert in_thread(lambda: numbers(merged)) == {0: [1], 1: [1]}


def test_another_threads_end_is_refused() -> None:
    producers, consumers = create_event_bus(2, 16)
    in_thread(consumers[1].drain)
    merged = merge(consumers)
    with pytest.raises(OwnershipError, match="consumer of core 1"):
        next(merged)
    # In the midst of it, too: nothing was taken.
    consumers[1].bind()
    for producer in producers:
        fill(producer, 1, 1)
    assert next(merged)[0] == 0
    in_thread(consumers[1].bind)
    with pytest.raises(OwnershipError, match="consumer of core 1"):
        next(merged)
    consumers[1].bind()
    for producer in producers:
        producer.close()
    assert numbers(merged) == {1: [1]}


def test_another_loop_is_refused() -> None:
    import trio

    _producers, consumers = create_event_bus(1, 16)

    async def take() -> None:
        async for _ in merge(consumers):
            pass

    with pytest.raises(EventLoopError, match="merge"):
        trio.run(take)


def test_a_corrupt_ring_is_one_error_and_the_others_go_on(make_bus: BusMaker) -> None:
    bus = make_bus(2)
    producers = [bus.producer(core_id) for core_id in range(2)]
    consumers = bus.consumers()
    merged = merge(consumers)
    fill(producers[1], 1, 1)
    set_header_word(bus, 128, 1 << 40, size=8)
    with pytest.raises(CorruptRingError):
        next(merged)
    producers[1].close()
    assert numbers(merged) == {1: [1]}


def test_an_end_that_another_process_took_for_dead_has_ended(make_bus: BusMaker) -> None:
    bus = make_bus(2)
    producers = [bus.producer(core_id) for core_id in range(2)]
    merged = merge(bus.consumers())
    fill(producers[1], 1, 1)
    set_header_word(bus, WAITING + 4, header_word(bus, WAITING + 4) | 1)  # consumer_claim
    assert next(merged)[0] == 1
    producers[1].close()
    assert numbers(merged) == {}


def test_a_cancelled_task_takes_nothing() -> None:
    producers, consumers = create_event_bus(2, 16)
    merged = merge(consumers)

    async def cancel() -> None:
        waiting = asyncio.create_task(anext(merged))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        fill(producers[1], 1, 1)
        core_id, each = await anext(merged)
        assert (core_id, sequences(each)) == (1, [1])

    asyncio.run(cancel())


@kinds
def test_one_end_after_the_other_ends(kind: str, make_bus: BusMaker, sleep: str) -> None:
    producers, consumers = rings(kind, make_bus)
    cores = [consumer.core_id for consumer in consumers]
    merged = merge(consumers)
    for place, producer in enumerate(producers):
        fill(producer, 1, 1)
        core_id, each = next(merged)
        assert (core_id, sequences(each)) == (cores[place], [1])
        producer.close()
    with pytest.raises(StopIteration):
        next(merged)
