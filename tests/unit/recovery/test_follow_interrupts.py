"""A follower that a signal interrupts at every bytecode: what its handler raises loses nothing, what it may call."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import pytest

from nodedb_ring import BusyError, EventBatch, Follower, WriteOp, follow
from nodedb_ring.recovery import state
from tests.unit.builders import batch, event, ring, sequences
from tests.unit.log.interrupting import Interrupts, handled, interrupted_at_each

from .memory_log import LiveMemoryLog, MemoryLog

# One run of each call a bytecode.
pytestmark = pytest.mark.slow

LAST = 12
SILENT = 7
ALL = [number for number in range(1, LAST + 1) if number != SILENT]


def followed() -> tuple[Follower, MemoryLog]:
    """A ring with holes, a heartbeat and a silent tail, over a log that has everything, in batches of other sizes."""
    producer, consumer = ring(4)
    log = MemoryLog()
    for first, last in ((1, 3), (4, 6), (8, 9), (10, LAST)):
        if first > SILENT > log.last[0]:
            log.append(0, EventBatch.from_events([event(SILENT, op=WriteOp.HEARTBEAT, count=0)]))
        log.put(first, last)
    producer.emit_batch(batch(1, 2))
    producer.emit_batch(batch(5, 6))
    producer.emit_batch(batch(LAST - 1, LAST))  # dropped
    producer.close()
    return follow(consumer, log, group="g", after=0, max_events=3), log


def numbers(batches: list[EventBatch]) -> list[int]:
    return [number for each in batches for number in sequences(each)]


def iterate(follower: Follower, got: list[EventBatch]) -> None:
    for each in follower:
        # Nothing of Python's comes between the hand-out and this.
        got.append(each)  # noqa: PERF402


def ask(follower: Follower, got: list[EventBatch]) -> None:
    while not follower.ended:
        got.append(follower.next_batch(0))


def iterate_in_loop(follower: Follower, got: list[EventBatch]) -> None:
    async def iterating() -> None:
        async for each in follower:
            got.append(each)  # noqa: PERF401

    asyncio.run(iterating())


@pytest.mark.parametrize("take", [iterate, ask])
def test_the_batch_of_an_interrupted_call_is_returned_next(
    interrupts: Interrupts, take: Callable[[Follower, list[EventBatch]], None]
) -> None:
    follower, _ = followed()
    got: list[EventBatch] = []

    def begin() -> Callable[[], None]:
        nonlocal follower, got
        follower, _ = followed()
        got = []
        return lambda: take(follower, got)

    count = 0
    for _ in interrupted_at_each(interrupts, begin):
        position = follower.position
        assert position in {numbers(got)[-1], SILENT, LAST} if numbers(got) else position == 0
        iterate(follower, got)
        assert numbers(got) == ALL
        assert follower.stats().delivered == len(ALL)
        assert follower.stats().lag == 0
        count += 1
    assert numbers(got) == ALL
    assert count > 100


@pytest.mark.parametrize("take", [iterate, ask, iterate_in_loop])
def test_a_commit_of_a_handler_covers_what_the_caller_has_got(
    interrupts: Interrupts, take: Callable[[Follower, list[EventBatch]], None]
) -> None:
    follower, log = followed()
    got: list[EventBatch] = []
    marks: list[tuple[int, int]] = []

    def commit() -> None:
        follower.commit()
        marks.append((log.load_watermark("g", 0) or 0, max(numbers(got), default=0)))

    at, came = 0, True
    with handled(commit):
        while came:
            follower, log = followed()
            got = []
            came = interrupts.call_interrupted(lambda: take(follower, got), at, signal.SIGTERM)  # noqa: B023
            assert numbers(got) == ALL
            at += 31 if take is iterate_in_loop else 1
    # A heartbeat that was passed over may be covered, an event that the caller lacks may not.
    assert all(mark <= (SILENT if last == SILENT - 1 else last) for mark, last in marks)
    assert {last for _, last in marks} >= {0, 4, 6, 9}
    assert any(mark == LAST - 3 for mark, _ in marks)


def test_a_handler_cannot_ask_in_the_midst_of_a_call(interrupts: Interrupts) -> None:
    follower, _ = followed()
    got: list[EventBatch] = []

    def asking() -> None:
        got.append(follower.next_batch(0))

    at, came = 0, True
    with handled(asking) as done:
        while came:
            follower, _ = followed()
            got = []
            came = interrupts.call_interrupted(asking, at, signal.SIGTERM)
            iterate(follower, got)
            # The handler's own batch, if it came first, was appended before.
            assert numbers(got) == ALL
            at += 1
    assert {type(error) for error in done} == {BusyError, type(None)}


@pytest.mark.parametrize("make", [MemoryLog, LiveMemoryLog])
@pytest.mark.parametrize("with_ring", [False, True])
def test_a_handler_that_closes_a_follower_ends_its_wait(
    interrupts: Interrupts, monkeypatch: pytest.MonkeyPatch, make: Callable[[], MemoryLog], with_ring: bool
) -> None:
    """Nothing else would; and its close takes no lock that the wait may have. Over several turns of the wait."""
    monkeypatch.setattr(state, "POLL_SECONDS", 0.0001)
    monkeypatch.setattr(state, "WAIT_SECONDS", 0.0001)
    # Bytecodes: the wait for a log that does not notify comes after some 2,000.
    turns = 4000 if make is MemoryLog and not with_ring else 1000
    _producer, consumer = ring(2)
    follower = follow(None, make(), core_id=0, group="g")

    def close() -> None:
        follower.close()

    with handled(close) as done:
        for at in range(turns):
            follower = follow(consumer if with_ring else None, make(), core_id=0, group="g")
            assert interrupts.call_interrupted(lambda: iterate(follower, []), at, signal.SIGTERM)  # noqa: B023
            assert follower.ended
    assert done == [None] * turns


def test_a_commit_in_the_midst_of_a_commit_is_not_undone() -> None:
    """The handler's, of batches that it was handed itself, is the later one."""
    log = MemoryLog()
    log.put(1, 2)
    log.put(3, 4)
    follower = follow(None, log, core_id=0, group="g", max_events=2)
    save = log.save_watermark

    def on_the_way(group: str, core_id: int, sequence: int) -> None:
        if sequence == 2:
            signal.raise_signal(signal.SIGTERM)
        save(group, core_id, sequence)

    def take_and_commit() -> None:
        assert sequences(follower.next_batch(0)) == [3, 4]
        follower.commit()

    log.save_watermark = on_the_way  # type: ignore[method-assign]
    assert sequences(follower.next_batch(0)) == [1, 2]
    with handled(take_and_commit):
        follower.commit()
    follower.commit()
    assert log.load_watermark("g", 0) == 4
