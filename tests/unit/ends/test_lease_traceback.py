"""A lease that an exception ends: what its traceback keeps holds rows only where it can still be read."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nodedb_ring import ClosedError, EventBatch, EventConsumer
from tests.unit.builders import event, fill, lap, ring, sequences
from tests.unit.shared_buses import BusMaker


class Kept:
    """An exception that somebody keeps, and its traceback with it."""

    def __init__(self, consumer: EventConsumer, use: Callable[[EventBatch], object], most: int = 4) -> None:
        self.error: ZeroDivisionError | None = None
        try:
            with consumer.lease(most) as leased:
                use(leased)
        except ZeroDivisionError as error:
            self.error = error


def fail_beside(*_: object) -> None:
    raise ZeroDivisionError


def fail_with_slices(leased: EventBatch) -> None:
    part, other = leased[1:3], leased[:][1:]
    assert part.sequence.tolist() == [2, 3]
    assert part.payload.size == other.payload.size
    assert other.records.shape == (3,)
    whole, one = iter(leased), iter(other)
    assert next(whole) == event(1)
    assert next(one) == event(2)
    fail_beside(part, other, whole, one)


def fail_with_slices_and_arrays_of_the_batch(leased: EventBatch) -> None:
    assert leased.lsn.tolist() == [1, 2, 3, 4]
    fail_with_slices(leased)


def fail_with_a_column(leased: EventBatch) -> None:
    part = leased[1:3]
    column = part.sequence
    fail_beside(part, column)


class Records(logging.Handler):
    """The log records about leases. (The mutation gate runs without pytest's caplog.)"""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "lease" in record.getMessage():
            self.records.append(record)


@pytest.fixture
def reported() -> Iterator[list[logging.LogRecord]]:
    handler = Records()
    logging.getLogger("nodedb_ring").addHandler(handler)
    yield handler.records
    logging.getLogger("nodedb_ring").removeHandler(handler)


# The batch's own arrays die when the lease has ended, and give the rows back; without any, its end does.
@pytest.mark.parametrize("use", [fail_with_slices, fail_with_slices_and_arrays_of_the_batch])
@pytest.mark.parametrize("kind", ["private", "shared"])
def test_batches_that_a_traceback_keeps_hold_nothing(
    kind: str, use: Callable[[EventBatch], None], make_bus: BusMaker, reported: list[logging.LogRecord]
) -> None:
    bus = make_bus(1, 8)
    producer, consumer = ring(8) if kind == "private" else (bus.producer(0), bus.consumer(0))
    fill(producer, 1, 4)
    kept = Kept(consumer, use)
    assert consumer.stats().held == 0
    assert producer.utilization == 0
    assert reported == []
    trace = kept.error.__traceback__ if kept.error is not None else None
    while trace is not None and trace.tb_frame.f_code is not fail_with_slices.__code__:
        trace = trace.tb_next
    assert trace is not None
    for name in ("part", "other", "whole", "one"):
        with pytest.raises(ClosedError):
            list(trace.tb_frame.f_locals[name])
    lap(producer, consumer, 5)
    consumer.close()
    producer.close()


class Raising(logging.Handler):
    """A handler that lets its errors out."""

    def emit(self, record: logging.LogRecord) -> None:
        raise LookupError(record.getMessage())


def test_a_handler_of_the_log_that_raises_does_not_replace_the_exception(capsys: pytest.CaptureFixture[str]) -> None:
    producer, consumer = ring(16)
    fill(producer, 1, 8)
    handler = Raising()
    logging.getLogger("nodedb_ring").addHandler(handler)
    try:
        kept = Kept(consumer, fail_with_a_column)
    finally:
        logging.getLogger("nodedb_ring").removeHandler(handler)
    assert kept.error is not None
    assert "LookupError" in capsys.readouterr().err
    del kept
    gc.collect()
    assert consumer.stats().held == 0


def test_an_array_that_a_traceback_keeps_holds_the_rows_and_is_logged_once(reported: list[logging.LogRecord]) -> None:
    producer, consumer = ring(16)
    fill(producer, 1, 8)
    kept = [Kept(consumer, fail_with_a_column), Kept(consumer, fail_with_a_column)]
    assert consumer.stats().held == 8
    [warning] = reported
    assert warning.name == "nodedb_ring"
    assert warning.getMessage() == (
        "core 0: an exception ended a lease of 4 events, and 1 arrays still refer to it: its rows are released when the"
        " last of them dies; the traceback keeps those of its frames"
    )
    assert {name: getattr(warning, name) for name in ("core", "utilization", "dropped")} == {
        "core": 0,
        "utilization": 50,
        "dropped": 0,
    }
    for left in (4, 0):
        kept.pop()
        # An exception whose own frames know it is in a cycle.
        gc.collect()
        assert consumer.stats().held == left
    assert producer.utilization == 0


def test_a_slice_that_outlives_the_last_array_holds_nothing_either() -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 4)
    views: list[Any] = []

    def use(leased: EventBatch) -> None:
        views.extend([leased[2:], leased[1:].lsn])
        raise ZeroDivisionError

    assert Kept(consumer, use).error is not None
    assert consumer.stats().held == 4
    assert views.pop().tolist() == [2, 3, 4]
    assert consumer.stats().held == 0
    fill(producer, 5, 12)
    views.clear()
    assert sequences(consumer.drain()) == list(range(5, 13))


def test_without_an_exception_nothing_is_logged(reported: list[logging.LogRecord]) -> None:
    producer, consumer = ring(8)
    fill(producer, 1, 4)
    views: list[Any] = []
    with pytest.raises(BufferError), consumer.lease() as leased:
        views.append(leased.sequence)
    assert views[0].tolist() == [1, 2, 3, 4]
    assert reported == []
