"""wait and merge over followers: what the ring dropped, what only the log has, errors and ends; nothing is lost."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from nodedb_ring import (
    ArgumentError,
    BusyError,
    ClosedError,
    EventBatch,
    EventConsumer,
    EventProducer,
    Follower,
    GapError,
    OwnershipError,
    create_event_bus,
    follow,
    merge,
    wait,
    wait_async,
)
from nodedb_ring.log.sqlite import SqliteEventLog
from tests.unit.builders import batch, event, fill, sequences
from tests.unit.ends.test_waiting import Interrupted, on_signal, send, when_main_sleeps
from tests.unit.recovery.memory_log import LogDownError, MemoryLog
from tests.unit.runners import Running, in_thread

from .many import taken_over

End = EventConsumer | Follower


def wait_on_loop(ends: Iterable[End], timeout: float | None = None) -> list[End]:
    return asyncio.run(wait_async(ends, timeout))


waits = pytest.mark.parametrize("waiting", [wait, wait_on_loop])
Waiting = Callable[..., list[Any]]


def followed(
    count: int, capacity: int = 4
) -> tuple[list[EventProducer], list[EventConsumer], list[Follower], MemoryLog]:
    producers, consumers = create_event_bus(count, capacity)
    log = MemoryLog()
    return producers, consumers, [follow(consumer, log, group="g") for consumer in consumers], log


@waits
def test_a_follower_with_events_is_ready_and_loses_none(waiting: Waiting) -> None:
    producers, _consumers, followers, log = followed(3)
    log.put(1, 3, core_id=1)
    fill(producers[1], 1, 3)
    for _ in range(3):
        assert waiting(followers) == [followers[1]]
    # None of the three counts as delivered.
    assert followers[1].position == 0
    followers[1].commit()
    assert log.saved == [0]
    assert sequences(followers[1].next_batch(0)) == [1, 2, 3]
    assert waiting(followers, 0) == []


@waits
def test_a_dropped_event_makes_it_ready(waiting: Waiting) -> None:
    producers, _consumers, followers, log = followed(2)
    log.put(1, 6, core_id=1)
    assert producers[1].emit_batch(batch(1, 6)) == 4
    found: list[int] = []
    while waiting(followers, 0):
        found += sequences(followers[1].next_batch(0))
    assert found == [1, 2, 3, 4, 5, 6]


@waits
def test_an_event_that_is_dropped_meanwhile_ends_the_wait(waiting: Waiting) -> None:
    producers, consumers, followers, log = followed(2)
    log.put(1, 4, core_id=1)
    fill(producers[1], 1, 4)
    # Beside the follower's back all rows of its ring are held, so that the next event is dropped.
    lease = consumers[1].lease()
    assert waiting(followers) == [followers[1]]
    assert sequences(followers[1].next_batch(0)) == [1, 2, 3, 4]

    waiter = taken_over(consumers, lambda: waiting(followers))
    waiter.until_asleep()
    log.put(5, 5, core_id=1)
    assert not producers[1].emit(event(5))
    assert waiter.result() == [followers[1]]
    consumers[1].bind()
    assert sequences(followers[1].next_batch(0)) == [5]
    lease.release()


@waits
def test_what_only_the_log_has_ends_the_wait(waiting: Waiting) -> None:
    log = MemoryLog()
    followers = [follow(None, log, group="g", core_id=core_id) for core_id in range(3)]
    assert waiting(followers, 0.05) == []
    waiter = Running(lambda: waiting(followers))
    waiter.until_asleep()
    log.put(1, 2, core_id=2)
    assert waiter.result() == [followers[2]]
    assert sequences(followers[2].next_batch(0)) == [1, 2]


class AskedLog(MemoryLog):
    """Counts how often it was asked for its last number."""

    asked = 0

    def last_sequence(self, core_id: int) -> int | None:
        self.asked += 1
        return super().last_sequence(core_id)


@waits
def test_a_follower_is_asked_again_and_again(waiting: Waiting) -> None:
    log = AskedLog()
    follower = follow(None, log, group="g", core_id=0)
    waiter = Running(lambda: waiting([follower]))
    before = log.asked
    while log.asked < before + 5 and waiter.thread.is_alive():
        time.sleep(0.001)
    log.put(1, 1)
    assert waiter.result() == [follower]


@waits
def test_consumers_and_followers_mixed(waiting: Waiting, sleep: str) -> None:
    producers, consumers, followers, log = followed(3)
    alone = follow(None, log, group="g", core_id=9)
    ends: list[End] = [consumers[0], followers[1], alone, consumers[2]]

    def of(place: int) -> None:
        if place == 2:
            log.put(1, 1, core_id=9)
        else:
            core_id = {0: 0, 1: 1, 3: 2}[place]
            log.put(1, 1, core_id=core_id)
            fill(producers[core_id], 1, 1)

    for place in range(4):
        waiter = taken_over(consumers, lambda: [ends.index(end) for end in waiting(ends)])
        waiter.until_asleep()
        of(place)
        assert waiter.result() == [place]
        for consumer in consumers:
            consumer.bind()
        end = ends[place]
        assert sequences(end.drain() if isinstance(end, EventConsumer) else end.next_batch(0)) == [1]


@waits
def test_an_ended_or_closed_follower_is_ready(waiting: Waiting) -> None:
    producers, _consumers, followers, _log = followed(3)
    producers[0].close()
    followers[2].close()
    for _ in range(2):
        assert waiting(followers) == [followers[0], followers[2]]
    assert followers[0].ended
    with pytest.raises(ClosedError):
        followers[2].next_batch()


@waits
def test_closing_a_follower_in_another_thread_ends_the_wait(waiting: Waiting) -> None:
    _producers, consumers, followers, _log = followed(2)

    waiter = taken_over(consumers, lambda: waiting(followers))
    waiter.until_asleep()
    followers[1].close()
    assert waiter.result() == [followers[1]]


@waits
def test_an_error_of_a_follower_is_its_next_calls(waiting: Waiting) -> None:
    producers, _consumers, followers, log = followed(2)
    assert producers[0].emit(event(1))
    assert producers[0].emit(event(5))
    log.put(1, 1)
    assert waiting(followers) == [followers[0]]
    assert sequences(followers[0].next_batch(0)) == [1]
    with pytest.raises(GapError) as raised:
        followers[0].next_batch(0)
    for _ in range(2):
        assert waiting(followers) == [followers[0]]
        with pytest.raises(GapError):
            followers[0].next_batch(0)
    followers[0].skip(raised.value)
    assert waiting(followers) == [followers[0]]
    assert sequences(followers[0].next_batch(0)) == [5]
    log.is_down = True
    assert producers[1].emit(event(3))
    assert followers[1] in waiting(followers)
    with pytest.raises(LogDownError):
        followers[1].next_batch(0)


def test_another_threads_consumer_is_refused() -> None:
    producers, consumers, followers, log = followed(2)
    log.put(1, 1)
    fill(producers[0], 1, 1)
    in_thread(consumers[1].drain)
    with pytest.raises(OwnershipError, match="consumer of core 1"):
        wait(followers)
    # Nothing was taken of the other.
    assert consumers[0].ring.slots_in_use == 1


def test_a_follower_and_its_consumer_are_one_end() -> None:
    _producers, consumers, followers, log = followed(1)
    with pytest.raises(ArgumentError, match=r"ends\[1\]: the consumer of core 0 is in the list twice"):
        wait([consumers[0], followers[0]])
    alone = follow(None, log, group="g", core_id=3)
    with pytest.raises(ArgumentError, match=r"ends\[1\]: the follower of core 3"):
        wait([alone, alone])


def test_a_wait_in_the_midst_of_a_call_is_refused() -> None:
    _producers, _consumers, followers, _log = followed(1)
    refused: list[BusyError] = []

    def wait_as_well() -> None:
        try:
            wait(followers)
        except BusyError as error:
            refused.append(error)
            raise Interrupted from None

    with on_signal(signal.SIGUSR1, wait_as_well):
        sender = when_main_sleeps(send(signal.SIGUSR1))
        with pytest.raises(Interrupted):
            followers[0].next_batch(None)
        sender.result()
    assert "core 0" in str(refused[0])


# merge


def merged_numbers(ends: list[End], *, on_loop: bool) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}

    def add(core_id: int, each: EventBatch) -> None:
        found.setdefault(core_id, []).extend(sequences(each))

    async def collect() -> None:
        async for core_id, each in merge(ends):
            add(core_id, each)

    if on_loop:
        asyncio.run(collect())
    else:
        for core_id, each in merge(ends):
            add(core_id, each)
    return found


@pytest.mark.parametrize("on_loop", [False, True])
def test_merge_yields_what_each_follower_yields_and_commits_nothing(on_loop: bool, tmp_path: Any) -> None:
    producers, consumers = create_event_bus(3, 4)
    with SqliteEventLog(tmp_path / "log") as log:
        followers = [follow(consumer, log, group="g") for consumer in consumers[:2]]

        def write() -> None:
            # Far more than the rings hold: most is dropped, and comes from the log.
            for first in range(1, 400, 5):
                for core_id in (0, 1):
                    log.append(core_id, batch(first, first + 4))
                    producers[core_id].emit_batch(batch(first, first + 4))
            fill(producers[2], 1, 3)
            for producer in producers:
                producer.close()

        writer = threading.Thread(target=write)
        writer.start()
        found = merged_numbers([*followers, consumers[2]], on_loop=on_loop)
        writer.join()
        assert found == {0: list(range(1, 401)), 1: list(range(1, 401)), 2: [1, 2, 3]}
        assert [log.load_watermark("g", core_id) for core_id in range(2)] == [None, None]
        for follower in followers:
            assert follower.ended
            follower.commit()
        assert [log.load_watermark("g", core_id) for core_id in range(2)] == [400, 400]


@pytest.mark.parametrize("on_loop", [False, True])
def test_a_gap_of_one_follower_does_not_end_the_others(on_loop: bool) -> None:
    producers, _consumers, followers, log = followed(2)
    log.put(1, 1, core_id=1)
    assert producers[0].emit(event(3))
    assert producers[1].emit(event(1))
    merged = merge(followers)
    found: list[tuple[int, list[int]]] = []
    gaps: list[GapError] = []

    async def step_on_loop() -> tuple[int, EventBatch]:
        return await anext(merged)

    def step() -> None:
        try:
            core_id, each = asyncio.run(step_on_loop()) if on_loop else next(merged)
        except GapError as gap:
            gaps.append(gap)
            if len(gaps) == 2:
                followers[0].skip(gap)
                producers[0].close()
                producers[1].close()
        else:
            found.append((core_id, sequences(each)))

    for _ in range(4):
        step()
    assert [(gap.first, gap.last) for gap in gaps] == [(1, 2), (1, 2)]
    assert found == [(1, [1]), (0, [3])]
    with pytest.raises(StopAsyncIteration if on_loop else StopIteration):
        asyncio.run(step_on_loop()) if on_loop else next(merged)


def test_a_log_alone_in_a_merge_ends_when_it_is_closed() -> None:
    log = MemoryLog()
    followers = [follow(None, log, group="g", core_id=core_id) for core_id in range(2)]
    log.put(1, 2, core_id=0)
    running = Running(lambda: merged_numbers(list(followers), on_loop=False))
    running.until_asleep()
    log.put(1, 1, core_id=1)
    while followers[1].position is None:
        pass
    for follower in followers:
        follower.close()
    assert running.result() == {0: [1, 2], 1: [1]}
