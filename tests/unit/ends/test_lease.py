"""consumer.lease: read-only views of the ring's own memory, several at once, released in any order."""

from __future__ import annotations

import gc
import itertools
import math
import signal
import time
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nodedb_ring import (
    BusyError,
    ClosedError,
    EventBatch,
    EventBus,
    EventConsumer,
    EventProducer,
    Lease,
    RoleTaken,
    WriteEvent,
    WriteOp,
)
from tests.unit.builders import batch, event, events, fill, ring, sequences, sized
from tests.unit.runners import Running, in_thread

from .test_waiting import lease_numbers, on_signal, send, when_main_sleeps


def lap(producer: EventProducer, consumer: EventConsumer, first: int, rounds: int = 20) -> int:
    """Writes every row and every byte that is free, many times over; returns the next number."""
    for _ in range(rounds):
        while producer.emit(event(first, collection="~" * 7, new_value=b"~" * 9)):
            first += 1
        assert set(consumer.drain(10_000).strings("collection")) <= {"~" * 7}
    return first


def test_a_lease_is_what_waits_in_place() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 5)
    with consumer.lease() as leased:
        assert isinstance(leased, EventBatch)
        assert list(leased) == events(1, 5)
        assert leased.strings("row_id").tolist() == list("12345")
        assert consumer.stats().held == 5
        assert producer.ring.slots_in_use == 5
    assert consumer.stats().held == 0
    assert producer.ring.slots_in_use == 0
    assert producer.ring.bytes_in_use == 0


def test_views_of_the_ring_own_memory() -> None:
    producer, consumer = ring(4)
    addresses: list[int] = []
    for first in (1, 5, 9):
        fill(producer, first, first + 3)
        with consumer.lease() as leased:
            addresses.append(leased.records.__array_interface__["data"][0])
    assert len(set(addresses)) == 1


def assert_read_only(array: npt.NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="read-only"):
        array[0] = array[1]
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True


def test_read_only() -> None:
    producer, consumer = ring(4)
    fill(producer, 1, 2)
    with consumer.lease() as leased:
        for name in ("records", "payload", "sequence"):
            assert_read_only(getattr(leased, name))
    assert consumer.stats().held == 0


def test_at_most_max_events() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 5)
    with consumer.lease(2) as leased:
        assert sequences(leased) == [1, 2]
    with consumer.lease(max_events=100) as leased:
        assert sequences(leased) == [3, 4, 5]


def test_an_empty_ring_leases_an_empty_batch() -> None:
    _, consumer = ring(8)
    with consumer.lease() as leased:
        assert len(leased) == 0
        assert list(leased) == []
    assert consumer.stats().batches == 0


def test_one_contiguous_run_perhaps_shorter_than_asked() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 6)
    consumer.drain()
    fill(producer, 7, 12)
    with consumer.lease() as leased:
        assert sequences(leased) == [7, 8]  # to the end of the store
    with consumer.lease() as leased:
        assert sequences(leased) == [9, 10, 11, 12]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_several_at_once_released_in_any_order(order: tuple[int, ...]) -> None:
    producer, consumer = ring(8, arena_bytes=300)
    fill(producer, 1, 8)
    leases = [consumer.lease(2) for _ in range(4)]
    kept = [lease.batch for lease in leases]
    number = 9
    for done, which in enumerate(order):
        leases[which].release()
        # The rows that went back, and only those, are written again.
        last = number + 2 * done + 1
        fill(producer, number, last)
        assert not producer.emit(event(last + 1))
        assert sequences(consumer.drain()) == list(range(number, last + 1))
        number = last + 2
        for other in order[done + 1 :]:
            assert list(kept[other]) == events(2 * other + 1, 2 * other + 2)
    assert consumer.stats().held == 0
    assert producer.utilization == 0
    lap(producer, consumer, number)


def test_drains_and_try_recv_work_beside_leases() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 8)
    one = consumer.lease(2)
    assert consumer.try_recv() == event(3)
    two = consumer.lease(2)
    assert sequences(consumer.drain()) == [6, 7, 8]
    fill(producer, 9, 12)
    assert not producer.emit(event(13))
    assert list(one.batch) == events(1, 2)
    assert list(two.batch) == events(4, 5)
    one.release()
    assert sequences(consumer.drain()) == [9, 10, 11, 12]
    two.release()
    assert producer.utilization == 0


def test_arena_space_comes_back_at_the_oldest_event_that_is_held() -> None:
    producer, consumer = ring(8, arena_bytes=100)
    assert producer.emit(sized(1, 40))
    assert producer.emit(sized(2, 40))
    first, second = consumer.lease(1), consumer.lease(1)
    second.release()
    assert not producer.emit(sized(3, 41))
    assert producer.ring.bytes_in_use == 80
    assert list(first.batch) == [sized(1, 40)]
    first.release()
    assert producer.ring.bytes_in_use == 0
    assert producer.emit(sized(4, 100))


