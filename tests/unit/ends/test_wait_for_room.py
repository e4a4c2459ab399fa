"""A producer that would rather wait than drop: emit_batch with a timeout, wait_for_room."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from nodedb_ring import (
    BusyError,
    ClosedError,
    EventBatch,
    EventBus,
    EventConsumer,
    EventProducer,
    EventTooLargeError,
    ForkError,
    OwnershipError,
    RoleTaken,
    logged,
)
from nodedb_ring.log.sqlite import SqliteEventLog
from tests.unit.builders import batch, event, fill, ring, sequences, sized
from tests.unit.runners import Running, in_thread, until_asleep
from tests.unit.shared_buses import Held, Peer, claim_consumer, claim_producer, close_consumer, drain, lease, release

from .test_waiting import Interrupted, on_signal, send, when_main_sleeps

WAITS: list[Callable[[EventProducer, float | None], object]] = [
    lambda producer, timeout: producer.emit_batch(batch(100, 100), timeout),
    lambda producer, timeout: producer.wait_for_room(1, timeout),
]


def full(capacity: int = 4) -> tuple[EventProducer, EventConsumer]:
    """A ring that holds 1, 2, ... and no more."""
    producer, consumer = ring(capacity)
    fill(producer, 1, capacity)
    return producer, consumer


@contextlib.contextmanager
def draining(consumer: EventConsumer, most: int = 3) -> Generator[list[int]]:
    """A thread takes a few at a time until the producer has gone, which the block sees to; then the list is whole."""
    seen: list[int] = []

    def take() -> None:
        consumer.bind()
        while len(some := consumer.drain(most, None)):
            seen.extend(sequences(some))

    taker = Running(take)
    yield seen
    taker.result()


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


# wait_for_room


@pytest.mark.parametrize("timeout", [None, 0, 0.01, 3600])
def test_room_that_is_there(timeout: float | None) -> None:
    producer, _consumer = ring(4)
    assert producer.wait_for_room(4, timeout)
    fill(producer, 1, 3)
    assert producer.wait_for_room(timeout=timeout)
    assert producer.stats().emitted_sequence == 3


def test_room_that_does_not_come() -> None:
    producer, consumer = full()
    assert not producer.wait_for_room(1, 0)
    started = time.monotonic()
    assert not producer.wait_for_room(1, 0.05)
    assert time.monotonic() - started >= 0.05
    consumer.drain(2)
    assert producer.wait_for_room(2, 0)
    assert not producer.wait_for_room(3, 0)
    assert producer.stats().dropped == 0


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_it_returns_when_there_is_room_for_all_and_it_stays(n: int) -> None:
    producer, consumer = full()

    def wait() -> int:
        producer.bind()
        assert producer.wait_for_room(n)
        with producer.reserve(n) as rows:
            rows["op"] = 1
            return len(rows)

    waiter = Running(wait)
    for _ in range(n):
        waiter.until_asleep()
        assert len(consumer.drain(1)) == 1
    assert waiter.result() == n


def test_room_for_payload() -> None:
    producer, consumer = ring(16, arena_bytes=100)
    assert producer.emit(sized(1, 40))
    assert producer.emit(sized(2, 40))
    assert producer.wait_for_room(1, 0, payload_bytes=20)
    assert not producer.wait_for_room(1, 0, payload_bytes=21)
    assert len(consumer.drain(1)) == 1
    # Behind the second there are 20 bytes still, and before it 40.
    assert producer.wait_for_room(2, 0, payload_bytes=40)
    assert not producer.wait_for_room(2, 0, payload_bytes=41)
    assert producer.emit(sized(3, 40))
    assert len(consumer.drain()) == 2
    assert producer.wait_for_room(16, 0, payload_bytes=100)
    assert producer.emit(sized(4, 100))


@pytest.mark.parametrize("n", [0, -1, 5, 2**70])
def test_more_than_the_ring_could_ever_have_is_refused(n: int) -> None:
    producer, _consumer = ring(4)
    with pytest.raises(ValueError, match=f"n {n}.*4"):
        producer.wait_for_room(n, 0)


def test_payload_that_could_never_fit_is_refused() -> None:
    producer, _consumer = ring(4, arena_bytes=100)
    with pytest.raises(EventTooLargeError, match=r"101.*100"):
        producer.wait_for_room(1, 0, payload_bytes=101)
    with pytest.raises(ValueError, match="-1"):
        producer.wait_for_room(1, 0, payload_bytes=-1)


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("timeout", [-1, -math.inf, math.nan])
def test_a_timeout_below_0_or_nan_is_refused(wait: Callable[..., object], timeout: float) -> None:
    producer, _consumer = ring()
    with pytest.raises(ValueError, match=str(timeout)):
        wait(producer, timeout)
    assert producer.stats().emitted == 0


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("timeout", ["soon", [1]])
def test_a_timeout_is_a_number(wait: Callable[..., object], timeout: Any) -> None:
    producer, _consumer = ring()
    with pytest.raises(TypeError):
        wait(producer, timeout)


@pytest.mark.parametrize("wait", WAITS)
def test_a_wrong_thread_a_reservation_and_a_closed_end_are_refused(wait: Callable[..., object]) -> None:
    producer, _consumer = full()
    with pytest.raises(OwnershipError):
        in_thread(lambda: wait(producer, 0))
    with producer.reserve(1), pytest.raises(BusyError, match="reservation"):
        wait(producer, 0)
    producer.close()
    with pytest.raises(ClosedError):
        wait(producer, 0)


@pytest.mark.parametrize("wait", WAITS)
def test_a_waiter_is_not_bound_away(wait: Callable[..., object]) -> None:
    producer, consumer = full()

    def bind_and_wait() -> object:
        producer.bind()
        return wait(producer, None)

    waiter = Running(bind_and_wait)
    waiter.until_asleep()
    with pytest.raises(BusyError, match="waits for room"):
        producer.bind()
    with pytest.raises(OwnershipError):
        producer.emit(event(9))
    consumer.drain()
    assert waiter.result()
    producer.bind()


# signals


@pytest.mark.parametrize("wait", WAITS)
def test_ctrl_c_interrupts_it(wait: Callable[..., object]) -> None:
    producer, consumer = full()
    sender = when_main_sleeps(send(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        wait(producer, None)
    sender.result()
    assert producer.stats().dropped == 0
    assert producer.stats().emitted_sequence == 4
    assert sequences(consumer.drain()) == [1, 2, 3, 4]
    assert producer.emit_batch(batch(5, 6), timeout=None) == 2


def test_a_handler_that_raises_leaves_what_was_enqueued_and_counts_no_more() -> None:
    producer, consumer = ring(4)

    def interrupt() -> None:
        raise Interrupted

    with on_signal(signal.SIGUSR1, interrupt):
        sender = when_main_sleeps(send(signal.SIGUSR1))
        with pytest.raises(Interrupted):
            producer.emit_batch(batch(1, 9), timeout=None)
        sender.result()
    assert producer.stats().dropped == 0
    # That is how the caller learns how far it came.
    assert producer.emitted_sequence == 4
    assert sequences(consumer.drain()) == [1, 2, 3, 4]


def test_a_handler_that_returns_lets_it_wait_on_and_signals_do_not_stretch_it() -> None:
    producer, _consumer = full()
    stop = threading.Event()
    handled: list[int] = []

    def pester() -> None:
        while not stop.wait(0.005):
            send(signal.SIGUSR1)()

    with on_signal(signal.SIGUSR1, lambda: handled.append(1)):
        sender = Running(pester)
        started = time.monotonic()
        assert not producer.wait_for_room(1, 0.1)
        assert producer.emit_batch(batch(5, 5), timeout=0.1) == 0
        assert time.monotonic() - started >= 0.2
        stop.set()
        sender.result()
    assert handled


@pytest.mark.parametrize("wait", WAITS)
def test_a_handler_may_close_the_producer(wait: Callable[..., object]) -> None:
    producer, consumer = full()
    with on_signal(signal.SIGUSR1, producer.close):
        sender = when_main_sleeps(send(signal.SIGUSR1))
        assert not wait(producer, None)
        sender.result()
    assert [sequences(each) for each in consumer] == [[1, 2, 3, 4]]


def forked_while_it_waits(call: Callable[[], object]) -> int:
    """What becomes of a child that a handler forks during a call: 7 for a ForkError, else 1. The parent continues."""
    parent = os.getpid()
    ended: list[int] = []

    def fork() -> None:
        with warnings.catch_warnings():
            # Python 3.12 warns of forking beside threads.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid:
            ended.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    with on_signal(signal.SIGUSR1, fork):
        sender = when_main_sleeps(send(signal.SIGUSR1))
        try:
            call()
        except ForkError:
            if os.getpid() != parent:
                os._exit(7)
            raise
        finally:
            if os.getpid() != parent:
                os._exit(1)
        sender.result()
    return ended[0]


def test_a_child_that_a_handler_forks_leaves_the_ring_alone(bus: EventBus) -> None:
    with bus.producer(0) as producer, bus.consumer(0) as consumer:
        fill(producer, 1, 16)
        assert forked_while_it_waits(lambda: producer.emit_batch(batch(17, 18), timeout=0.5)) == 7
        assert producer.stats().emitted == 16
        assert sequences(consumer.drain()) == list(range(1, 17))
        assert forked_while_it_waits(lambda: consumer.drain(timeout=0.5)) == 7
        fill(producer, 19, 20)
        assert sequences(consumer.drain()) == [19, 20]


def test_a_closed_end_cannot_be_bound() -> None:
    """Native code asks nothing but bind(): it would write where a successor does."""
    producer, consumer = ring()
    for end in (producer, consumer):
        end.close()
        with pytest.raises(ClosedError):
            end.bind()


def test_one_waiter_at_a_time_but_a_handler_may_emit() -> None:
    producer, consumer = full()
    refused: list[BusyError] = []

    def emit_as_well() -> None:
        assert not producer.emit(event(100))
        assert producer.emit_batch(batch(101, 102)) == 0
        for wait in WAITS:
            try:
                wait(producer, None)
            except BusyError as error:
                refused.append(error)

    def signal_then_room() -> None:
        send(signal.SIGUSR1)()
        while len(refused) < len(WAITS):
            time.sleep(0.001)
        until_asleep(threading.main_thread().native_id or 0)
        consumer.bind()
        consumer.drain()

    with on_signal(signal.SIGUSR1, emit_as_well):
        sender = when_main_sleeps(signal_then_room)
        assert producer.emit_batch(batch(200, 201), timeout=None) == 2
        sender.result()
    assert "core 0" in str(refused[0])
    consumer.bind()
    assert sequences(consumer.drain()) == [200, 201]


def test_a_handler_that_leaves_a_reservation_open_ends_the_wait() -> None:
    producer, consumer = full()
    reservation = producer.reserve(1)

    def enter_and_make_room() -> None:
        reservation.__enter__()
        consumer.drain(2)

    with on_signal(signal.SIGUSR1, enter_and_make_room):
        sender = when_main_sleeps(send(signal.SIGUSR1))
        with pytest.raises(BusyError, match="reservation"):
            producer.emit_batch(batch(5, 6), timeout=None)
        sender.result()
    reservation.__exit__(None, None, None)


# between processes


def emit_waiting(held: Held, first: int, last: int, timeout: float | None) -> int:
    return held.producer.emit_batch(batch(first, last), timeout)


def wait_for_room(held: Held, n: int, timeout: float | None) -> bool:
    return held.producer.wait_for_room(n, timeout)


def test_a_consumer_in_another_process_makes_room(bus: EventBus) -> None:
    with Peer(bus) as other, bus.producer(0) as producer:
        other.ask(claim_consumer)
        for first in range(1, 161, 16):
            fill(producer, first, first + 15)
            waiter = when_main_sleeps(lambda: other.post(drain))
            assert producer.wait_for_room(16)
            waiter.result()
            assert other.answer() == list(range(first, first + 16))


@pytest.mark.parametrize("kind", ["waits", "polls"])
def test_a_stream_through_a_small_shared_ring_arrives_whole(kind: str, bus: EventBus) -> None:
    with Peer(bus) as other, bus.consumer(0) as consumer:
        other.ask(claim_producer)
        other.post(emit_waiting, 1, 5000, None)
        seen: list[int] = []
        while len(seen) < 5000:
            seen += sequences(consumer.drain(5, None if kind == "waits" else 0.0))
        assert seen == list(range(1, 5001))
        assert other.answer() == 5000


@pytest.mark.parametrize("how", ["dies", "closes"])
def test_a_consumer_of_another_process_that_goes_ends_the_wait(how: str, bus: EventBus) -> None:
    with Peer(bus) as other, bus.producer(0) as producer:
        other.ask(claim_consumer)
        fill(producer, 1, 16)
        goer = when_main_sleeps(other.kill if how == "dies" else lambda: other.post(close_consumer))
        assert producer.emit_batch(batch(17, 20), timeout=None) == 0
        goer.result()
        assert producer.is_consumer_disconnected
        assert producer.stats().dropped_disconnected == 4


def test_a_consumer_that_has_not_come_yet_is_waited_for(bus: EventBus) -> None:
    with Peer(bus) as other:
        other.ask(claim_producer)
        other.post(emit_waiting, 1, 100, None)
        consumer = bus.consumer(0)
        seen: list[int] = []
        while len(seen) < 100:
            seen += sequences(consumer.drain(timeout=None))
        assert seen == list(range(1, 101))
        assert other.answer() == 100


def test_a_release_wakes_it_as_a_drain_does(bus: EventBus) -> None:
    with Peer(bus) as other, bus.producer(0) as producer:
        other.ask(claim_consumer)
        fill(producer, 1, 16)
        assert other.ask(lease) == list(range(1, 17))
        waiter = when_main_sleeps(lambda: other.post(release, 0))
        assert producer.wait_for_room(16)
        waiter.result()


def test_a_successor_s_releases_wake_a_producer_that_waits_on(bus: EventBus) -> None:
    """The dead consumer's end is taken over before the producer's next check for it."""
    with bus.producer(0) as producer, Peer(bus) as second:
        fill(producer, 1, 16)

        def take_over() -> None:
            second.ask(claim_consumer)
            assert second.ask(drain) == list(range(1, 17))

        waiter = when_main_sleeps(take_over)
        # The successor stays until this has returned: one that has gone again would end the wait, too.
        assert producer.wait_for_room(16)
        waiter.result()


def test_the_role_is_kept_while_a_call_waits(bus: EventBus) -> None:
    """A successor beside a call that has not returned would write where that does."""
    producer = bus.producer(0)
    fill(producer, 1, 16)
    refused: list[RoleTaken] = []

    def close_and_claim() -> None:
        producer.close()
        with pytest.raises(RoleTaken) as raised:
            bus.producer(0)
        refused.append(raised.value)

    with on_signal(signal.SIGUSR1, close_and_claim):
        sender = when_main_sleeps(send(signal.SIGUSR1))
        assert producer.emit_batch(batch(17, 18), timeout=None) == 0
        sender.result()
    assert len(refused) == 1
    with bus.producer(0) as successor:
        assert successor.next_sequence == 17


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
