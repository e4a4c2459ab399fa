"""A ring and the log behind it as one stream: where it begins, what fills a hole, what ends it, what it counts."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nodedb_ring import (
    ClosedError,
    EventBatch,
    EventConsumer,
    EventLog,
    EventProducer,
    Follower,
    FollowStats,
    GapError,
    LogError,
    WriteOp,
    follow,
)
from nodedb_ring.log import LiveEventLog
from nodedb_ring.log.producer import LoggedProducer, logged
from tests.unit.builders import batch, event, fill, ring, sequences
from tests.unit.runners import Running
from tests.unit.shared_buses import BusMaker, Held, Peer, claim_producer, emit

from .memory_log import LiveMemoryLog, LogDownError, MemoryLog

TOP = 2**64 - 1


def taken(follower: Follower) -> list[list[int]]:
    """The numbers of each batch that comes without a wait."""
    found = []
    while len(each := follower.next_batch(0)):
        numbers = sequences(each)
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        found.append(numbers)
    return found


def flat(follower: Follower) -> list[int]:
    return [number for numbers in taken(follower) for number in numbers]


def logged_ring(capacity: int) -> tuple[LoggedProducer, EventConsumer, MemoryLog]:
    producer, consumer = ring(capacity)
    log = MemoryLog()
    return logged(producer, log), consumer, log


def heartbeats(*numbers: int) -> Iterator[EventBatch]:
    for number in numbers:
        yield EventBatch.from_events([event(number, op=WriteOp.HEARTBEAT, count=0)])


def test_the_logs_of_these_tests_are_logs() -> None:
    assert isinstance(MemoryLog(), EventLog)
    assert not isinstance(MemoryLog(), LiveEventLog)
    assert isinstance(LiveMemoryLog(), LiveEventLog)


# ---- what it is called with ------------------------------------------------------------------------------------------


def test_a_core_must_be_passed_if_there_is_no_consumer() -> None:
    with pytest.raises(TypeError, match="core_id"):
        follow(None, MemoryLog(), group="g")
    assert follow(None, MemoryLog(), group="g", core_id=3).core_id == 3
    assert follow(ring()[1], MemoryLog(), group="g").core_id == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": "middle"}, "start 'middle'"),
        ({"max_events": 0}, "max_events 0"),
        ({"after": -1}, "after -1"),
        ({"after": TOP}, f"after {TOP}"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        follow(ring()[1], MemoryLog(), group="g", **arguments)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


# ---- where it begins -------------------------------------------------------------------------------------------------


def test_of_a_clean_ring_the_log_is_asked_once_for_a_0() -> None:
    producer, consumer, log = logged_ring(8)
    follower = follow(consumer, log, group="g")
    assert follower.stats().position is None
    producer.emit_batch(batch(1, 5))
    assert taken(follower) == [[1, 2, 3, 4, 5]]
    producer.emit_batch(batch(6, 8))
    assert taken(follower) == [[6, 7, 8]]
    assert log.reads == [(0, 0)]
    assert follower.position == 8
    assert follower.stats() == FollowStats(
        delivered=8, replayed=0, gaps=0, episodes=0, duplicates=0, heartbeats=0, position=8, lag=0
    )


def test_numbers_may_begin_at_0() -> None:
    producer, consumer, log = logged_ring(2)
    follower = follow(consumer, log, group="g")
    producer.emit_batch(batch(0, 4))
    assert taken(follower) == [[0, 1], [2, 3, 4]]
    assert follower.position == 4


def test_a_0_that_only_the_log_has_is_not_passed_over() -> None:
    """The start of the numbering is unknown: that the last number is 4 does not show that the first is 1."""
    log = MemoryLog()
    producer, consumer = ring(2)
    follower = follow(consumer, log, group="g")
    log.put(0, 4)
    producer.close()
    assert flat(follower) == [0, 1, 2, 3, 4]
    alone = follow(None, log := MemoryLog(), group="g", core_id=0)
    log.put(0, 2)
    assert flat(alone) == [0, 1, 2]


def test_a_0_that_was_dropped_before_the_first_is_not_passed_over() -> None:
    producer, consumer = ring(2)
    log = MemoryLog()
    follower = follow(consumer, log, group="g")
    log.put(0, 3)
    fill(producer, 3, 3)
    assert taken(follower) == [[0, 1, 2], [3]]
    producer, consumer = ring(2)
    log = MemoryLog()
    follower = follow(consumer, log, group="g")
    log.put(0, 1)
    fill(producer, 1, 1)
    assert taken(follower) == [[0], [1]]


def test_a_hole_before_the_first_is_filled() -> None:
    producer, consumer, log = logged_ring(4)
    log.put(1, 6)
    follower = follow(consumer, log, group="g")
    producer.emit_batch(batch(7, 8))
    assert taken(follower) == [[1, 2, 3, 4, 5, 6], [7, 8]]
    stats = follower.stats()
    assert (stats.gaps, stats.episodes, stats.replayed, stats.delivered) == (1, 1, 6, 8)


def test_a_hole_before_the_first_that_nobody_can_fill_is_an_error() -> None:
    producer, consumer = ring(4)
    follower = follow(consumer, MemoryLog(), group="g")
    fill(producer, 3, 4)
    with pytest.raises(GapError) as raised:
        follower.next_batch(0)
    assert (raised.value.core_id, raised.value.first, raised.value.last) == (0, 1, 2)
    follower.skip(raised.value)
    assert taken(follower) == [[3, 4]]


def test_earliest_is_the_first_that_the_log_still_has() -> None:
    producer, consumer, log = logged_ring(2)
    for first in (1, 4, 7):
        log.put(first, first + 2)
    log.trim(0, 3)
    follower = follow(consumer, log, group="g", start="earliest")
    assert follower.position == 3
    producer.emit_batch(batch(10, 13))
    assert flat(follower) == list(range(4, 14))


def test_earliest_in_a_log_that_is_all_trimmed_begins_behind_it() -> None:
    producer, consumer, log = logged_ring(4)
    log.put(1, 6)
    log.trim(0, 6)
    follower = follow(consumer, log, group="g")
    assert follower.position == 6
    producer.emit_batch(batch(7, 8))
    assert taken(follower) == [[7, 8]]


def test_latest_begins_behind_the_last_of_ring_and_log() -> None:
    producer, consumer, log = logged_ring(2)
    producer.emit_batch(batch(1, 5))
    follower = follow(consumer, log, group="g", start="latest")
    assert flat(follower) == []
    producer.emit_batch(batch(6, 9))
    assert flat(follower) == [6, 7, 8, 9]
    assert flat(follow(None, log, group="h", core_id=0, start="latest")) == []


def test_latest_counts_what_the_ring_tried_and_the_log_lacks() -> None:
    producer, consumer = ring(4)
    fill(producer, 1, 3)
    follower = follow(consumer, MemoryLog(), group="g", start="latest")
    assert follower.position == 3
    assert flat(follower) == []
    assert follower.stats().duplicates == 3


@pytest.mark.parametrize("before", [0, 4])
def test_a_latest_that_restarts_before_its_first_commit_misses_nothing(before: int) -> None:
    log = MemoryLog()
    if before:
        log.put(1, before)
    follow(None, log, group="g", core_id=0, start="latest").close()
    log.put(before + 1, before + 3)
    again = follow(None, log, group="g", core_id=0, start="latest")
    assert flat(again) == [before + 1, before + 2, before + 3]


def test_a_group_continues_after_its_watermark() -> None:
    producer, consumer, log = logged_ring(2)
    producer.emit_batch(batch(1, 6))
    log.save_watermark("g", 0, 4)
    log.save_watermark("other", 0, 1)
    assert flat(follow(consumer, log, group="g", start="latest")) == [5, 6]
    assert flat(follow(None, log, group="other", core_id=0)) == [2, 3, 4, 5, 6]


def test_a_watermark_beyond_log_and_ring_is_refused() -> None:
    """The log was created again, and numbers it already: they would be taken for what the group has been handed."""
    core, consumer, log = logged_ring(8)
    log.save_watermark("g", 0, 4)
    for number in (1, 2, 3):
        core.emit(event(number))
    with pytest.raises(LogError, match=r"core 0: group 'g' stands at 4, and log and ring end at 3: .* save_watermark"):
        follow(consumer, log, group="g")
    core.emit(event(4))
    follow(consumer, log, group="g")


@pytest.mark.parametrize("with_ring", [False, True])
@pytest.mark.parametrize("has", [0, 3])
def test_after_a_number_beyond_log_and_ring_is_refused(with_ring: bool, has: int) -> None:
    """What comes up to it would be passed over in silence: the log lost its end, and the result did not."""
    core, consumer, log = logged_ring(8)
    for number in range(1, has + 1):
        core.emit(event(number))

    def begin(after: int) -> Follower:
        return follow(consumer if with_ring else None, log, core_id=0, group="g", after=after)

    refusal = rf"core 0: after {has + 1}, and log and ring end at {has}: .* follow\(after={has}\) continues there"
    with pytest.raises(LogError, match=refusal):
        begin(has + 1)
    with pytest.raises(LogError):
        begin(TOP - 1)
    follower = begin(has)
    core.emit(event(has + 1))
    assert flat(follower) == [has + 1]
    assert begin(has + 1).position == has + 1


def test_after_a_number_that_only_the_ring_knows() -> None:
    """The producer died before it had logged it, or it was a heartbeat past the log."""
    core, consumer, log = logged_ring(8)
    core.emit(event(1))
    core.producer.emit(event(2))
    assert follow(consumer, log, group="g", after=2).position == 2
    with pytest.raises(LogError, match="after 2, and log and ring end at 1"):
        follow(None, log, core_id=0, group="g", after=2)


def test_after_is_stronger_than_the_watermark() -> None:
    log = MemoryLog()
    log.put(1, 6)
    log.save_watermark("g", 0, 6)
    follower = follow(None, log, group="g", core_id=0, after=3)
    assert follower.position == 3
    assert sequences(follower.next_batch(0)) == [4, 5, 6]
    assert flat(follow(None, log, group="g", core_id=0, after=0)) == [1, 2, 3, 4, 5, 6]
    follower.commit()
    assert log.marks["g", 0] == 6


def test_another_core_of_the_log_is_another_stream() -> None:
    log = MemoryLog()
    log.put(1, 3, core_id=0)
    log.put(1, 9, core_id=1)
    assert flat(follow(None, log, group="g", core_id=1)) == list(range(1, 10))
    assert flat(follow(None, log, group="g", core_id=0)) == [1, 2, 3]


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
    follower = follow(consumer, log, group="g", after=0)
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
    follower = follow(consumer, log, group="g", after=0)
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


# ---- waiting, and the end --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, 0.01, 0.15])
def test_a_timeout_returns_an_empty_batch_and_does_not_end_the_stream(timeout: float) -> None:
    producer, consumer, log = logged_ring(4)
    follower = follow(consumer, log, group="g")
    assert len(follower.next_batch(timeout)) == 0
    assert not follower.ended
    producer.emit(event(1))
    assert sequences(follower.next_batch(timeout)) == [1]
    assert not follower.ended


def test_a_waiting_call_wakes_for_an_event_and_for_a_drop() -> None:
    producer, consumer, log = logged_ring(1)
    follower = follow(consumer, log, group="g")
    waiting = Running(lambda: [sequences(follower.next_batch()) for _ in range(3)])
    waiting.until_asleep()
    for number in (1, 2, 3):
        producer.emit(event(number))
    # Whether 2 and 3 were dropped, and come in one batch, is the threads' affair.
    producer.close()
    waiting_for = [number for numbers in waiting.result() for number in numbers]
    assert waiting_for == [1, 2, 3]


def test_it_ends_when_producer_ring_and_log_have_no_more() -> None:
    producer, consumer, log = logged_ring(2)
    producer.emit_batch(batch(1, 6))
    producer.close()
    follower = follow(consumer, log, group="g")
    assert [sequences(each) for each in follower] == [[1, 2], [3, 4, 5, 6]]
    assert follower.ended
    assert len(follower.next_batch()) == 0
    assert list(follower) == []
    # The log continues, as a successor's events would: it was no end for ever.
    log.put(7, 8)
    assert sequences(follower.next_batch()) == [7, 8]
    assert not follower.ended


def test_events_that_a_producer_logged_before_it_died_are_delivered() -> None:
    producer, consumer, log = logged_ring(4)
    follower = follow(consumer, log, group="g")
    producer.emit_batch(batch(1, 2))
    assert flat(follower) == [1, 2]
    # Appended, and not tried: no number of the ring shows it.
    log.put(3, 5)
    producer.close()
    assert consumer.emitted_sequence == 2
    assert [sequences(each) for each in follower] == [[3, 4, 5]]


def test_an_event_only_in_the_log_is_found_while_the_producer_lives() -> None:
    """The log is asked now and then: a producer may hang between its append and its emit."""
    producer, consumer, log = logged_ring(4)
    follower = follow(consumer, log, group="g")
    producer.emit_batch(batch(1, 2))
    assert flat(follower) == [1, 2]
    log.put(3, 3)
    assert sequences(follower.next_batch()) == [3]
    fill(producer.producer, 3, 3)
    assert flat(follower) == []
    assert follower.stats().duplicates == 1


@pytest.mark.parametrize("make", [MemoryLog, LiveMemoryLog])
def test_without_a_ring_it_follows_the_log_live_until_it_is_closed(make: Callable[[], MemoryLog]) -> None:
    log = make()
    log.put(1, 2)
    follower = follow(None, log, group="g", core_id=0)
    reader = Running(lambda: [sequences(each) for each in follower])
    for last in (2, 4, 6, 8):
        if last > 2:
            log.put(last - 1, last)
        while follower.position != last:
            time.sleep(0.001)
    reader.until_asleep()
    follower.close()
    assert [number for numbers in reader.result() for number in numbers] == list(range(1, 9))
    assert follower.ended
    assert isinstance(log, LiveMemoryLog) == hasattr(log, "waits")
    if isinstance(log, LiveMemoryLog):
        assert log.waits > 0, "a log that notifies was polled"


@pytest.mark.parametrize("with_ring", [False, True])
@pytest.mark.parametrize("make", [MemoryLog, LiveMemoryLog])
def test_close_from_another_thread_ends_a_waiting_call(with_ring: bool, make: Callable[[], MemoryLog]) -> None:
    producer, consumer = ring()
    follower = follow(consumer if with_ring else None, make(), group="g", core_id=0)
    waiting = Running(lambda: len(follower.next_batch()))
    waiting.until_asleep()
    follower.close()
    follower.close()
    assert waiting.result() == 0
    assert follower.ended
    with pytest.raises(ClosedError, match="core 0"):
        follower.next_batch(0)
    assert list(follower) == []
    assert producer.emit(event(1)), "the ring is not the follower's to close"
    assert not producer.is_consumer_disconnected


def test_a_follower_closed_while_an_iteration_begins_its_call_is_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed by another thread between the iterator's own check and its call: it ends, and does not raise."""
    follower = follow(None, MemoryLog(), group="g", core_id=0)
    checks = iter([False])
    monkeypatch.setattr(Follower, "_is_closed", property(lambda _: next(checks, True)))
    assert list(follower) == []


