"""A ring and the log behind it as one stream: what it is called with, how it waits, what ends it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nodedb_ring import ClosedError, EventBatch, EventConsumer, EventLog, EventProducer, Follower, follow
from nodedb_ring.log import LiveEventLog
from tests.unit.builders import batch, event, fill, ring, sequences
from tests.unit.runners import Running
from tests.unit.shared_buses import BusMaker, Held, Peer, claim_producer, emit

from .following import TOP, flat, logged_ring
from .memory_log import LiveMemoryLog, MemoryLog


def test_the_logs_of_these_tests_are_logs() -> None:
    assert isinstance(MemoryLog(), EventLog)
    assert not isinstance(MemoryLog(), LiveEventLog)
    assert isinstance(LiveMemoryLog(), LiveEventLog)


# ---- what it is called with ------------------------------------------------------------------------------------------


def test_a_core_must_be_passed_if_there_is_no_consumer() -> None:
    with pytest.raises(TypeError, match="core_id"):
        follow(None, MemoryLog(), group="g")
    assert follow(None, MemoryLog(), group="g", core_id=3).core_id == 3
    assert follow(ring()[1], MemoryLog(), group="g").core_id == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": "middle"}, "start 'middle'"),
        ({"max_events": 0}, "max_events 0"),
        ({"after": -1}, "after -1"),
        ({"after": TOP}, f"after {TOP}"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        follow(ring()[1], MemoryLog(), group="g", **arguments)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


# ---- waiting, and the end --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, 0.01, 0.15])
def test_a_timeout_returns_an_empty_batch_and_does_not_end_the_stream(timeout: float) -> None:
    producer, consumer, log = logged_ring(4)
    follower = follow(consumer, log, group="g")
    assert len(follower.next_batch(timeout)) == 0
    assert not follower.ended
    producer.emit(event(1))
    assert sequences(follower.next_batch(timeout)) == [1]
    assert not follower.ended


def test_a_waiting_call_wakes_for_an_event_and_for_a_drop() -> None:
    producer, consumer, log = logged_ring(1)
    follower = follow(consumer, log, group="g")
    waiting = Running(lambda: [sequences(follower.next_batch()) for _ in range(3)])
    waiting.until_asleep()
    for number in (1, 2, 3):
        producer.emit(event(number))
    # Whether 2 and 3 were dropped, and come in one batch, is the threads' affair.
    producer.close()
    waiting_for = [number for numbers in waiting.result() for number in numbers]
    assert waiting_for == [1, 2, 3]


def test_it_ends_when_producer_ring_and_log_have_no_more() -> None:
    producer, consumer, log = logged_ring(2)
    producer.emit_batch(batch(1, 6))
    producer.close()
    follower = follow(consumer, log, group="g")
    assert [sequences(each) for each in follower] == [[1, 2], [3, 4, 5, 6]]
    assert follower.ended
    assert len(follower.next_batch()) == 0
    assert list(follower) == []
    # The log continues, as a successor's events would: it was no end for ever.
    log.put(7, 8)
    assert sequences(follower.next_batch()) == [7, 8]
    assert not follower.ended


def test_events_that_a_producer_logged_before_it_died_are_delivered() -> None:
    producer, consumer, log = logged_ring(4)
    follower = follow(consumer, log, group="g")
    producer.emit_batch(batch(1, 2))
    assert flat(follower) == [1, 2]
    # Appended, and not tried: no number of the ring shows it.
    log.put(3, 5)
    producer.close()
    assert consumer.emitted_sequence == 2
    assert [sequences(each) for each in follower] == [[3, 4, 5]]


def test_an_event_only_in_the_log_is_found_while_the_producer_lives() -> None:
    """The log is asked now and then: a producer may hang between its append and its emit."""
    producer, consumer, log = logged_ring(4)
    follower = follow(consumer, log, group="g")
    producer.emit_batch(batch(1, 2))
    assert flat(follower) == [1, 2]
    log.put(3, 3)
    assert sequences(follower.next_batch()) == [3]
    fill(producer.producer, 3, 3)
    assert flat(follower) == []
    assert follower.stats().duplicates == 1


@pytest.mark.parametrize("make", [MemoryLog, LiveMemoryLog])
def test_without_a_ring_it_follows_the_log_live_until_it_is_closed(make: Callable[[], MemoryLog]) -> None:
    log = make()
    log.put(1, 2)
    follower = follow(None, log, group="g", core_id=0)
    reader = Running(lambda: [sequences(each) for each in follower])
    for last in (2, 4, 6, 8):
        if last > 2:
            log.put(last - 1, last)
        while follower.position != last:
            time.sleep(0.001)
    reader.until_asleep()
    follower.close()
    assert [number for numbers in reader.result() for number in numbers] == list(range(1, 9))
    assert follower.ended
    assert isinstance(log, LiveMemoryLog) == hasattr(log, "waits")
    if isinstance(log, LiveMemoryLog):
        assert log.waits > 0, "a log that notifies was polled"


@pytest.mark.parametrize("with_ring", [False, True])
@pytest.mark.parametrize("make", [MemoryLog, LiveMemoryLog])
def test_close_from_another_thread_ends_a_waiting_call(with_ring: bool, make: Callable[[], MemoryLog]) -> None:
    producer, consumer = ring()
    follower = follow(consumer if with_ring else None, make(), group="g", core_id=0)
    waiting = Running(lambda: len(follower.next_batch()))
    waiting.until_asleep()
    follower.close()
    follower.close()
    assert waiting.result() == 0
    assert follower.ended
    with pytest.raises(ClosedError, match="core 0"):
        follower.next_batch(0)
    assert list(follower) == []
    assert producer.emit(event(1)), "the ring is not the follower's to close"
    assert not producer.is_consumer_disconnected


def test_a_follower_closed_while_an_iteration_begins_its_call_is_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed by another thread between the iterator's own check and its call: it ends, and does not raise."""
    follower = follow(None, MemoryLog(), group="g", core_id=0)
    checks = iter([False])
    monkeypatch.setattr(Follower, "_is_closed", property(lambda _: next(checks, True)))
    assert list(follower) == []


