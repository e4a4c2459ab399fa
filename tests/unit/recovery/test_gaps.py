"""Holes in the numbers: of a batch, and of what a consumer drains."""

from __future__ import annotations

import numpy as np
import pytest

from nodedb_ring import EventBatch, EventConsumer, GapCursor
from tests.unit.builders import batch, event, fill, ring, sequences
from tests.unit.shared_buses import BusMaker, Peer, claim_producer, emit

TOP = 2**64 - 1


def tried(consumer: EventConsumer) -> int | None:
    """A call, of which a type checker does not think that its answer stays."""
    return consumer.emitted_sequence


def numbered(*numbers: int) -> EventBatch:
    return EventBatch.from_events([event(number, lsn=0) for number in numbers])


@pytest.mark.parametrize(
    ("numbers", "after", "expected"),
    [
        ((), None, []),
        ((), 5, []),
        ((7,), None, []),
        ((1, 2, 3), None, []),
        ((1, 2, 3), 0, []),
        ((1, 2, 5, 6, 9), None, [[3, 4], [7, 8]]),
        ((3, 4), 0, [[1, 2]]),
        ((3, 5), 0, [[1, 2], [4, 4]]),
        ((0, 1, 3), 0, [[2, 2]]),
        ((0, 2), None, [[1, 1]]),
        # Numbers up to `after` neither show a hole nor hide one.
        ((1, 5, 8), 5, [[6, 7]]),
        ((1, 3, 8), 4, [[5, 7]]),
        ((1, 3), 3, []),
        # A number that comes late is not a hole, wherever it comes; nor is one that comes twice.
        ((1, 3, 2, 4), 0, []),
        ((5, 1), None, [[2, 4]]),
        ((5, 5, 7, 7), 4, [[6, 6]]),
        ((9, 8, 4), 2, [[3, 3], [5, 7]]),
        # The whole range of the numbers.
        ((0, TOP), None, [[1, TOP - 1]]),
        ((TOP,), 0, [[1, TOP - 1]]),
        ((TOP,), TOP - 1, []),
        ((TOP,), TOP, []),
        ((TOP, TOP - 2), TOP - 3, [[TOP - 1, TOP - 1]]),
        ((2**63 - 1, 2**63 + 1), None, [[2**63, 2**63]]),
    ],
)
def test_batch_gaps(numbers: tuple[int, ...], after: int | None, expected: list[list[int]]) -> None:
    found = numbered(*numbers).gaps(after)
    assert found.dtype == np.uint64
    assert found.shape == (len(expected), 2)
    assert found.tolist() == expected


@pytest.mark.parametrize("after", [-1, 2**64])
def test_batch_gaps_refuse_an_after_that_is_not_a_number(after: int) -> None:
    with pytest.raises(ValueError, match=f"after {after}"):
        numbered(1).gaps(after)
    with pytest.raises(ValueError, match=f"after {after}"):
        GapCursor(ring()[1], after)


def test_batch_gaps_of_a_mask_and_of_a_slice() -> None:
    whole = batch(1, 9)
    assert whole[whole.sequence % 3 != 0].gaps(0).tolist() == [[3, 3], [6, 6]]
    assert whole[4:].gaps(2).tolist() == [[3, 4]]


def test_emitted_sequence_is_none_until_something_was_tried() -> None:
    producer, consumer = ring(2)
    assert tried(consumer) is None
    producer.emit(event(0))
    assert consumer.emitted_sequence == 0
    producer.emit(event(1))
    assert not producer.emit(event(2))
    assert consumer.emitted_sequence == 2, "a number that was tried and dropped is one that was tried"
    consumer.drain()
    assert producer.emit(event(1))
    assert consumer.emitted_sequence == 2, "a retry of a lower number moved it back"
    producer.close()
    assert consumer.emitted_sequence == 2


def test_emitted_sequence_of_another_process(make_bus: BusMaker) -> None:
    bus = make_bus(capacity=2)
    with bus.consumer(0) as consumer, Peer(bus) as peer:
        peer.ask(claim_producer)
        assert tried(consumer) is None
        assert peer.ask(emit, 1, 4) == [True, True, False, False]
        assert consumer.emitted_sequence == 4
        peer.kill()
        assert consumer.emitted_sequence == 4


def test_cursor_reports_each_hole_once_and_the_tail_once_the_ring_is_empty() -> None:
    producer, consumer = ring(4)
    cursor = GapCursor(consumer)
    assert cursor.drain()[1].tolist() == []
    assert cursor.position == 0
    fill(producer, 2, 5)
    for each in (6, 7):
        assert not producer.emit(event(each))
    # Not all is taken yet: the tail is not a hole so far.
    for expected, holes in (([2, 3], [[1, 1]]), ([4, 5], []), ([], [[6, 7]]), ([], [])):
        drained, gaps = cursor.drain(2)
        assert sequences(drained) == expected
        assert gaps.tolist() == holes
        assert gaps.dtype == np.uint64
        assert gaps.shape == (len(holes), 2)
    assert cursor.position == 7
    # 7 comes late, after its report; then a hole between, and one behind.
    fill(producer, 7, 7)
    fill(producer, 9, 9)
    drained, gaps = cursor.drain()
    assert (sequences(drained), gaps.tolist(), cursor.position) == ([7, 9], [[8, 8]], 9)
    fill(producer, 8, 8)
    drained, gaps = cursor.drain()
    assert (sequences(drained), gaps.tolist(), cursor.position) == ([8], [], 9)


def test_cursor_reports_a_tail_before_the_first_event() -> None:
    producer, consumer = ring(1)
    fill(producer, 1, 1)
    assert not producer.emit(event(2))
    assert sequences(consumer.drain()) == [1]
    cursor = GapCursor(consumer, after=1)
    drained, gaps = cursor.drain()
    assert (len(drained), gaps.tolist()) == (0, [[2, 2]])


def test_a_cursor_does_not_report_events_that_arrive_while_it_waits() -> None:
    """It reads the last number tried, then drains: what comes in between is in the ring, and is not a hole."""
    producer, consumer = ring(4)
    cursor = GapCursor(consumer)

    class Late:
        """A consumer whose ring gets an event just after it was found empty."""

        @property
        def emitted_sequence(self) -> int | None:
            return consumer.emitted_sequence

        def drain(self, max_events: int, timeout: float | None) -> EventBatch:
            found = consumer.drain(max_events, timeout)
            if not len(found):
                fill(producer, 1, 1)
            return found

    late = GapCursor(Late())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    drained, gaps = late.drain()
    assert (len(drained), gaps.tolist()) == (0, [])
    drained, gaps = cursor.drain()
    assert (sequences(drained), gaps.tolist()) == ([1], [])


def test_cursor_at_the_highest_number() -> None:
    producer, consumer = ring(2)
    cursor = GapCursor(consumer, after=TOP - 2)
    assert producer.emit(event(TOP, lsn=0))
    drained, gaps = cursor.drain()
    assert (sequences(drained), gaps.tolist(), cursor.position) == ([TOP], [[TOP - 1, TOP - 1]], TOP)
    assert cursor.drain()[1].tolist() == []
