"""Logger nodedb_ring: what is said, at which level, with which fields, and how seldom."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from nodedb_ring import EventProducer

from .making import batch, event, fill, ring, sequences, sized

INFO, WARNING = logging.INFO, logging.WARNING


@pytest.fixture(autouse=True)
def at_debug(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.DEBUG, "nodedb_ring"):
        yield


def lines(caplog: pytest.LogCaptureFixture, about: str) -> list[logging.LogRecord]:
    return [each for each in caplog.records if about in each.getMessage()]


def begun(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return lines(caplog, "overflows")


def ended(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return lines(caplog, "overflow is over")


def test_pressure_transitions(caplog: pytest.LogCaptureFixture) -> None:
    producer, consumer = ring(1024, arena_bytes=100)
    for n, size in enumerate((85, 10), 1):
        assert producer.emit(sized(n, size))
    consumer.try_recv()
    assert producer.pressure_state.name == "NORMAL"
    told = [(each.levelno, each.name) for each in caplog.records]
    assert told == [(INFO, "nodedb_ring"), (WARNING, "nodedb_ring"), (INFO, "nodedb_ring")]
    for record, word in zip(caplog.records, ("throttled", "suspended", "normal"), strict=True):
        assert word in record.getMessage().lower()


def test_each_transition_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    producer, consumer = ring(1024, arena_bytes=100)
    for turn in range(5):
        for n in range(100):
            assert producer.emit(sized(n, 1))
            producer.pressure_state  # noqa: B018
        consumer.drain()
        for _ in range(3):
            assert producer.pressure_state.name == "NORMAL"
            consumer.pressure_state  # noqa: B018
        assert len(caplog.records) == 3 * (turn + 1)


def test_leaving_suspended_to_throttled_enters_throttled(caplog: pytest.LogCaptureFixture) -> None:
    producer, consumer = ring(1024, arena_bytes=100)
    for n in range(96):
        assert producer.emit(sized(n, 1))
    consumer.drain(16)
    caplog.clear()
    assert producer.pressure_state.name == "THROTTLED"
    [record] = caplog.records
    assert (record.levelno, "throttled" in record.getMessage().lower()) == (INFO, True)


def extra(record: Any) -> tuple[int, int, int]:
    return record.core, record.utilization, record.dropped


def test_the_extra_fields(caplog: pytest.LogCaptureFixture) -> None:
    producer, consumer = ring(2)
    fill(producer, 1, 2)
    for n in (3, 4, 5):
        assert not producer.emit(event(n))
    [suspended] = lines(caplog, "suspended")
    assert extra(suspended) == (0, 100, 0)
    [beginning] = begun(caplog)
    assert extra(beginning) == (0, 100, 1)
    consumer.drain()
    assert producer.emit(event(6))
    [end] = ended(caplog)
    assert extra(end) == (0, 50, 3)
    consumer.close()
    producer.emit(event(7))
    [gone] = lines(caplog, "gone")
    assert extra(gone) == (0, 50, 4)


def test_an_overflow_is_one_line_when_it_begins_and_one_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    producer, consumer = ring(2)
    fill(producer, 1, 2)
    caplog.clear()
    for n in range(3, 500):
        assert not producer.emit(event(n))
    assert len(caplog.records) == 1
    [beginning] = begun(caplog)
    assert beginning.levelno == WARNING
    assert "3" in beginning.getMessage()
    consumer.drain()
    assert producer.emit(event(500))
    [end] = ended(caplog)
    assert end.levelno == WARNING
    # How many, first and last.
    for number in (497, 3, 499):
        assert str(number) in end.getMessage().replace(",", " ").split()


def test_an_overflow_of_batches(caplog: pytest.LogCaptureFixture) -> None:
    producer, consumer = ring(8)
    assert producer.emit_batch(batch(1, 20)) == 8
    assert producer.emit_batch(batch(21, 30)) == 0
    assert len(begun(caplog)) == 1
    assert ended(caplog) == []
    consumer.drain()
    assert producer.emit_batch(batch(31, 32)) == 2
    [end] = ended(caplog)
    for number in (22, 9, 30):
        assert str(number) in end.getMessage().replace(",", " ").split()


def test_closing_the_producer_ends_an_overflow(caplog: pytest.LogCaptureFixture) -> None:
    producer, _consumer = ring(1)
    fill(producer, 1, 1)
    assert not producer.emit(event(2))
    producer.close()
    assert (len(begun(caplog)), len(ended(caplog))) == (1, 1)


def overflow(producer: EventProducer, consumer: Any, number: int) -> int:
    """Drops 5 events and recovers; returns the next number."""
    while producer.emit(event(number)):
        number += 1
    for n in range(number + 1, number + 5):
        assert not producer.emit(event(n))
    consumer.drain()
    assert producer.emit(event(number + 5))
    consumer.drain()
    return number + 6


def count_of(record: logging.LogRecord) -> int:
    args: Any = record.args
    return int(args[1])


def test_at_most_one_pair_a_second_and_every_drop_in_one_of_them(caplog: pytest.LogCaptureFixture) -> None:
    producer, consumer = ring(2)
    started = time.monotonic()
    number, turns = overflow(producer, consumer, 1), 1
    told = time.monotonic()  # its lines were logged before now
    while time.monotonic() - started < 0.5 or turns < 4:
        number = overflow(producer, consumer, number)
        turns += 1
    took = time.monotonic() - started
    if took < 1:  # a machine that stood still for a second shows nothing here
        assert (len(begun(caplog)), len(ended(caplog))) == (1, 1)
        assert count_of(ended(caplog)[0]) == 5
    while time.monotonic() - told < 1.01:
        time.sleep(0.02)
    # The next call of the producer tells the rest, in one sum.
    assert producer.emit(event(number))
    pairs = list(zip(begun(caplog), ended(caplog), strict=True))
    assert 2 <= len(pairs) <= 1 + int(time.monotonic() - started)
    assert sum(count_of(end) for _, end in pairs) == producer.stats().dropped_full == 5 * turns


def test_never_a_line_an_event(caplog: pytest.LogCaptureFixture) -> None:
    producer, consumer = ring(1)
    started = time.monotonic()
    for n in range(1, 3001):
        producer.emit(event(n))
        if n % 7 == 0:
            consumer.try_recv()
    seconds = 1 + int(time.monotonic() - started)
    stats = producer.stats()
    allowed = 2 * seconds + stats.normal_transitions + stats.throttle_transitions + stats.suspend_transitions
    assert len(caplog.records) <= allowed
    assert len(begun(caplog)) <= seconds


def test_finalizers_do_not_log(caplog: pytest.LogCaptureFixture) -> None:
    producer, consumer = ring(1)
    fill(producer, 1, 1)
    assert not producer.emit(event(2))
    lease = consumer.lease()
    caplog.clear()
    del producer, consumer, lease
    gc.collect()
    assert caplog.records == []
    # Neither when the other end has gone before.
    producer, consumer = ring(1)
    consumer.close()
    del producer
    gc.collect()
    assert caplog.records == []


def test_a_quiet_ring_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    producer, consumer = ring(16)
    for n in range(1, 100):
        assert producer.emit(event(n))
        consumer.try_recv()
    with producer, consumer:
        pass
    assert caplog.records == []


class Emitting(logging.Handler):
    """A handler that emits in its turn, as one that captures logs would."""

    def __init__(self, producer: EventProducer) -> None:
        super().__init__()
        self.producer = producer
        self.results: list[bool] = []
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        if len(self.messages) < 50:
            self.results.append(self.producer.emit(event(1000 + len(self.messages), lsn=0)))


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    named = logging.getLogger("nodedb_ring")
    before = list(named.handlers)
    yield named
    named.handlers[:] = before


def test_a_handler_that_emits_finds_a_consistent_ring(logger: logging.Logger) -> None:
    producer, consumer = ring(4)
    handler = Emitting(producer)
    logger.addHandler(handler)
    outcomes = [producer.emit(event(n)) for n in range(1, 8)]
    got = sequences(consumer.drain(100))
    emitted = [n for n, enqueued in enumerate(outcomes, 1) if enqueued]
    emitted_there = [1001 + i for i, enqueued in enumerate(handler.results) if enqueued]
    assert sorted(got) == sorted(emitted + emitted_there)
    stats = producer.stats()
    assert stats.emitted == 4
    assert stats.emitted + stats.dropped == len(outcomes) + len(handler.results)
    assert 0 < len(handler.messages) < 10


class Raising(logging.Handler):
    """A handler that lets its errors out."""

    def emit(self, record: logging.LogRecord) -> None:
        raise ZeroDivisionError(record.getMessage())


def test_a_handler_that_raises_spoils_no_ring(logger: logging.Logger) -> None:
    producer, consumer = ring(2)
    handler = Raising()
    logger.addHandler(handler)
    raised = 0
    for n in range(1, 6):
        try:
            producer.emit(event(n))
        except ZeroDivisionError:
            raised += 1
    assert raised
    logger.removeHandler(handler)
    assert sequences(consumer.drain()) == [1, 2]
    stats = producer.stats()
    assert (stats.emitted, stats.dropped) == (2, 3)
    assert producer.emit(event(6))


def test_a_level_that_is_off_costs_no_line(caplog: pytest.LogCaptureFixture) -> None:
    producer, consumer = ring(1024, arena_bytes=100)
    with caplog.at_level(WARNING, "nodedb_ring"):
        assert producer.emit(sized(1, 90))
        consumer.drain()
        assert producer.pressure_state.name == "NORMAL"
    assert caplog.records == []
