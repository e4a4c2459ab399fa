"""Logger nodedb_ring: what is said, at which level, with which fields, and how seldom."""

from __future__ import annotations

import gc
import logging
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nodedb_ring import EventConsumer, EventProducer
from tests.unit.builders import batch, event, fill, ring, sequences, sized

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
    reported = [(each.levelno, each.name) for each in caplog.records]
    assert reported == [(INFO, "nodedb_ring"), (WARNING, "nodedb_ring"), (INFO, "nodedb_ring")]
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
    logged_at = time.monotonic()  # its lines were logged before now
    while time.monotonic() - started < 0.5 or turns < 4:
        number = overflow(producer, consumer, number)
        turns += 1
    took = time.monotonic() - started
    if took < 1:  # a machine that stood still for a second shows nothing here
        assert (len(begun(caplog)), len(ended(caplog))) == (1, 1)
        assert count_of(ended(caplog)[0]) == 5
    while time.monotonic() - logged_at < 1.01:
        time.sleep(0.02)
    # The next call of the producer logs the rest, as one total.
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

    def __init__(self, error: BaseException | None = None) -> None:
        super().__init__()
        self.error = ZeroDivisionError("in the handler") if error is None else error
        self.raised = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.raised += 1
        raise self.error


@pytest.fixture
def raising(logger: logging.Logger) -> Raising:
    handler = Raising()
    logger.addHandler(handler)
    return handler


def reserve(producer: EventProducer, number: int) -> int:
    with producer.reserve(1) as rows:
        rows["op"] = 1
        rows["sequence"] = number
    published = rows.published
    assert isinstance(published, int)
    return published


def test_enqueued_events_are_returned_although_a_handler_raises(
    raising: Raising, capsys: pytest.CaptureFixture[str]
) -> None:
    producer, consumer = ring(2)
    # Throttled and suspended; the overflow begins, and ends; the pressure falls; the consumer goes.
    assert producer.emit(event(1))
    assert producer.emit_batch(batch(2, 4)) == 1
    assert raising.raised == 2
    consumer.drain()
    assert reserve(producer, 5) == 1
    assert raising.raised == 4
    assert producer.emit_batch(batch(6, 6)) == 1
    assert raising.raised == 5
    consumer.drain()
    assert producer.pressure_state.name == "NORMAL"
    assert raising.raised == 6
    consumer.close()
    assert producer.is_consumer_disconnected
    assert not producer.emit(event(7))
    assert raising.raised == 7
    producer.close()
    # Printed, as handlers of the standard library print their own errors.
    assert capsys.readouterr().err.count("ZeroDivisionError: in the handler") == raising.raised
    assert (producer.stats().emitted, producer.stats().dropped) == (4, 3)


def test_a_batch_waits_although_a_handler_raises(raising: Raising) -> None:
    producer, _consumer = ring(2)
    assert producer.emit_batch(batch(1, 3), timeout=0.01) == 2
    # Suspended, and the overflow that the end of the wait is.
    assert raising.raised == 2
    assert producer.stats().dropped == 1


def test_a_close_during_an_overflow_although_a_handler_raises(raising: Raising) -> None:
    producer, consumer = ring(2)
    assert producer.emit_batch(batch(1, 3)) == 2
    producer.close()
    assert raising.raised == 3
    assert sequences(consumer.drain()) == [1, 2]
    assert consumer.is_producer_disconnected


