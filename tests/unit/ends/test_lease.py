"""consumer.lease: read-only views of the ring's own memory, several at once, released in any order; waits for one."""

from __future__ import annotations

import itertools
import math
import signal
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nodedb_ring import BusyError, ClosedError, EventBatch, EventBus, RoleTaken
from tests.unit.builders import event, events, fill, lap, ring, sequences, sized
from tests.unit.runners import Running

from .test_waiting import lease_numbers, on_signal, send, when_main_sleeps


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
