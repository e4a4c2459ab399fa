"""emit_batch with a timeout: a batch that waits for room rather than drop."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from nodedb_ring import ClosedError, EventBatch, EventTooLargeError, OwnershipError, logged
from nodedb_ring.log.sqlite import SqliteEventLog
from tests.unit.builders import batch, event, fill, ring, sequences, sized
from tests.unit.runners import Running, in_thread

from .full_rings import draining, full
from .test_waiting import when_main_sleeps

# emit_batch


def test_without_a_timeout_nothing_waits() -> None:
    producer, consumer = full()
    assert producer.emit_batch(batch(5, 7)) == 0
    assert producer.emit_batch(batch(8, 8), 0) == 0
    assert producer.emit_batch(batch(9, 9), timeout=0.0) == 0
    assert producer.stats().dropped_full == 5
    assert sequences(consumer.drain()) == [1, 2, 3, 4]


@pytest.mark.parametrize("timeout", [None, 3600, 1e300, math.inf])
def test_a_batch_waits_for_room(timeout: float | None) -> None:
    producer, consumer = full()

    def emit() -> int:
        producer.bind()
        return producer.emit_batch(batch(5, 6), timeout)

    waiter = Running(emit)
    waiter.until_asleep()
    assert sequences(consumer.drain(2)) == [1, 2]
    assert waiter.result() == 2
    assert sequences(consumer.drain()) == [3, 4, 5, 6]
    assert producer.stats().dropped == 0


@pytest.mark.parametrize("capacity", [1, 2, 16])
@pytest.mark.parametrize("packed", [True, False])
def test_a_batch_larger_than_the_ring_goes_through_it_whole(capacity: int, packed: bool) -> None:
    producer, consumer = ring(capacity)
    whole = batch(1, 500)
    if not packed:
        # Strings that rows share: each event is gathered for itself.
        whole = EventBatch.from_columns(
            sequence=list(range(1, 501)), lsn=1, op=1, collection="shared", row_id=[str(n) for n in range(500)]
        )
        whole = EventBatch(whole.records[::-1].copy(), whole.payload)
    with draining(consumer) as seen:
        assert producer.emit_batch(whole, timeout=None) == 500
        producer.close()
    assert seen == sequences(whole)
    assert producer.stats().dropped == 0


def test_payload_is_waited_for_too() -> None:
    producer, consumer = ring(16, arena_bytes=64)
    whole = EventBatch.from_events([sized(n, 1 + 13 * n % 63) for n in range(1, 200)])
    with draining(consumer, 2) as seen:
        assert producer.emit_batch(whole, timeout=None) == 199
        producer.close()
    assert seen == list(range(1, 200))


def test_the_pressure_of_a_batch_that_waits_is_counted_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    producer, consumer = ring(16)
    with caplog.at_level(logging.INFO, "nodedb_ring"), draining(consumer):
        assert producer.emit_batch(batch(1, 500), timeout=None) == 500
        assert producer.stats().suspend_transitions > 0
        # At most the state that it ended in.
        assert len(caplog.records) <= 1
        producer.close()


def test_the_state_that_a_batch_which_may_wait_ends_in_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Else the last that the log says of the ring would be that it is suspended."""
    producer, consumer = ring(64)
    with caplog.at_level(logging.INFO, "nodedb_ring"):
        assert producer.emit_batch(batch(1, 64)) == 64
        assert "suspended" in caplog.text
        consumer.drain()
        caplog.clear()
        assert producer.emit_batch(batch(65, 65), timeout=1.0) == 1
        assert producer.stats().normal_transitions == 1
        assert len(caplog.records) == 1
        assert "normal" in caplog.text


def test_when_the_time_is_over_the_rest_is_dropped_and_counted() -> None:
    producer, consumer = ring(4)
    started = time.monotonic()
    assert producer.emit_batch(batch(1, 9), timeout=0.05) == 4
    assert time.monotonic() - started >= 0.05
    stats = producer.stats()
    assert (stats.emitted, stats.dropped_full) == (4, 5)
    assert (stats.first_dropped_sequence, stats.last_dropped_sequence) == (5, 9)
    assert stats.emitted_sequence == 9
    assert sequences(consumer.drain()) == [1, 2, 3, 4]
    assert producer.emit(event(10))


def test_the_timeout_is_for_all_of_the_batch() -> None:
    """Room for one event a millisecond is not enough for a thousand in fifty."""
    producer, consumer = ring(1)
    stop = threading.Event()

    def trickle() -> None:
        consumer.bind()
        while not stop.wait(0.001):
            consumer.drain(1)

    taker = Running(trickle)
    assert producer.emit_batch(batch(1, 1000), timeout=0.05) < 1000
    stop.set()
    taker.result()