def test_a_filter_that_raises(logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(record: logging.LogRecord) -> bool:
        raise ZeroDivisionError(record.levelname)

    producer, _consumer = ring(1)
    logger.addFilter(refuse)
    try:
        assert producer.emit(event(1))
    finally:
        logger.removeFilter(refuse)
    assert "ZeroDivisionError: WARNING" in capsys.readouterr().err


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_handler_error_is_not_printed_if_stderr_is_closed_or_raiseExceptions_is_off(
    is_closed: bool, raising: Raising, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if is_closed:
        monkeypatch.setattr(sys, "stderr", None)
    else:
        monkeypatch.setattr(logging, "raiseExceptions", False)
    producer, _consumer = ring(1)
    assert producer.emit(event(1))
    assert raising.raised == 1
    assert capsys.readouterr().err == ""


def test_an_interrupt_in_a_handler_passes(logger: logging.Logger) -> None:
    producer, consumer = ring(1)
    handler = Raising(KeyboardInterrupt())
    logger.addHandler(handler)
    with pytest.raises(KeyboardInterrupt):
        producer.emit(event(1))
    logger.removeHandler(handler)
    assert sequences(consumer.drain()) == [1]


def test_a_log_record_names_the_caller(caplog: pytest.LogCaptureFixture) -> None:
    producer, _consumer = ring(1)
    assert producer.emit(event(1))
    assert [(each.filename, each.funcName) for each in caplog.records] == [
        (Path(__file__).name, "test_a_log_record_names_the_caller")
    ]


def test_an_overflow_among_enqueued_events_is_logged_as_an_overflow(caplog: pytest.LogCaptureFixture) -> None:
    producer, consumer = ring(2)
    number = overflow(producer, consumer, 1)
    first = number + 2
    while len(begun(caplog)) < 2:
        number = overflow(producer, consumer, number)
        time.sleep(0.02)
    alone, several = ended(caplog)
    assert alone.getMessage() == "core 0: the overflow is over; 5 of the events from sequence 3 to 7 were dropped"
    overflow_end = re.fullmatch(
        rf"core 0: the overflow is over; (\d+) of the events from sequence {first} to (\d+) were dropped",
        several.getMessage(),
    )
    assert overflow_end is not None
    # Of each eight numbers five.
    dropped, last = map(int, overflow_end.groups())
    assert (dropped % 5, last) == (0, first + dropped // 5 * 8 - 4)


def pressed(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage().split(" at ")[0].split()[-1] for each in caplog.records]


def send(producer: EventProducer, consumer: EventConsumer, number: int) -> int:
    """Two batches that may wait: after the first the ring is full, and after the second it is not; the next number."""
    assert producer.emit_batch(batch(number, number + 15), timeout=None) == 16
    consumer.drain()
    assert producer.emit_batch(batch(number + 16, number + 16), timeout=None) == 1
    consumer.drain()
    return number + 17


def test_batches_that_wait_tell_each_state_once_a_second(caplog: pytest.LogCaptureFixture) -> None:
    producer, consumer = ring(16)
    started = time.monotonic()
    number = 1
    for _ in range(100):
        number = send(producer, consumer, number)
    assert producer.stats().suspend_transitions == producer.stats().normal_transitions == 100
    most = 1 + int(time.monotonic() - started)
    # With the return from it at once: else the log would have it suspended for as long as nothing happens.
    assert pressed(caplog) in [["suspended", "normal"] * pairs for pairs in range(1, most + 1)]
    caplog.clear()
    while not caplog.records:
        time.sleep(0.02)
        number = send(producer, consumer, number)
    assert pressed(caplog) == ["suspended", "normal"]


def fill_too_soon(caplog: pytest.LogCaptureFixture) -> EventProducer:
    """A producer that a batch has left suspended, which has not been logged yet."""
    while True:
        producer, consumer = ring(16)
        send(producer, consumer, 1)
        producer.emit_batch(batch(18, 33), timeout=None)
        if pressed(caplog) == ["suspended", "normal"]:
            return producer
        # On a machine that paused for a second it was logged at once.
        caplog.clear()


def test_a_state_that_was_held_back_is_logged_at_the_close(caplog: pytest.LogCaptureFixture) -> None:
    producer = fill_too_soon(caplog)
    producer.close()
    assert pressed(caplog) == ["suspended", "normal", "suspended"]


def test_a_state_that_was_held_back_is_logged_when_it_is_read(caplog: pytest.LogCaptureFixture) -> None:
    producer = fill_too_soon(caplog)
    while len(caplog.records) == 2:
        time.sleep(0.02)
        assert producer.pressure_state.name == "SUSPENDED"
    assert pressed(caplog) == ["suspended", "normal", "suspended"]
    producer.close()
    assert len(caplog.records) == 3


def test_a_level_that_is_off_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    producer, consumer = ring(1024, arena_bytes=100)
    with caplog.at_level(WARNING, "nodedb_ring"):
        assert producer.emit(sized(1, 90))
        consumer.drain()
        assert producer.pressure_state.name == "NORMAL"
    assert caplog.records == []
