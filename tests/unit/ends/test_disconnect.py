"""Disconnects: a consumer that has closed or been collected is reported, a slow one is not."""

from __future__ import annotations

import gc
import logging

import pytest

from nodedb_ring import EventBatch, EventConsumer, EventProducer
from tests.unit.builders import batch, event, events, fill, ring, sequences
from tests.unit.runners import in_new_interpreter, in_thread


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if "gone" in each.getMessage()]


def test_full_the_consumer_lives_and_is_slow() -> None:
    producer, consumer = ring(2)
    fill(producer, 1, 2)
    assert not producer.emit(event(3))
    stats = producer.stats()
    assert (stats.dropped_full, stats.dropped_disconnected) == (1, 0)
    assert not producer.is_consumer_disconnected
    consumer.try_recv()
    assert producer.emit(event(4))


def test_disconnected_every_later_emit_returns_false() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 2)
    consumer.close()
    assert [producer.emit(event(n)) for n in (3, 4)] == [False, False]
    assert producer.emit_batch(batch(5, 9)) == 0
    stats = producer.stats()
    assert (stats.emitted, stats.dropped, stats.dropped_full, stats.dropped_disconnected) == (2, 7, 0, 7)
    assert (stats.first_dropped_sequence, stats.last_dropped_sequence) == (3, 9)
    assert producer.emitted_sequence == 9


def test_a_full_ring_that_is_gone_counts_as_gone() -> None:
    producer, consumer = ring(2)
    fill(producer, 1, 2)
    assert not producer.emit(event(3))
    consumer.close()
    assert not producer.emit(event(4))
    assert producer.emit_batch(batch(5, 6)) == 0
    stats = producer.stats()
    assert (stats.dropped_full, stats.dropped_disconnected) == (1, 3)


def test_is_consumer_disconnected_latches() -> None:
    producer, consumer = ring()
    seen = [producer.is_consumer_disconnected]
    consumer.close()
    seen += [producer.is_consumer_disconnected for _ in range(3)]
    del consumer
    seen.append(producer.is_consumer_disconnected)
    assert seen == [False, True, True, True, True]


def test_a_collected_consumer_has_gone() -> None:
    producer, consumer = ring()
    assert producer.emit(event())
    del consumer
    assert producer.is_consumer_disconnected
    assert not producer.emit(event(2))


def test_a_collected_producer_has_gone() -> None:
    producer, consumer = ring()
    fill(producer, 1, 3)
    del producer
    seen = [consumer.is_producer_disconnected]
    assert sequences(consumer.drain(timeout=None)) == [1, 2, 3]
    seen.append(consumer.is_producer_disconnected)
    assert seen == [False, True]
    assert len(consumer.drain(timeout=None)) == 0


@pytest.mark.parametrize(
    "build",
    [
        "circle = [producer, consumer]",
        "circle = [consumer, producer]",
        "fill(); circle = [consumer.lease(), producer, consumer]",
        "fill(); circle = [consumer.lease().batch, consumer, producer]",
        "fill(); circle = [consumer.drain(), consumer, producer, iter(consumer)]",
        "reservation = producer.reserve(2); reservation.__enter__(); circle = [reservation, producer, consumer]",
        "reservation = producer.reserve(2, 8); reservation.__enter__(); "
        "circle = [producer, reservation['op'], reservation]",
    ],
)
def test_ends_collected_in_a_cycle(build: str) -> None:
    # The collector clears what it finds in any order: a finalizer must not rely on what its object referred to.
    in_new_interpreter(
        "import gc\n"
        "from nodedb_ring import WriteEvent, WriteOp, create_event_bus\n"
        "def fill():\n"
        "    for n in range(4):\n"
        "        assert producer.emit(WriteEvent(sequence=n, collection='t', op=WriteOp.INSERT, row_id='', lsn=n))\n"
        "for _ in range(30):\n"
        "    [producer], [consumer] = create_event_bus(1, 8)\n"
        f"    {build}\n"
        "    circle.append(circle)\n"
        "    producer = consumer = reservation = circle = None\n"
        "    gc.collect()\n"
    )


