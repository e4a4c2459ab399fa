"""emit_batch, and what fits: how many slots and bytes of arena an event needs, and what is refused for good."""

from __future__ import annotations

from typing import Any

import pytest

from nodedb_ring import EventBatch, EventTooLargeError
from tests.unit.builders import batch, event, events, fill, ring, sequences, sized

# emit_batch


def test_emit_batch_emits_in_order_and_says_how_many() -> None:
    producer, consumer = ring(16)
    assert producer.emit_batch(batch(1, 10)) == 10
    assert producer.emit_batch(batch(1, 0)) == 0
    assert list(consumer.drain()) == events(1, 10)


def test_emit_batch_enqueues_the_prefix_that_has_slots() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 3)
    assert producer.emit_batch(batch(4, 12)) == 5
    stats = producer.stats()
    assert (stats.emitted, stats.dropped, stats.dropped_full) == (8, 4, 4)
    assert (stats.first_dropped_sequence, stats.last_dropped_sequence) == (9, 12)
    assert producer.emitted_sequence == 12
    assert sequences(consumer.drain()) == list(range(1, 9))


def test_the_prefix_ends_at_the_first_event_without_payload_room() -> None:
    producer, consumer = ring(16, arena_bytes=100)
    # The fourth lacks room; the fifth would have it, and is dropped all the same: a prefix.
    made = EventBatch.from_events([sized(1, 30), sized(2, 30), sized(3, 30), sized(4, 11), sized(5, 1)])
    assert producer.emit_batch(made) == 3
    stats = producer.stats()
    assert (stats.dropped_full, stats.first_dropped_sequence, stats.last_dropped_sequence) == (2, 4, 5)
    assert list(consumer.drain()) == list(made)[:3]
    assert producer.emit_batch(made[3:]) == 2


def test_a_retry_counts_again() -> None:
    producer, _ = ring(2)
    assert producer.emit_batch(batch(1, 4)) == 2
    assert producer.emit_batch(batch(3, 4)) == 0
    assert not producer.emit(event(4))
    assert producer.stats().dropped == 2 + 2 + 1


def test_emit_batch_larger_than_the_ring() -> None:
    producer, consumer = ring(1024)
    assert producer.emit_batch(batch(1, 5000)) == 1024
    assert producer.stats().dropped == 5000 - 1024
    assert sequences(consumer.drain(5000)) == list(range(1, 1025))


def test_emit_batch_of_slices_and_masks() -> None:
    producer, consumer = ring(64)
    whole = batch(1, 20)
    for part in (whole[5:10], whole[::2], whole[whole.sequence > 17]):
        assert producer.emit_batch(part) == len(part)
        assert list(consumer.drain()) == list(part)


def test_emit_batch_of_a_lease() -> None:
    one, first = ring(16)
    other, second = ring(16)
    fill(one, 1, 10)
    with first.lease() as leased:
        assert other.emit_batch(leased) == 10
        assert other.emit_batch(leased[8:]) == 2
    assert list(second.drain()) == [*events(1, 10), *events(9, 10)]


def test_emit_batch_takes_batches_only() -> None:
    producer, _ = ring()
    wrong: Any = [event()]
    with pytest.raises(TypeError, match="EventBatch"):
        producer.emit_batch(wrong)


@pytest.mark.parametrize("size", [1, 2, 7, 64, 255, 256, 257, 1000])
def test_emit_batch_of_any_size(size: int) -> None:
    producer, consumer = ring(256, arena_bytes=9000)
    expected: list[int] = []
    seen: list[int] = []
    for first in range(1, 3001, size):
        done = producer.emit_batch(batch(first, first + size - 1))
        expected += range(first, first + done)
        seen += sequences(consumer.drain(4 * size))
    assert seen == expected
    assert seen


# too large is not a full ring


def test_an_event_that_could_never_fit_is_a_value_error() -> None:
    producer, consumer = ring(4, arena_bytes=100)
    with pytest.raises(EventTooLargeError, match=r"\b101\b.*\b100\b.*arena_bytes") as refused:
        producer.emit(sized(1, 101))
    assert isinstance(refused.value, ValueError)
    assert producer.emitted_sequence is None
    assert producer.stats().dropped == 0
    assert producer.emit(sized(1, 100))
    assert consumer.try_recv() == sized(1, 100)


