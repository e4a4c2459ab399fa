"""Holes in what the ring delivers: what the log fills, what is a gap, and logs that fail meanwhile."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from nodedb_ring import EventBatch, GapError, WriteOp, follow
from tests.unit.builders import batch, event, fill, ring, sequences

from .following import TOP, flat, logged_ring, taken
from .memory_log import LogDownError, MemoryLog

# ---- holes -----------------------------------------------------------------------------------------------------------


def test_a_hole_splits_the_ring_s_batch() -> None:
    producer, consumer = ring(8)
    log = MemoryLog()
    log.put(1, 9)
    follower = follow(consumer, log, group="g", after=0)
    for first, last in ((1, 2), (4, 4), (7, 9)):
        fill(producer, first, last)
    assert taken(follower) == [[1, 2], [3], [4], [5, 6], [7, 8, 9]]
    assert log.reads == [(3, 3), (5, 6)], "more of the log was read than was missing"
    stats = follower.stats()
    assert (stats.gaps, stats.episodes, stats.replayed, stats.delivered, stats.duplicates) == (2, 1, 3, 9, 0)
    producer.emit_batch(batch(10, 11))
    log.put(10, 13)
    assert taken(follower) == [[10, 11]]
    fill(producer, 13, 13)
    assert taken(follower) == [[12], [13]]
    assert follower.stats().episodes == 2


def test_the_silent_tail_is_delivered() -> None:
    producer, consumer, log = logged_ring(2)
    follower = follow(consumer, log, group="g")
    assert producer.emit_batch(batch(1, 9)) == 2
    assert follower.stats().lag == 9
    assert taken(follower) == [[1, 2], [3, 4, 5, 6, 7, 8, 9]]
    assert follower.stats().lag == 0
    assert follower.stats().replayed == 7


def test_events_after_the_last_number_read_are_not_a_hole() -> None:
    """It is read before the drain: an event that comes after the drain is in the ring, and no hole."""
    producer, consumer = ring(4)
    log = MemoryLog()
    follower = follow(consumer, log, group="g")
    fill(producer, 1, 1)
    assert flat(follower) == [1]

    class Eager:
        """Has an event come just after every drain that found the ring empty."""

        core_id = 0
        is_producer_disconnected = False
        empty = 0

        @property
        def emitted_sequence(self) -> int | None:
            return consumer.emitted_sequence

        def drain(self, max_events: int, timeout: float = 0.0) -> EventBatch:
            found = consumer.drain(max_events, 0.0)
            if not len(found):
                self.empty += 1
                fill(producer, self.empty + 1, self.empty + 1)
            return found

    eager = follow(Eager(), log, group="g", after=1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    numbers: list[int] = []
    while len(numbers) < 20:
        numbers += sequences(eager.next_batch(0))
    assert numbers == list(range(2, 22))
    assert eager.stats().gaps == 0


def test_a_drop_just_before_the_producer_goes_is_not_lost() -> None:
    """Tried after the drain began, and the producer has gone by its end: that end must not hide the drop."""
    log = MemoryLog()
    log.put(1, 1)

    class Parting:
        core_id = 0
        emitted_sequence = 1
        is_asked = False

        @property
        def is_producer_disconnected(self) -> bool:
            # What it dropped is not in the log: that must be reported, not skipped.
            self.emitted_sequence = 2
            return True

        def drain(self, max_events: int, timeout: float = 0.0) -> EventBatch:
            return batch(1, 0)

    follower = follow(Parting(), log, group="g", after=1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    with pytest.raises(GapError) as raised:
        follower.next_batch()
    assert (raised.value.first, raised.value.last) == (2, 2)


def test_late_retries_are_dropped() -> None:
    producer, consumer, log = logged_ring(2)
    follower = follow(consumer, log, group="g")
    producer.emit_batch(batch(1, 5))
    assert flat(follower) == [1, 2, 3, 4, 5]
    fill(producer.producer, 4, 5)
    assert flat(follower) == []
    fill(producer.producer, 3, 3)
    producer.emit(event(6))
    assert flat(follower) == [6]
    assert follower.stats().duplicates == 3


def test_events_out_of_order_in_the_ring_come_once_and_in_order() -> None:
    producer, consumer = ring(16)
    log = MemoryLog()
    log.put(1, 9)
    for number in (2, 1, 4, 4, 3, 5, 9, 7, 6):
        fill(producer, number, number)
    follower = follow(consumer, log, group="g")
    assert flat(follower) == list(range(1, 10))
    stats = follower.stats()
    assert stats.delivered == 9
    assert stats.delivered - stats.replayed + stats.duplicates == 9, "each of the ring's events is one or the other"


def test_at_most_max_events_of_the_ring_come_at_once() -> None:
    producer, consumer, log = logged_ring(8)
    follower = follow(consumer, log, group="g", max_events=3)
    producer.emit_batch(batch(1, 8))
    assert taken(follower) == [[1, 2, 3], [4, 5, 6], [7, 8]]


def test_one_batch_of_the_log_is_read_at_a_time() -> None:
    producer, consumer = ring(4)
    log = MemoryLog()
    for first in range(1, 101, 5):
        log.put(first, first + 4)
    follower = follow(consumer, log, group="g", after=0, max_events=5)
    fill(producer, 101, 102)
    for owed in range(1, 101, 5):
        assert sequences(follower.next_batch(0)) == list(range(owed, owed + 5))
        assert log.handed == owed + 4
    assert taken(follower) == [[101, 102]]
    assert log.reads == [(1, 100)]


def test_at_the_highest_number_it_still_drops_duplicates() -> None:
    producer, consumer = ring(4)
    log = MemoryLog()
    log.append(0, EventBatch.from_events([event(number, lsn=0) for number in (TOP - 2, TOP - 1, TOP)]))
    follower = follow(consumer, log, group="g", after=TOP - 3)
    assert producer.emit(event(TOP, lsn=0))
    assert flat(follower) == [TOP - 2, TOP - 1, TOP]
    assert producer.emit(event(TOP, lsn=0))
    assert flat(follower) == []
    assert follower.position == TOP
    follower.commit()
    again = follow(consumer, log, group="g")
    producer.close()
    assert list(again) == []


# ---- gaps that nobody can fill ---------------------------------------------------------------------------------------


def test_a_gap_is_raised_by_each_call_until_it_is_skipped() -> None:
    producer, consumer = ring(8)
    log = MemoryLog()
    log.put(1, 3)
    log.put(6, 6)
    follower = follow(consumer, log, group="g", after=0)
    fill(producer, 1, 2)
    fill(producer, 8, 9)
    assert sequences(follower.next_batch(0)) == [1, 2]
    assert sequences(follower.next_batch(0)) == [3]
    for _ in range(2):
        with pytest.raises(GapError):
            follower.next_batch(0)
        assert follower.position == 3
    with pytest.raises(GapError, match=r"core 0: .* 4 to 5") as raised:
        follower.next_batch(0)
    assert follower.position == 3
    copy = pickle.loads(pickle.dumps(raised.value))
    assert (copy.core_id, copy.first, copy.last, str(copy)) == (0, 4, 5, str(raised.value))
    follower.skip(copy)
    assert sequences(follower.next_batch(0)) == [6]
    with pytest.raises(GapError, match="7 to 7"):
        follower.next_batch(0)
    with pytest.raises(GapError) as raised:
        follower.next_batch(0)
    assert (raised.value.first, raised.value.last) == (7, 7)
    with pytest.raises(ValueError, match="gap 4 to 5"):
        follower.skip(copy)
    with pytest.raises(ValueError, match="of core 5"):
        follower.skip(GapError("", 5, 7, 7))
    follower.skip(raised.value)
    assert taken(follower) == [[8, 9]]
    follower.commit()
    assert log.marks["g", 0] == 9
    assert follower.stats().delivered == 6
    assert follower.stats().gaps == 1, "one hole, of which the log had the middle"


def test_trimmed_events_are_a_gap() -> None:
    log = MemoryLog()
    for first in (1, 4, 7):
        log.put(first, first + 2)
    log.save_watermark("g", 0, 2)
    log.trim(0, 6)
    follower = follow(None, log, group="g", core_id=0)
    with pytest.raises(GapError) as raised:
        follower.next_batch(0)
    assert (raised.value.first, raised.value.last) == (3, 6)


def test_a_tail_that_the_log_lacks_is_a_gap_also_when_the_producer_has_gone() -> None:
    producer, consumer = ring(1)
    fill(producer, 1, 1)
    assert not producer.emit(event(2))
    producer.close()
    follower = follow(consumer, MemoryLog(), group="g")
    assert sequences(next(follower)) == [1]
    with pytest.raises(GapError) as raised:
        next(follower)
    assert (raised.value.first, raised.value.last) == (2, 2)
    follower.skip(raised.value)
    assert list(follower) == []
    assert follower.ended


# ---- a log that fails ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fail_after", [0, 1, 2])
def test_a_read_that_fails_loses_nothing(fail_after: int) -> None:
    producer, consumer = ring(2)
    log = MemoryLog()
    follower = follow(consumer, log, group="g", after=0, max_events=3)
    for first in (1, 4, 7):
        log.put(first, first + 2)
    fill(producer, 10, 10)
    log.fail_after = fail_after
    got: list[int] = []
    for _ in range(fail_after):
        got += sequences(follower.next_batch(0))
    with pytest.raises(LogDownError):
        follower.next_batch(0)
    assert follower.position == len(got)
    got += flat(follower)
    assert got == list(range(1, 11))
    assert (follower.stats().gaps, follower.stats().duplicates) == (1, 0)


def test_a_read_that_fails_behind_its_last_batch_asks_for_nothing_more() -> None:
    log = MemoryLog()
    follower = follow(None, log, group="g", core_id=0)
    log.put(1, 3)
    assert flat(follower) == [1, 2, 3]
    log.put(4, 5)
    assert flat(follower) == [4, 5]
    # MemoryLog.read refuses a range that ends before it begins.
    assert log.reads == [(0, 3), (4, 5)]


def test_a_log_that_is_down_is_asked_again_at_the_next_call() -> None:
    producer, consumer, log = logged_ring(2)
    follower = follow(consumer, log, group="g", after=0)
    producer.emit_batch(batch(1, 4))
    log.is_down = True
    assert sequences(follower.next_batch(0)) == [1, 2], "what the ring has needs no log"
    for _ in range(2):
        with pytest.raises(LogDownError):
            follower.next_batch(0)
    with pytest.raises(LogDownError):
        follower.commit()
    log.is_down = False
    assert taken(follower) == [[3, 4]]
    follower.commit()
    assert log.marks["g", 0] == 4


def test_a_commit_that_failed_is_made_good_by_the_next() -> None:
    producer, consumer, log = logged_ring(4)
    follower = follow(consumer, log, group="g")
    producer.emit_batch(batch(1, 3))
    assert flat(follower) == [1, 2, 3]
    log.is_down = True
    with pytest.raises(LogDownError):
        follower.commit()
    log.is_down = False
    follower.commit()
    follower.commit()
    assert log.saved == [3], "a commit with nothing new writes nothing"


def heartbeats(*numbers: int) -> Iterator[EventBatch]:
    for number in numbers:
        yield EventBatch.from_events([event(number, op=WriteOp.HEARTBEAT, count=0)])


# ---- heartbeats ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize("capacity", [2, 16])
def test_heartbeats_move_the_position(wanted: bool, capacity: int) -> None:
    producer, consumer, log = logged_ring(capacity)
    follower = follow(consumer, log, group="g", heartbeats=wanted)
    silent = {1, 2, 5, 6, 9}
    for number in range(1, 10):
        kind = {"op": WriteOp.HEARTBEAT, "count": 0} if number in silent else {}
        producer.emit(event(number, **kind))
    assert flat(follower) == [number for number in range(1, 10) if wanted or number not in silent]
    stats = follower.stats()
    assert stats.position == 9
    assert stats.heartbeats == (0 if wanted else 5)
    assert stats.delivered == (9 if wanted else 4)
    follower.commit()
    assert log.marks["g", 0] == 9


def test_a_dropped_heartbeat_is_not_a_gap_and_a_retried_one_not_another_heartbeat() -> None:
    producer, consumer, log = logged_ring(1)
    follower = follow(consumer, log, group="g")
    producer.emit(event(1))
    for each in heartbeats(2, 3):
        assert producer.emit_batch(each) == 0
    assert flat(follower) == [1]
    assert (follower.position, follower.stats().heartbeats) == (3, 2)
    [again] = heartbeats(3)
    assert producer.producer.emit_batch(again) == 1
    assert flat(follower) == []
    assert (follower.stats().heartbeats, follower.stats().duplicates) == (2, 1)
