"""Batches of a useful size: stored ones are joined and split, and a batch that is not full may be waited for."""

from __future__ import annotations

import threading
import time

import pytest

from nodedb_ring import ArgumentError, CorruptLogError, EventBatch, GapError, WriteOp, follow
from nodedb_ring.log import JoiningEventLog
from nodedb_ring.recovery import state as module
from nodedb_ring.recovery.joining import read_batches
from nodedb_ring.recovery.state import NOTHING, FollowState, Need
from tests.unit.builders import batch, event, fill, ring, sequences

from .following import flat, taken
from .memory_log import MemoryLog
from .test_state import Ring


def rows_of(log: MemoryLog, last: int, size: int) -> None:
    for first in range(1, last + 1, size):
        log.put(first, min(first + size - 1, last))


@pytest.mark.parametrize("size", [1, 7, 8, 100, 1000])
@pytest.mark.parametrize("max_events", [1, 10, 64, 1000, 5000])
def test_stored_batches_come_in_those_that_were_asked_for(size: int, max_events: int) -> None:
    log = MemoryLog()
    rows_of(log, 1000, size)
    follower = follow(None, log, core_id=0, group="g", max_events=max_events)
    lengths = [len(numbers) for numbers in taken(follower)]
    assert lengths == [max_events] * (1000 // max_events) + ([1000 % max_events] if 1000 % max_events else [])
    assert follower.position == 1000


def test_a_hole_of_the_ring_comes_in_them_too() -> None:
    producer, consumer = ring(4)
    log = MemoryLog()
    rows_of(log, 1000, 8)
    fill(producer, 1001, 1004)
    assert [len(numbers) for numbers in taken(follow(consumer, log, group="g", max_events=300))] == [
        300,
        300,
        300,
        100,
        4,
    ]


def test_holes_and_heartbeats_divide_them() -> None:
    log = MemoryLog()
    log.put(1, 4)
    log.append(0, EventBatch.from_events([event(5, op=WriteOp.HEARTBEAT, count=0), event(6), event(9)]))
    log.put(10, 12)
    follower = follow(None, log, core_id=0, group="g", max_events=100)
    assert taken_until_gap(follower) == [[1, 2, 3, 4], [6]]
    with pytest.raises(GapError) as raised:
        follower.next_batch(0)
    follower.skip(raised.value)
    assert taken(follower) == [[9, 10, 11, 12]]


def taken_until_gap(follower: object) -> list[list[int]]:
    found = []
    while True:
        try:
            found.append(sequences(follower.next_batch(0)))  # type: ignore[attr-defined]  # pyright: ignore
        except GapError:
            return found


def test_what_is_intact_comes_before_damage() -> None:
    class Damaged(MemoryLog):
        def read(self, core_id: int, first_sequence: int, last_sequence: int):  # type: ignore[no-untyped-def]
            for number, each in enumerate(super().read(core_id, first_sequence, last_sequence)):
                if number == 3:
                    raise CorruptLogError("damaged")
                yield each

    log = Damaged()
    rows_of(log, 100, 8)
    reading = read_batches(log, 0, 1, 100, 1000)
    assert sequences(next(reading)) == list(range(1, 25))
    with pytest.raises(CorruptLogError):
        next(reading)


def test_a_log_that_joins_is_asked_to() -> None:
    class Joining(MemoryLog):
        asked = 0

        def read_joined(self, core_id: int, first_sequence: int, last_sequence: int, max_events: int):  # type: ignore[no-untyped-def]
            self.asked = max_events
            yield EventBatch.concat(self.read(core_id, first_sequence, last_sequence))[:max_events]

    log = Joining()
    assert isinstance(log, JoiningEventLog)
    rows_of(log, 100, 8)
    assert sequences(follow(None, log, core_id=0, group="g", max_events=50).next_batch(0)) == list(range(1, 51))
    assert log.asked == 50


# ---- lingering -------------------------------------------------------------------------------------------------------


def lingering(ring: Ring | None, log: MemoryLog, linger: float, max_events: int = 10) -> FollowState:
    return FollowState(
        ring,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        log,
        core_id=0,
        owed=1,
        wants_heartbeats=False,
        max_events=max_events,
        linger=linger,
    )


def test_a_batch_is_gathered_until_it_is_full() -> None:
    state = lingering(Ring(), MemoryLog(), float("inf"), max_events=6)
    assert state.begin(None) is Need.DRAIN
    assert state.drained(batch(1, 3)) is Need.DRAIN
    assert (state.room, state.undelivered) == (3, 1)
    assert state.drained(batch(4, 5)) is Need.DRAIN
    assert state.drained(batch(6, 6)) is Need.RETURN
    assert sequences(state.deliver()) == [1, 2, 3, 4, 5, 6]
    assert (state.room, state.undelivered, state.delivered) == (6, 7, 6)


class Clock:
    """Stands for the module ``time``."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_or_until_its_time_is_over(clock: Clock) -> None:
    state = lingering(Ring(), MemoryLog(), 0.05)
    assert state.begin(None) is Need.DRAIN
    assert state.drained(batch(1, 3)) is Need.DRAIN
    assert state.drained(NOTHING) is Need.LAST
    assert state.ask_log(Need.LAST) is Need.WAIT
    assert state.seconds == pytest.approx(0.05)
    clock.now += 0.06
    assert state.drained(NOTHING) is Need.RETURN
    assert sequences(state.deliver()) == [1, 2, 3]
    # The next one has its own time.
    assert state.begin(None) is Need.DRAIN
    assert state.drained(batch(4, 4)) is Need.DRAIN


def test_a_stream_that_never_pauses_does_not_lengthen_it(clock: Clock) -> None:
    state = lingering(Ring(), MemoryLog(), 0.02, max_events=1000)
    assert state.begin(None) is Need.DRAIN
    assert state.drained(batch(1, 1)) is Need.DRAIN
    clock.now += 0.03
    assert state.drained(batch(2, 2)) is Need.RETURN
    assert sequences(state.deliver()) == [1, 2]


def test_or_until_the_calls_time_is_over() -> None:
    state = lingering(Ring(), MemoryLog(), 100.0)
    assert state.begin(time.monotonic()) is Need.DRAIN
    assert state.drained(batch(1, 3)) is Need.DRAIN
    assert state.drained(NOTHING) is Need.LAST
    assert state.ask_log(Need.LAST) is Need.RETURN
    assert sequences(state.deliver()) == [1, 2, 3]


def test_ring_and_log_fill_one_batch() -> None:
    log = MemoryLog()
    log.put(3, 4)
    state = lingering(Ring(), log, float("inf"), max_events=6)
    assert state.begin(None) is Need.DRAIN
    assert state.drained(batch(1, 2)) is Need.DRAIN
    assert state.drained(batch(5, 8)) is Need.READ
    assert state.ask_log(Need.READ) is Need.RETURN
    assert sequences(state.deliver()) == [1, 2, 3, 4, 5, 6]
    assert (state.delivered, state.duplicates) == (6, 0)
    assert state.begin(None) is Need.DRAIN
    assert state.undelivered == 7
    assert state.owed == 9


def test_a_gap_and_the_end_come_after_what_was_gathered() -> None:
    ring_, log = Ring(), MemoryLog()
    state = lingering(ring_, log, float("inf"))
    state.begin(None)
    assert state.drained(batch(1, 2)) is Need.DRAIN
    assert state.drained(batch(5, 5)) is Need.READ
    assert state.ask_log(Need.READ) is Need.RETURN
    assert sequences(state.deliver()) == [1, 2]
    assert state.begin(None) is Need.READ
    with pytest.raises(GapError) as raised:
        state.ask_log(Need.READ)
    state.skip(raised.value)
    ring_.is_producer_disconnected = True
    assert state.begin(None) is Need.DRAIN
    assert state.drained(NOTHING) is Need.LAST
    assert state.ask_log(Need.LAST) is Need.RETURN
    assert sequences(state.deliver()) == [5]
    assert not state.ended
    state.begin(None)
    assert state.drained(NOTHING) is Need.LAST
    assert state.ask_log(Need.LAST) is Need.RETURN
    assert state.deliver() is NOTHING
    assert state.ended


def test_what_an_exception_left_gathered_comes_next() -> None:
    state = lingering(Ring(), MemoryLog(), float("inf"))
    state.begin(None)
    assert state.drained(batch(1, 2)) is Need.DRAIN
    assert state.drained(batch(3, 3)) is Need.DRAIN
    # An exception came between.
    assert state.undelivered == 1
    assert state.begin(None) is Need.RETURN
    assert sequences(state.deliver()) == [1, 2, 3]


def test_a_heartbeat_that_is_passed_over_ends_the_batch() -> None:
    state = lingering(Ring(), MemoryLog(), float("inf"))
    state.begin(None)
    assert state.drained(batch(1, 2)) is Need.DRAIN
    silent = EventBatch.from_events([event(3, op=WriteOp.HEARTBEAT, count=0), event(4)])
    assert state.drained(silent) is Need.RETURN
    assert sequences(state.deliver()) == [1, 2]
    assert state.undelivered == 3
    assert state.begin(None) is Need.DRAIN
    assert state.heartbeats == 1
    assert state.undelivered == 4


def test_a_trickle_comes_in_one_batch() -> None:
    producer, consumer = ring(64)
    log = MemoryLog()

    def emit() -> None:
        for number in range(1, 11):
            log.put(number, number)
            fill(producer, number, number)
            time.sleep(0.002)

    with follow(consumer, log, group="g", max_events=10, linger=30) as follower:
        thread = threading.Thread(target=emit)
        thread.start()
        assert sequences(follower.next_batch(30)) == list(range(1, 11))
        thread.join()


@pytest.mark.parametrize("linger", [-1, float("nan")])
def test_a_linger_that_is_none(linger: float) -> None:
    with pytest.raises(ArgumentError, match="linger"):
        follow(None, MemoryLog(), core_id=0, group="g", linger=linger)


# ---- outliving the producer ------------------------------------------------------------------------------------------


def outliving(ring: Ring, log: MemoryLog) -> FollowState:
    return FollowState(
        ring,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        log,
        core_id=0,
        owed=1,
        wants_heartbeats=False,
        outlives_producer=True,
    )


def test_without_a_producer_it_reads_from_the_log_until_the_next_one_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.0)
    ring_, log = Ring(), MemoryLog()
    state = outliving(ring_, log)
    ring_.is_producer_disconnected = True
    assert state.begin(None) is Need.DRAIN
    assert state.drained(NOTHING) is Need.LAST
    assert state.ask_log(Need.LAST) is Need.GROW
    assert not state.ended
    log.put(1, 3)
    assert state.ask_log(Need.GROW) is Need.DRAIN
    assert state.drained(NOTHING) is Need.LAST
    assert state.ask_log(Need.LAST) is Need.READ
    assert state.ask_log(Need.READ) is Need.RETURN
    assert sequences(state.deliver()) == [1, 2, 3]
    assert state.begin(None) is Need.DRAIN
    assert state.drained(NOTHING) is Need.LAST
    assert state.ask_log(Need.LAST) is Need.GROW
    # A successor: what it tries is looked for in the ring at once.
    ring_.is_producer_disconnected = False
    ring_.emitted_sequence = 4
    assert state.ask_log(Need.GROW) is Need.DRAIN
    assert state.drained(batch(4, 4)) is Need.RETURN
    assert sequences(state.deliver()) == [4]


def test_it_ends_when_it_is_closed_and_not_before() -> None:
    producer, consumer = ring(8)
    log = MemoryLog()
    log.put(1, 2)
    fill(producer, 1, 2)
    producer.close()
    follower = follow(consumer, log, group="g", until="closed")
    assert flat(follower) == [1, 2]
    assert not follower.ended
    log.put(3, 4)
    assert flat(follower) == [3, 4]
    assert not follower.ended
    threading.Timer(0.05, follower.close).start()
    assert list(follower) == []
    assert follower.ended


def test_until_is_one_of_two() -> None:
    with pytest.raises(ValueError, match="until 'never': must be 'producer' or 'closed'"):
        follow(None, MemoryLog(), core_id=0, group="g", until="never")  # type: ignore[arg-type]  # pyright: ignore