def test_it_is_a_context_and_commits_nothing_by_itself() -> None:
    log = MemoryLog()
    log.put(1, 3)
    with follow(None, log, group="g", core_id=0) as follower:
        assert flat(follower) == [1, 2, 3]
        assert repr(follower) == "<Follower of core 0, group 'g', at 3>"
    assert follower.ended
    assert log.saved == []
    assert repr(follow(None, MemoryLog(), group="h", core_id=2)) == (
        "<Follower of core 2, group 'h', before the first event>"
    )


def test_a_commit_covers_what_was_handed_out_and_no_more() -> None:
    producer, consumer = ring(8)
    log = MemoryLog()
    log.put(1, 9)
    follower = follow(consumer, log, group="g")
    fill(producer, 1, 2)
    fill(producer, 4, 5)
    fill(producer, 8, 9)
    expected = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    while expected:
        numbers = sequences(follower.next_batch(0))
        follower.commit()
        assert log.marks["g", 0] == numbers[-1]
        expected = expected[len(numbers) :]
        assert flat(follow(None, log, group="g", core_id=0)) == expected

    # The ring's events are gone with the first follower; the log has them for the next.


def test_lag_is_what_is_known_to_be_tried_and_not_handed_out() -> None:
    producer, consumer, log = logged_ring(2)
    follower = follow(consumer, log, group="g", after=0)
    assert follower.stats().lag == 0
    producer.emit_batch(batch(1, 5))
    assert follower.stats().lag == 5
    follower.next_batch(0)
    assert follower.stats().lag == 3
    assert follow(ring()[1], MemoryLog(), group="g").stats().lag == 0


# ---- between processes -----------------------------------------------------------------------------------------------