def test_it_is_a_context_and_commits_nothing_by_itself() -> None:
    log = MemoryLog()
    log.put(1, 3)
    with follow(None, log, group="g", core_id=0) as follower:
        assert flat(follower) == [1, 2, 3]
        assert repr(follower) == "<Follower of core 0, group 'g', at 3>"
    assert follower.ended
    assert log.saved == []
    assert repr(follow(None, MemoryLog(), group="h", core_id=2)) == (
        "<Follower of core 2, group 'h', before the first event>"
    )


def test_a_commit_covers_what_was_handed_out_and_no_more() -> None:
    producer, consumer = ring(8)
    log = MemoryLog()
    log.put(1, 9)
    follower = follow(consumer, log, group="g")
    fill(producer, 1, 2)
    fill(producer, 4, 5)
    fill(producer, 8, 9)
    expected = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    while expected:
        numbers = sequences(follower.next_batch(0))
        follower.commit()
        assert log.marks["g", 0] == numbers[-1]
        expected = expected[len(numbers) :]
        assert flat(follow(None, log, group="g", core_id=0)) == expected
    # The ring's events are gone with the first follower; the log has them for the next.


def test_lag_is_what_is_known_to_be_tried_and_not_handed_out() -> None:
    producer, consumer, log = logged_ring(2)
    follower = follow(consumer, log, group="g", after=0)
    assert follower.stats().lag == 0
    producer.emit_batch(batch(1, 5))
    assert follower.stats().lag == 5
    follower.next_batch(0)
    assert follower.stats().lag == 3
    assert follow(ring()[1], MemoryLog(), group="g").stats().lag == 0


