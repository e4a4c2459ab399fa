"""The end of a lease: views that still refer to it, and leases that nobody ended."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nodedb_ring import ClosedError, EventBatch, EventConsumer, Lease, WriteEvent, WriteOp
from tests.unit.builders import batch, event, events, fill, lap, ring, sequences, sized
from tests.unit.runners import in_thread

# BufferError


def leave_a_view(consumer: EventConsumer) -> npt.NDArray[np.uint64]:
    column: npt.NDArray[np.uint64] | None = None
    with pytest.raises(BufferError, match="lease of 4 events"), consumer.lease(4) as leased:
        column = leased.sequence
    assert column is not None
    return column


def test_an_array_that_still_refers_to_it_is_a_buffer_error() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 4)
    column = leave_a_view(consumer)
    assert column.tolist() == [1, 2, 3, 4]
    assert consumer.stats().held == 4


def test_the_rows_go_back_when_the_last_view_dies() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 4)
    column = leave_a_view(consumer)
    derived = column[2:][::-1]
    del column
    assert consumer.stats().held == 4
    assert derived.tolist() == [4, 3]
    del derived
    assert consumer.stats().held == 0
    assert producer.utilization == 0


def test_never_a_view_of_someone_else_data() -> None:
    producer, consumer = ring(8, arena_bytes=200)
    fill(producer, 1, 4)
    views: list[npt.NDArray[Any]] = []
    with pytest.raises(BufferError), consumer.lease() as leased:
        views = [leased.sequence, leased.payload, leased.records, leased.records["row_id_offset"]]
    before = [view.copy() for view in views]
    number = lap(producer, consumer, 5)
    for view, was in zip(views, before, strict=True):
        assert (view == was).all()
    while views:
        assert consumer.stats().held == 4
        view = views.pop()
        assert (view == before.pop()).all()
        del view
    assert consumer.stats().held == 0
    lap(producer, consumer, number)


@pytest.mark.parametrize("view", ["payload", "memoryview", "slice batch", "buffer"])
def test_a_view_keeps_its_lease(view: str) -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 4)
    held: Any = None
    with pytest.raises(BufferError), consumer.lease() as leased:  # noqa: PT012
        if view == "payload":
            held = leased.payload
        elif view == "memoryview":
            held = leased.payload.data
        elif view == "slice batch":
            held = leased[1:3]
        else:
            held = np.frombuffer(leased.payload, np.uint8)
    assert consumer.stats().held == 4
    del leased
    gc.collect()
    assert consumer.stats().held == 4
    del held
    gc.collect()
    assert consumer.stats().held == 0


def test_a_sub_batch_is_unreadable_too_and_holds_the_rows() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 4)
    part: EventBatch | None = None
    with pytest.raises(BufferError), consumer.lease() as leased:  # noqa: PT012
        part = leased[1:][1:]
        assert sequences(part) == [3, 4]
    assert part is not None
    with pytest.raises(ClosedError):
        list(part)
    assert consumer.stats().held == 4
    del part
    assert consumer.stats().held == 0


def test_another_exception_is_not_replaced() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 4)
    column: npt.NDArray[np.uint64] | None = None
    with pytest.raises(ZeroDivisionError), consumer.lease() as leased:  # noqa: PT012
        column = leased.sequence
        raise ZeroDivisionError
    assert column is not None
    assert column.tolist() == [1, 2, 3, 4]
    assert consumer.stats().held == 4
    del column
    assert consumer.stats().held == 0


def test_views_dropped_before_the_end_are_not_an_error() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 4)
    with consumer.lease() as leased:
        assert int(leased.sequence.sum()) == 10
        part = leased[2:]
        assert part.lsn.tolist() == [3, 4]
        del part
    assert consumer.stats().held == 0


def test_release_raises_as_the_block_does() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 4)
    lease = consumer.lease()
    column = lease.batch.sequence
    with pytest.raises(BufferError):
        lease.release()
    lease.release()
    with pytest.raises(ClosedError):
        _ = lease.batch
    assert column.tolist() == [1, 2, 3, 4]
    del column
    assert consumer.stats().held == 0


# dropping


def test_dropping_a_lease_gives_the_rows_back() -> None:
    producer, consumer = ring(4)
    fill(producer, 1, 4)
    lease = consumer.lease()
    assert not producer.emit(event(5))
    del lease
    assert consumer.stats().held == 0
    fill(producer, 5, 8)
    assert sequences(consumer.drain()) == [5, 6, 7, 8]


def test_a_batch_keeps_its_lease_alive() -> None:
    producer, consumer = ring(4, arena_bytes=100)
    fill(producer, 1, 4)
    kept = consumer.lease().batch
    gc.collect()
    lap(producer, consumer, 5)
    assert list(kept) == events(1, 4)
    assert consumer.stats().held == 4
    del kept
    assert consumer.stats().held == 0


def test_a_column_keeps_it_alive_too() -> None:
    producer, consumer = ring(4)
    fill(producer, 1, 4)
    column = consumer.lease().batch.sequence
    gc.collect()
    lap(producer, consumer, 5)
    assert column.tolist() == [1, 2, 3, 4]
    del column
    gc.collect()
    assert consumer.stats().held == 0


def test_dropping_it_in_a_cycle_gives_the_rows_back() -> None:
    producer, consumer = ring(4)
    fill(producer, 1, 4)
    circle: list[object] = [consumer.lease()]
    circle.append(circle)
    del circle
    gc.collect()
    assert consumer.stats().held == 0
    fill(producer, 5, 8)


def test_a_lease_outlives_its_consumer_and_its_producer() -> None:
    producer, consumer = ring(4)
    fill(producer, 1, 4)
    leased = consumer.lease().batch
    consumer.close()
    assert list(leased) == events(1, 4)
    del producer, consumer
    gc.collect()
    assert list(leased) == events(1, 4)
    gone = weakref.ref(leased)
    del leased
    assert gone() is None


def test_a_lease_may_end_on_another_thread() -> None:
    producer, consumer = ring(4)
    fill(producer, 1, 4)
    one, two = consumer.lease(2), consumer.lease(2)
    in_thread(two.release)
    boxes = [one]
    del one
    in_thread(boxes.clear)
    assert consumer.stats().held == 0
    fill(producer, 5, 8)
    assert sequences(consumer.drain()) == [5, 6, 7, 8]


def test_leases_over_many_laps_keep_the_ring_in_order() -> None:
    producer, consumer = ring(16, arena_bytes=700)
    rng = np.random.default_rng(3)
    out: list[tuple[Lease, list[WriteEvent]]] = []
    waiting: list[WriteEvent] = []
    number = delivered = 0
    while delivered < 5000:
        number += 1
        fresh = sized(number, int(rng.integers(0, 60)))
        if producer.emit(fresh):
            waiting.append(fresh)
        if rng.random() < 0.3:
            lease = consumer.lease(int(rng.integers(1, 6)))
            got = list(lease.batch)
            assert got == waiting[: len(got)]
            assert got or not waiting
            del waiting[: len(got)]
            out.append((lease, got))
            delivered += len(got)
        if out and rng.random() < 0.3:
            lease, wanted = out.pop(int(rng.integers(0, len(out))))
            assert list(lease.batch) == wanted
            lease.release()
        assert consumer.stats().held == sum(len(wanted) for _, wanted in out)
    assert producer.stats().dropped > 0


def test_pressure_falls_when_a_lease_ends() -> None:
    producer, consumer = ring(4)
    fill(producer, 1, 4)
    assert producer.pressure_state.name == "SUSPENDED"
    lease = consumer.lease()
    assert producer.pressure_state.name == "SUSPENDED"
    lease.release()
    assert producer.pressure_state.name == "NORMAL"


def test_batches_of_a_lease_can_be_drained_again_elsewhere() -> None:
    producer, consumer = ring(8)
    made = batch(1, 3)
    assert producer.emit_batch(made) == 3
    with consumer.lease() as leased:
        assert (leased.op == WriteOp.INSERT).all()
        assert list(EventBatch.concat([leased, made])) == events(1, 3) * 2