class Spool(MemoryLog):
    """A log that another process appends to: a file of numbers, one a line, of which each call reads the new ones."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.size = 0

    def last_sequence(self, core_id: int) -> int | None:
        self._load()
        return super().last_sequence(core_id)

    def read(self, core_id: int, first_sequence: int, last_sequence: int) -> Iterator[EventBatch]:
        self._load()
        return super().read(core_id, first_sequence, last_sequence)

    def _load(self) -> None:
        with open(self.path, "rb") as lines:
            lines.seek(self.size)
            new = lines.read()
        whole = new[: new.rfind(b"\n") + 1]
        self.size += len(whole)
        if whole:
            numbers = [int(line) for line in whole.split()]
            assert numbers == list(range(numbers[0], numbers[-1] + 1))
            self.put(numbers[0], numbers[-1])


def log_and_emit(held: Held, path: str, first: int, last: int) -> list[bool]:
    log_only(held, path, first, last)
    return emit(held, first, last)


def log_only(held: Held, path: str, first: int, last: int) -> None:
    with open(path, "a") as lines:
        lines.writelines(f"{number}\n" for number in range(first, last + 1))


def test_a_producer_killed_between_its_append_and_its_emit(make_bus: BusMaker, tmp_path: Path) -> None:
    path = f"{tmp_path}/log"
    bus = make_bus(capacity=4)
    with bus.consumer(0) as consumer, Peer(bus) as peer:
        peer.ask(claim_producer)
        assert peer.ask(log_and_emit, path, 1, 7) == [True] * 4 + [False] * 3
        follower = follow(consumer, Spool(path), group="g")
        assert flat(follower) == [1, 2, 3, 4, 5, 6, 7]
        assert peer.ask(log_and_emit, path, 8, 10) == [True] * 3
        peer.ask(log_only, path, 11, 12)
        peer.kill()
        rest = [number for each in follower for number in sequences(each)]
        assert rest == [8, 9, 10, 11, 12]
        assert len(follower.next_batch()) == 0
        # A successor continues behind the log, and so does the follower.
        with Peer(bus) as successor:
            successor.ask(claim_producer)
            assert successor.ask(log_and_emit, path, 13, 14) == [True, True]
            assert sequences(follower.next_batch()) == [13, 14]
            assert not follower.ended
            assert len(follower.next_batch(0)) == 0
            assert not follower.ended


def test_a_producer_killed_at_any_moment(make_bus: BusMaker, tmp_path: Path) -> None:
    """Nothing that the log has is lost or comes twice, wherever in its loop the producer dies."""
    path = f"{tmp_path}/log"
    log_only(Held(bus := make_bus(capacity=4)), path, 1, 0)
    last = 0
    with bus.consumer(0) as consumer:
        spool = Spool(path)
        follower = follow(consumer, spool, group="g")
        got: list[int] = []
        for _ in range(3):
            with Peer(bus) as peer:
                peer.ask(claim_producer)
                peer.post(produce_for_ever, path, last + 1)
                while len(got) < last + 200:
                    got += sequences(follower.next_batch())
                peer.kill()
            got += [number for each in follower for number in sequences(each)]
            last = spool.last_sequence(0) or 0
            assert got == list(range(1, last + 1))
        assert follower.stats().replayed > 0


def produce_for_ever(held: Held, path: str, first: int) -> None:
    with open(path, "a") as lines:
        while True:
            # Bursts of twice the ring, of which some are dropped, whichever side is faster.
            for number in range(first, first + 8):
                lines.write(f"{number}\n")
                lines.flush()
                held.producer.emit(event(number))
            first += 8
            time.sleep(0.001)


def test_a_producer_handle_that_is_collected_is_an_end() -> None:
    def emitting() -> tuple[EventConsumer, int | None]:
        producer: EventProducer
        producer, consumer = ring(2)
        fill(producer, 1, 2)
        return consumer, producer.emitted_sequence

    consumer, tried = emitting()
    assert tried == 2
    assert [sequences(each) for each in follow(consumer, MemoryLog(), group="g")] == [[1, 2]]