# ---- between processes -----------------------------------------------------------------------------------------------


class Spool(MemoryLog):
    """A log that another process appends to: a file of numbers, one a line, of which each call reads the new ones."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.size = 0

    def last_sequence(self, core_id: int) -> int | None:
        self._load()
        return super().last_sequence(core_id)

    def read(self, core_id: int, first_sequence: int, last_sequence: int) -> Iterator[EventBatch]:
        self._load()
        return super().read(core_id, first_sequence, last_sequence)

    def _load(self) -> None:
        with open(self.path, "rb") as lines:
            lines.seek(self.size)
            new = lines.read()
        whole = new[: new.rfind(b"\n") + 1]
        self.size += len(whole)
        if whole:
            numbers = [int(line) for line in whole.split()]
            assert numbers == list(range(numbers[0], numbers[-1] + 1))
            self.put(numbers[0], numbers[-1])


def log_and_emit(held: Held, path: str, first: int, last: int) -> list[bool]:
    log_only(held, path, first, last)
    return emit(held, first, last)


def log_only(held: Held, path: str, first: int, last: int) -> None:
    with open(path, "a") as lines:
        lines.writelines(f"{number}\n" for number in range(first, last + 1))


def test_a_producer_killed_between_its_append_and_its_emit(make_bus: BusMaker, tmp_path: Path) -> None:
    path = f"{tmp_path}/log"
    bus = make_bus(capacity=4)
    with bus.consumer(0) as consumer, Peer(bus) as peer:
        peer.ask(claim_producer)
        assert peer.ask(log_and_emit, path, 1, 7) == [True] * 4 + [False] * 3
        follower = follow(consumer, Spool(path), group="g")
        assert flat(follower) == [1, 2, 3, 4, 5, 6, 7]
        assert peer.ask(log_and_emit, path, 8, 10) == [True] * 3
        peer.ask(log_only, path, 11, 12)
        peer.kill()
        rest = [number for each in follower for number in sequences(each)]
        assert rest == [8, 9, 10, 11, 12]
        assert len(follower.next_batch()) == 0
        # A successor continues behind the log, and so does the follower.
        with Peer(bus) as successor:
            successor.ask(claim_producer)
            assert successor.ask(log_and_emit, path, 13, 14) == [True, True]
            assert sequences(follower.next_batch()) == [13, 14]
            assert not follower.ended
            assert len(follower.next_batch(0)) == 0
            assert not follower.ended


def test_a_producer_killed_at_any_moment(make_bus: BusMaker, tmp_path: Path) -> None:
    """Nothing that the log has is lost or comes twice, wherever in its loop the producer dies."""
    path = f"{tmp_path}/log"
    log_only(Held(bus := make_bus(capacity=4)), path, 1, 0)
    last = 0
    with bus.consumer(0) as consumer:
        spool = Spool(path)
        follower = follow(consumer, spool, group="g")
        got: list[int] = []
        for _ in range(3):
            with Peer(bus) as peer:
                peer.ask(claim_producer)
                peer.post(produce_for_ever, path, last + 1)
                while len(got) < last + 200:
                    got += sequences(follower.next_batch())
                peer.kill()
            got += [number for each in follower for number in sequences(each)]
            last = spool.last_sequence(0) or 0
            assert got == list(range(1, last + 1))
        assert follower.stats().replayed > 0


def produce_for_ever(held: Held, path: str, first: int) -> None:
    with open(path, "a") as lines:
        while True:
            # Bursts of twice the ring, of which some are dropped, whichever side is faster.
            for number in range(first, first + 8):
                lines.write(f"{number}\n")
                lines.flush()
                held.producer.emit(event(number))
            first += 8
            time.sleep(0.001)


def test_a_producer_handle_that_is_collected_is_an_end() -> None:
    def emitting() -> tuple[EventConsumer, int | None]:
        producer: EventProducer
        producer, consumer = ring(2)
        fill(producer, 1, 2)
        return consumer, producer.emitted_sequence

    consumer, tried = emitting()
    assert tried == 2
    assert [sequences(each) for each in follow(consumer, MemoryLog(), group="g")] == [[1, 2]]