def test_a_full_ring_does_not_hide_that_it_is_too_large() -> None:
    producer, _ = ring(1, arena_bytes=100)
    assert producer.emit(sized(1, 100))
    with pytest.raises(EventTooLargeError):
        producer.emit(sized(2, 101))


def test_a_batch_with_an_event_too_large_is_refused_whole() -> None:
    producer, consumer = ring(8, arena_bytes=100)
    with pytest.raises(EventTooLargeError, match=r"\b101\b"):
        producer.emit_batch(EventBatch.from_events([sized(1, 5), sized(2, 101), sized(3, 5)]))
    assert producer.stats().emitted == 0
    assert producer.emitted_sequence is None
    assert len(consumer.drain()) == 0
    assert producer.emit_batch(EventBatch.from_events([sized(1, 50), sized(2, 50)])) == 2


def test_events_that_share_payload_each_need_their_own() -> None:
    # 4 fields over the same 30 bytes: 120 in the arena.
    one: Any = EventBatch.from_columns(sequence=[1], collection="", op=1, row_id="", lsn=0, new_value=b"x" * 30)
    rows = one.records.copy()
    for name in ("collection", "row_id", "old_value"):
        rows[f"{name}_offset"], rows[f"{name}_length"] = rows["new_value_offset"], 30
    made = EventBatch(rows, one.payload)
    producer, consumer = ring(8, arena_bytes=119)
    with pytest.raises(EventTooLargeError, match=r"\b120\b"):
        producer.emit_batch(made)
    producer, consumer = ring(8, arena_bytes=120)
    assert producer.emit_batch(made) == 1
    assert list(consumer.drain()) == list(made)


# the arena


def test_the_whole_arena_serves_whenever_nothing_is_outstanding() -> None:
    producer, consumer = ring(8, arena_bytes=1000)
    for n in range(1, 500):
        size = 1000 if n % 2 else n
        assert producer.emit(sized(n, size))
        assert producer.ring.bytes_in_use == size
        assert consumer.try_recv() == sized(n, size)
        assert producer.ring.bytes_in_use == 0


def test_when_nothing_is_outstanding_the_arena_starts_again_at_its_beginning() -> None:
    producer, consumer = ring(8, arena_bytes=100)
    for n in range(1, 50):
        assert producer.emit(sized(n, 60))
        with consumer.lease() as leased:
            assert int(leased.records["new_value_offset"][0]) == 0
    producer, consumer = ring(1024)
    for first in range(1, 5000, 8):
        assert producer.emit_batch(batch(first, first + 7)) == 8
        with consumer.lease() as leased:
            assert len(leased) == 8
            assert int(leased.records["collection_offset"][0]) == 0


def test_a_span_never_wraps_and_nothing_is_overwritten() -> None:
    producer, consumer = ring(8, arena_bytes=100)
    assert producer.emit(sized(1, 40))
    assert producer.emit(sized(2, 40))
    assert consumer.try_recv() == sized(1, 40)
    # 20 bytes are left at the end, 40 at the beginning: it goes where it is contiguous.
    assert producer.emit(sized(3, 40))
    assert not producer.emit(sized(4, 1))
    with consumer.lease() as two:
        assert [int(start) for start in two.records["new_value_offset"]] == [40, 0]
        assert list(two) == [sized(2, 40), sized(3, 40)]
    assert producer.emit(sized(5, 100))


def test_free_but_not_contiguous_room_is_not_enough() -> None:
    producer, consumer = ring(8, arena_bytes=100)
    for n in (1, 2):
        assert producer.emit(sized(n, 30))
    assert consumer.try_recv() == sized(1, 30)
    # 40 bytes at the end and 30 at the beginning, but not 50 anywhere.
    assert not producer.emit(sized(3, 50))
    assert producer.emit(sized(4, 40))
    assert producer.emit(sized(5, 30))
    assert list(consumer.drain()) == [sized(2, 30), sized(4, 40), sized(5, 30)]


def test_events_without_payload_need_slots_only() -> None:
    producer, consumer = ring(8, arena_bytes=1)
    nothing = [event(n, collection="", row_id="") for n in range(1, 9)]
    assert all(producer.emit(each) for each in nothing)
    assert producer.ring.bytes_in_use == 0
    assert list(consumer.drain()) == nothing