def test_a_reservation_collected_in_a_cycle_frees_its_producer() -> None:
    producer, consumer = ring()
    reservation = producer.reserve(2)
    reservation.__enter__()
    circle: list[object] = [reservation]
    circle.append(circle)
    del circle, reservation
    gc.collect()
    assert producer.emit(event())
    assert consumer.try_recv() == event()


def test_one_warning_a_producer(caplog: pytest.LogCaptureFixture) -> None:
    producer, consumer = ring()
    consumer.close()
    assert warnings_of(caplog) == []
    for n in range(1, 10):
        assert not producer.emit(event(n))
        assert producer.is_consumer_disconnected
        producer.emit_batch(batch(n, n + 3))
    assert len(warnings_of(caplog)) == 1
    [record] = [each for each in caplog.records if "gone" in each.getMessage()]
    assert (record.name, record.levelno) == ("nodedb_ring", logging.WARNING)


@pytest.mark.parametrize("first", ["emit", "emit_batch", "reserve", "property"])
def test_the_first_call_that_notices_logs_it(first: str, caplog: pytest.LogCaptureFixture) -> None:
    producer, consumer = ring()
    consumer.close()
    if first == "emit":
        producer.emit(event())
    elif first == "emit_batch":
        producer.emit_batch(batch(1, 2))
    elif first == "reserve":
        with producer.reserve(1) as rows:
            rows["op"] = 1
    else:
        assert in_thread(lambda: producer.is_consumer_disconnected)
    assert len(warnings_of(caplog)) == 1


def test_each_producer_logs_its_own(caplog: pytest.LogCaptureFixture) -> None:
    ends = [ring(), ring()]
    for producer, consumer in ends:
        consumer.close()
        producer.emit(event())
    assert len(warnings_of(caplog)) == 2


def test_utilization_reads_0_when_nothing_is_queued() -> None:
    producer, consumer = ring(4)
    fill(producer, 1, 4)
    consumer.drain()
    consumer.close()
    assert producer.utilization == 0
    assert not producer.emit(event(5))
    assert producer.utilization == 0
    assert producer.pressure_state.name == "NORMAL"


def test_a_closed_producer_events_are_drained_to_the_last_one_before_the_disconnect() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 5)
    producer.close()
    received: list[int] = []
    while not consumer.is_producer_disconnected:
        received += sequences(consumer.drain(2, timeout=None))
    assert received == [1, 2, 3, 4, 5]
    assert consumer.try_recv() is None
    assert len(consumer.drain(timeout=None)) == 0


def test_leased_events_are_received_events() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 3)
    producer.close()
    with consumer.lease() as leased:
        assert consumer.is_producer_disconnected
        assert list(leased) == events(1, 3)


def test_an_empty_ring_of_a_living_producer_is_not_disconnected() -> None:
    producer, consumer = ring()
    assert not consumer.is_producer_disconnected
    fill(producer, 1, 1)
    consumer.drain()
    assert not consumer.is_producer_disconnected


def test_iteration_ends_once_the_producer_has_gone_and_the_ring_is_empty() -> None:
    producer, consumer = ring(4096)
    assert producer.emit_batch(batch(1, 3000)) == 3000
    producer.close()
    batches = list(consumer)
    assert [type(each) for each in batches] == [EventBatch] * 3
    assert sequences(EventBatch.concat(batches)) == list(range(1, 3001))
    assert list(consumer) == []


def test_either_end_outlives_the_other() -> None:
    producer: EventProducer | None
    consumer: EventConsumer | None
    producer, consumer = ring(4)
    fill(producer, 1, 2)
    del producer
    gc.collect()
    assert sequences(consumer.drain()) == [1, 2]
    producer, consumer = ring(4)
    fill(producer, 1, 2)
    del consumer
    gc.collect()
    assert producer.stats().emitted == 2
    assert producer.utilization == 50