@pytest.mark.parametrize("how", ["closes", "is collected"])
def test_a_consumer_that_goes_ends_the_wait(how: str) -> None:
    producer, consumer = full()
    held = [consumer]
    del consumer

    def go() -> None:
        if how == "closes":
            held[0].close()
        held.clear()
        gc.collect()

    sender = when_main_sleeps(go)
    assert producer.emit_batch(batch(5, 7), timeout=None) == 0
    sender.result()
    assert producer.stats().dropped_disconnected == 3
    assert not producer.wait_for_room(1, None)
    assert producer.emit_batch(batch(8, 8), timeout=None) == 0


def test_closing_from_another_thread_ends_the_wait() -> None:
    producer, consumer = full()
    sender = when_main_sleeps(producer.close)
    assert producer.emit_batch(batch(5, 7), timeout=None) == 0
    sender.result()
    # Neither enqueued nor dropped: the end had gone.
    assert producer.stats().dropped == 0
    assert producer.stats().emitted_sequence == 4
    with pytest.raises(ClosedError):
        producer.emit_batch(batch(5, 5), timeout=None)
    assert [sequences(each) for each in consumer] == [[1, 2, 3, 4]]


def test_an_empty_batch_waits_for_nothing() -> None:
    producer, _consumer = full()
    assert producer.emit_batch(EventBatch.from_events([]), timeout=None) == 0


def test_one_that_could_never_fit_is_refused_and_not_waited_for() -> None:
    producer, _consumer = ring(4, arena_bytes=64)
    assert producer.emit(sized(1, 60))
    with pytest.raises(EventTooLargeError, match="65"):
        producer.emit_batch(EventBatch.from_events([event(2), sized(3, 65)]), timeout=None)
    assert producer.stats().emitted_sequence == 1


def test_the_lease_that_a_batch_is_of_may_end_meanwhile() -> None:
    source, reader = ring(16)
    fill(source, 1, 8)
    producer, consumer = ring(4)
    lease = reader.lease()
    batch_of_lease = lease.batch

    def end_and_make_room() -> None:
        lease.release()
        consumer.bind()
        consumer.drain()

    sender = when_main_sleeps(end_and_make_room)
    with pytest.raises(ClosedError, match="lease"):
        producer.emit_batch(batch_of_lease, timeout=None)
    sender.result()
    assert producer.stats().emitted == 4


class AtTheEndOfAnOverflow(logging.Handler):
    """Does something between a waiting batch's attempt and its wait: when the overflow before is logged as over."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__()
        self._call = call

    def emit(self, record: logging.LogRecord) -> None:
        if "over;" in record.getMessage():
            self._call()


@contextlib.contextmanager
def at_the_end_of_an_overflow(call: Callable[[], object]) -> Generator[None]:
    handler = AtTheEndOfAnOverflow(call)
    logger = logging.getLogger("nodedb_ring")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def test_a_lease_that_a_handler_of_the_log_ends_is_not_read_again() -> None:
    source, reader = ring(16)
    fill(source, 1, 8)
    producer, consumer = ring(4)
    producer.emit_batch(batch(1, 8))
    consumer.drain()
    lease = reader.lease()
    batch_of_lease = lease.batch
    with at_the_end_of_an_overflow(lease.release), pytest.raises(ClosedError, match="lease"):
        producer.emit_batch(batch_of_lease, timeout=None)


def test_a_handler_of_the_log_may_have_the_end_handed_on() -> None:
    """From then on it is that thread's, and this one must not write."""
    producer, consumer = ring(4)
    producer.emit_batch(batch(1, 8))
    consumer.drain()
    with at_the_end_of_an_overflow(lambda: in_thread(producer.bind)), pytest.raises(OwnershipError):
        producer.emit_batch(batch(9, 20), timeout=0.01)
    assert sequences(consumer.drain()) == [9, 10, 11, 12]


def test_leases_that_hold_most_of_the_ring_do_not_stop_it() -> None:
    """The consumer waits for the next event with all but one slot in its hands: the batch must not wait for more."""
    producer, consumer = ring(64)
    fill(producer, 1, 63)

    def emit() -> int:
        producer.bind()
        return producer.emit_batch(batch(64, 70), timeout=None)

    held = consumer.lease(63)
    waiter = Running(emit)
    for number in range(64, 71):
        assert sequences(consumer.drain(1, None)) == [number]
    assert waiter.result() == 7
    held.release()


# with a log


def test_a_logged_batch_waits_for_room(tmp_path: Path) -> None:
    producer, consumer = ring(4)
    with SqliteEventLog(tmp_path / "log") as log:
        core = logged(producer, log)
        with draining(consumer) as seen:
            assert core.emit_batch(batch(1, 50), timeout=None) == 50
            with pytest.raises(ValueError, match="-1"):
                core.emit_batch(batch(51, 52), timeout=-1)
            core.close()
        assert seen == list(range(1, 51))
        assert log.last_sequence(0) == 50
