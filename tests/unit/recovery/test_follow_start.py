"""Where a follower begins: at the earliest or latest event, at a watermark, or after a number."""

from __future__ import annotations

import pytest

from nodedb_ring import Follower, FollowStats, GapError, LogError, follow
from tests.unit.builders import batch, event, fill, ring, sequences

from .following import TOP, flat, logged_ring, taken
from .memory_log import MemoryLog


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