def test_a_lease_that_goes_round_the_arena_and_ends_without_payload() -> None:
    producer, consumer = ring(8, arena_bytes=64)
    for sequence, size in enumerate([10, 20, 30], 1):
        assert producer.emit(sized(sequence, size))
    consumer.drain(1)
    assert producer.emit(sized(4, 10))
    assert producer.emit(sized(5, 0))
    with consumer.lease() as leased:
        # Checked as a batch from outside is: every field lies within the payload.
        assert list(EventBatch(leased.records, leased.payload)) == [
            sized(2, 20),
            sized(3, 30),
            sized(4, 10),
            sized(5, 0),
        ]


def test_bytes_that_an_older_lease_holds_are_not_written() -> None:
    producer, consumer = ring(8, arena_bytes=90)
    for sequence in (1, 2, 3):
        assert producer.emit(sized(sequence, 30))
    leases = [consumer.lease(1) for _ in range(3)]
    leases[1].release()
    assert producer.ring.bytes_in_use == 90
    assert not producer.emit(sized(4, 1))
    assert [list(lease.batch) for lease in (leases[0], leases[2])] == [[sized(1, 30)], [sized(3, 30)]]
    leases[0].release()
    assert producer.ring.bytes_in_use == 30
    assert producer.emit(sized(5, 60))


def test_a_batch_is_unreadable_after_its_lease() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 4)
    with consumer.lease() as leased:
        part = leased[1:3]
        del part
    reads: list[Any] = [
        lambda: leased.records, lambda: leased.payload, lambda: leased.sequence, lambda: leased[0], lambda: leased[1:2],
        lambda: list(leased), lambda: leased.strings("row_id"), lambda: leased.values("new_value"),
        lambda: leased[np.ones(4, np.bool_)], lambda: EventBatch.concat([leased]), lambda: producer.emit_batch(leased),
    ]  # fmt: skip
    for read in reads:
        with pytest.raises(ClosedError, match="lease"):
            read()
    assert len(consumer.drain()) == 0


def test_a_copy_outlives_it() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 4)
    with consumer.lease() as leased:
        copies = [
            leased[[True, False, True, False]],
            EventBatch.concat([leased]),
            EventBatch(leased.records, leased.payload),
        ]
        names = leased.strings("row_id")
        whole = leased.sequence.copy()
    lap(producer, consumer, 5)
    assert [sequences(each) for each in copies] == [[1, 3], [1, 2, 3, 4], [1, 2, 3, 4]]
    assert copies[0].strings("row_id").tolist() == ["1", "3"]
    assert names.tolist() == list("1234")
    assert whole.tolist() == [1, 2, 3, 4]


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


# waiting


def test_a_lease_waits_for_the_first_event() -> None:
    producer, consumer = ring()
    waiter = Running(lambda: lease_numbers(consumer, None))
    waiter.until_asleep()
    fill(producer, 1, 1)
    assert waiter.result() == [1]
    assert consumer.stats().held == 0


def test_a_lease_of_nothing_when_the_time_is_over() -> None:
    _, consumer = ring()
    started = time.monotonic()
    assert lease_numbers(consumer, 0.05) == []
    assert time.monotonic() - started >= 0.05


@pytest.mark.parametrize("timeout", [None, 1000])
def test_a_lease_does_not_wait_for_a_producer_that_has_gone(timeout: float | None) -> None:
    producer, consumer = ring()
    fill(producer, 1, 1)
    producer.close()
    assert lease_numbers(consumer, timeout) == [1]
    assert lease_numbers(consumer, timeout) == []


def test_closing_the_consumer_ends_a_wait_for_a_lease() -> None:
    _, consumer = ring()
    waiter = Running(lambda: lease_numbers(consumer, None))
    waiter.until_asleep()
    consumer.close()
    assert waiter.result() == []
    with pytest.raises(ClosedError):
        consumer.lease(timeout=None)


def test_a_wait_for_a_lease_keeps_other_waits_away() -> None:
    producer, consumer = ring()
    refused: list[BusyError] = []

    def wait_as_well() -> None:
        for call in (consumer.lease, consumer.drain):
            with pytest.raises(BusyError) as caught:
                call(timeout=1)
            refused.append(caught.value)
        fill(producer, 1, 1)

    with on_signal(signal.SIGUSR1, wait_as_well):
        sender = when_main_sleeps(send(signal.SIGUSR1))
        assert lease_numbers(consumer) == [1]
        sender.result()
    assert len(refused) == 2


@pytest.mark.parametrize("timeout", [-1, math.nan])
def test_a_wrong_timeout_is_refused_before_anything_is_taken(timeout: float) -> None:
    producer, consumer = ring()
    fill(producer, 1, 1)
    with pytest.raises(ValueError, match=str(timeout)):
        consumer.lease(timeout=timeout)
    assert consumer.stats().held == 0
    assert sequences(consumer.drain()) == [1]


def test_a_successor_may_come_after_a_wait_for_a_lease_was_closed(bus: EventBus) -> None:
    consumer = bus.consumer(0)
    waiter = Running(lambda: lease_numbers(consumer, None))
    waiter.until_asleep()
    with pytest.raises(RoleTaken):
        bus.consumer(0)
    consumer.close()
    assert waiter.result() == []
    with bus.consumer(0) as successor:
        assert lease_numbers(successor, 0) == []
