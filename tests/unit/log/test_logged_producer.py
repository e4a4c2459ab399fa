"""The producer that writes the log first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nodedb_ring import (
    ClosedError,
    EventBatch,
    EventConsumer,
    EventProducer,
    EventTooLargeError,
    OwnershipError,
    PressureState,
    WriteEvent,
    WriteOp,
    create_event_bus,
)
from nodedb_ring.errors import BusyError, LogConflictError, LogUnavailableError
from nodedb_ring.log.producer import LoggedProducer, logged
from nodedb_ring.log.sqlite import SqliteEventLog

from .interrupting import Interrupts, handled, interrupted_at_each


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteEventLog]:
    with SqliteEventLog(tmp_path / "events.db") as opened:
        yield opened


def ring(capacity: int = 16, **options: Any) -> tuple[EventProducer, EventConsumer]:
    [producer], [consumer] = create_event_bus(1, capacity, **options)
    return producer, consumer


def event(sequence: int, value: bytes | None = None) -> WriteEvent:
    return WriteEvent(sequence=sequence, collection="t", op=WriteOp.INSERT, row_id="r", lsn=1, new_value=value)


def batch_of(*sequences: int) -> EventBatch:
    return EventBatch.from_events([event(sequence) for sequence in sequences])


def stored(log: SqliteEventLog) -> list[int]:
    return [int(number) for batch in log.read(0, 0, 1000) for number in batch.sequence]


class FailingLog(SqliteEventLog):
    """One that cannot append while `failing`."""

    failing = False

    def append(self, core_id: int, batch: EventBatch) -> None:
        if self.failing:
            raise OSError(28, "no space")
        super().append(core_id, batch)


class WatchingLog(SqliteEventLog):
    """Records what the ring holds at the moment of each append."""

    consumer: EventConsumer
    seen: list[int]

    def append(self, core_id: int, batch: EventBatch) -> None:
        super().append(core_id, batch)
        self.seen.append(len(self.consumer.drain(100)))


def test_an_emitted_event_is_in_log_and_ring(log: SqliteEventLog) -> None:
    producer, consumer = ring()
    with logged(producer, log) as both:
        assert isinstance(both, LoggedProducer)
        assert (both.producer, both.log, both.core_id) == (producer, log, 0)
        assert both.pressure_state is PressureState.NORMAL
        assert both.next_sequence == 1
        assert both.emit(event(1, b"v"))
        assert both.next_sequence == 2
        assert both.emit_batch(batch_of(2, 3, 5)) == 3
        assert both.next_sequence == 6
    assert list(consumer.drain(10)) == [event(1, b"v"), *batch_of(2, 3, 5)]
    assert [list(batch) for batch in log.read(0, 0, 9)] == [[event(1, b"v")], list(batch_of(2, 3, 5))]


def test_the_log_is_written_first(tmp_path: Path) -> None:
    producer, consumer = ring()
    with WatchingLog(tmp_path / "watched.db") as log:
        log.consumer, log.seen = consumer, []
        both = logged(producer, log)
        both.emit(event(1))
        assert log.seen == [0]
        both.emit_batch(batch_of(2, 3))
        assert log.seen == [0, 1]
        assert len(consumer.drain(10)) == 2


def test_an_event_that_the_ring_drops_is_in_the_log(log: SqliteEventLog) -> None:
    producer, consumer = ring(4)
    both = logged(producer, log)
    assert both.emit_batch(batch_of(*range(1, 7))) == 4
    assert both.emit(event(7)) is False
    assert both.pressure_state is PressureState.SUSPENDED
    assert producer.stats().dropped == 3
    assert stored(log) == [1, 2, 3, 4, 5, 6, 7]
    assert list(consumer.drain(10).sequence) == [1, 2, 3, 4]
    consumer.close()
    assert both.emit(event(8)) is False
    assert stored(log)[-1] == 8


def test_an_event_that_the_log_refuses_is_not_emitted(tmp_path: Path) -> None:
    producer, consumer = ring()
    with FailingLog(tmp_path / "failing.db") as log:
        both = logged(producer, log)
        both.emit(event(1))
        log.failing = True
        with pytest.raises(OSError, match="no space"):
            both.emit(event(2))
        with pytest.raises(OSError, match="no space"):
            both.emit_batch(batch_of(2, 3))
        assert both.next_sequence == 2
        log.failing = False
        both.emit(event(2))
    assert list(consumer.drain(10).sequence) == [1, 2]
    assert producer.stats().dropped == 0


@pytest.mark.parametrize("numbers", [(5,), (4,), (6, 6), (7, 6), (5, 6)])
def test_numbers_are_checked_before_anything(log: SqliteEventLog, numbers: tuple[int, ...]) -> None:
    producer, consumer = ring()
    both = logged(producer, log)
    both.emit(event(5))
    with pytest.raises(LogConflictError):
        both.emit_batch(batch_of(*numbers))
    assert stored(log) == [5]
    assert len(consumer.drain(10)) == 1
    assert producer.stats().dropped == 0


def test_the_first_number_may_be_zero(log: SqliteEventLog) -> None:
    producer, _consumer = ring()
    both = logged(producer, log)
    assert both.emit(event(0))
    assert both.next_sequence == 1
    with pytest.raises(LogConflictError):
        both.emit(event(0))


def test_numbers_continue_after_the_logs_last(log: SqliteEventLog) -> None:
    log.append(0, batch_of(40, 41))
    producer, _consumer = ring()
    both = logged(producer, log)
    assert both.next_sequence == 42
    with pytest.raises(LogConflictError, match="number events from 42 on"):
        both.emit(event(41))
    assert both.emit(event(42))


def test_numbers_continue_after_the_rings_last(log: SqliteEventLog) -> None:
    producer, _consumer = ring()
    producer.emit(event(70))
    both = logged(producer, log)
    assert both.next_sequence == 71
    with pytest.raises(LogConflictError, match="number events from 71 on"):
        both.emit(event(70))
    assert stored(log) == []


def test_another_writer_is_noticed(log: SqliteEventLog) -> None:
    producer, consumer = ring()
    both = logged(producer, log)
    both.emit(event(1))
    log.append(0, batch_of(2, 3))
    with pytest.raises(LogConflictError, match="the log has 3 already"):
        both.emit(event(2))
    assert both.next_sequence == 4
    assert both.emit(event(4))
    assert list(consumer.drain(10).sequence) == [1, 4]


def test_nothing_is_appended_that_the_ring_would_refuse(log: SqliteEventLog) -> None:
    producer, consumer = ring(16, arena_bytes=4096)
    both = logged(producer, log)
    both.emit(event(1))
    with pytest.raises(EventTooLargeError, match="sequence 3: payload of 5002 bytes; the arena of core 0 has 4096"):
        both.emit_batch(EventBatch.from_events([event(2), event(3, bytes(5000))]))
    refused: list[BaseException] = []

    def elsewhere() -> None:
        try:
            both.emit(event(2))
        except OwnershipError as error:
            refused.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(refused) == 1
    # Larger in all than the arena, but no single event is.
    assert both.emit_batch(EventBatch.from_events([event(n, bytes(1500)) for n in range(2, 6)])) == 2
    both.close()
    with pytest.raises(ClosedError):
        both.emit(event(6))
    assert stored(log) == [1, 2, 3, 4, 5]
    assert not log.closed
    assert len(consumer.drain(10)) == 3


def test_an_interrupted_emit_does_not_conflict_with_the_next(log: SqliteEventLog, interrupts: Interrupts) -> None:
    """Wherever the signal comes, ``next_sequence`` is the number that the log takes next, and so shows what it has."""
    producer, consumer = ring(1024)
    both = logged(producer, log)
    before = 0

    def begin() -> Callable[[], object]:
        nonlocal before
        before = both.next_sequence
        batch = batch_of(before, before + 1)
        return lambda: both.emit_batch(batch)

    outcomes: set[int] = set()
    for _ in interrupted_at_each(interrupts, begin):
        last = log.last_sequence(0) or 0
        assert both.next_sequence == last + 1
        outcomes.add(last + 1 - before)
        assert both.emit(event(last + 1))
        assert both.next_sequence == last + 2
        assert f"next_sequence={last + 2} " in repr(both)
    assert outcomes == {0, 2}
    in_ring = [int(number) for number in consumer.drain(4096).sequence]
    in_log = [int(number) for batch in log.read(0, 0, 10**6) for number in batch.sequence]
    assert in_log == list(range(1, len(in_log) + 1))
    assert in_ring == sorted(in_ring)
    assert set(in_ring) <= set(in_log)


def test_a_handler_cannot_emit_in_the_midst_of_an_emit(log: SqliteEventLog, interrupts: Interrupts) -> None:
    """It is refused, or comes before or after: the ring and the log have the same order."""
    producer, consumer = ring(4096)
    both = logged(producer, log)
    conflicts, at, came = 0, 0, True
    with handled(lambda: both.emit(event(both.next_sequence))) as done:
        while came:
            number = both.next_sequence
            batch = batch_of(number, number + 1)
            try:
                came = interrupts.call_interrupted(lambda: both.emit_batch(batch), at, signal.SIGTERM)  # noqa: B023
            except LogConflictError:
                conflicts += 1
            at += 1
    in_ring = [int(number) for number in consumer.drain(4096).sequence]
    in_log = [int(number) for batch in log.read(0, 0, 10**6) for number in batch.sequence]
    assert in_ring == in_log == list(range(1, len(in_log) + 1))
    assert conflicts
    refused = [error for error in done if error is not None]
    assert {type(error) for error in refused} == {BusyError}
    assert "core 0: an emit is in progress" in str(refused[0])
    assert len(refused) < len(done)


@pytest.mark.parametrize("is_stored", [True, False])
def test_after_a_log_that_failed_the_log_is_asked(log: SqliteEventLog, is_stored: bool) -> None:
    """A server that does not answer may have stored it."""
    producer, consumer = ring()
    both = logged(producer, log)
    both.emit(event(1))
    append = log.append

    def unanswered(core_id: int, batch: EventBatch) -> None:
        if is_stored:
            append(core_id, batch)
        raise LogUnavailableError("no answer")

    log.append = unanswered  # type: ignore[method-assign]
    with pytest.raises(LogUnavailableError):
        both.emit(event(2))
    del log.append
    assert "next_sequence=unknown" in repr(both)
    assert both.next_sequence == 2 + is_stored
    assert both.emit(event(2 + is_stored))
    assert both.next_sequence == 3 + is_stored
    assert stored(log) == [1, 2, 3] if is_stored else [1, 2]
    assert [int(number) for number in consumer.drain(10).sequence] == [1, 2 + is_stored]


def test_an_empty_batch_does_nothing(log: SqliteEventLog) -> None:
    producer, _consumer = ring()
    both = logged(producer, log)
    assert both.emit_batch(batch_of()) == 0
    assert both.next_sequence == 1


def test_invalid_events(log: SqliteEventLog) -> None:
    producer, _consumer = ring()
    both = logged(producer, log)
    with pytest.raises(TypeError, match="must be a WriteEvent"):
        both.emit("event")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="must be an EventBatch"):
        both.emit_batch([event(1)])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert stored(log) == []
