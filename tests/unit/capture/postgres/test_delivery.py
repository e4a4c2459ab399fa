"""The outbox and what delivers, without a server: in which order, and what counts as delivered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from nodedb_ring import EventBatch, EventConsumer, EventProducer, create_event_bus
from nodedb_ring.capture.postgres.delivery import Delivery, Stopped
from nodedb_ring.capture.postgres.outbox import Outbox, Parcel
from nodedb_ring.capture.postgres.position import Position
from nodedb_ring.errors import CaptureError, LogUnavailableError
from tests.unit.recovery.memory_log import MemoryLog

SECONDS = 60.0


class Log(MemoryLog):
    """Calls the test before each append."""

    before: Callable[[], None] = staticmethod(lambda: None)

    def append(self, core_id: int, batch: EventBatch) -> None:
        self.before()
        super().append(core_id, batch)


class Core:
    """A ring, its log, and the outbox of a capture into both."""

    def __init__(self, capacity: int = 64, arena_bytes: int | None = None) -> None:
        self.producer: EventProducer
        self.consumer: EventConsumer
        [self.producer], [self.consumer] = create_event_bus(1, capacity=capacity, arena_bytes=arena_bytes)
        self.log = Log()
        self.stopping = threading.Event()
        self.delivery = Delivery(self.producer, self.log, self.stopping)
        self.outbox = Outbox(self.delivery, self.stopping)


@pytest.fixture
def core() -> Iterator[Core]:
    made = Core()
    yield made
    made.stopping.set()


def parcel(first: int, count: int, *, size: int = 1) -> Parcel:
    batch = EventBatch.from_columns(
        sequence=range(first, first + count), collection="t", op=1, row_id="r" * size, lsn=100 + first
    )
    return Parcel(batch, Position(100 + first, count), 108 + first)


def test_the_log_has_a_batch_before_the_ring_does_and_then_it_is_delivered(core: Core) -> None:
    inside, go_on = threading.Event(), threading.Event()
    emitted: list[int] = []

    def hold() -> None:
        emitted.append(core.producer.stats().emitted)
        inside.set()
        assert go_on.wait(SECONDS)

    core.log.before = hold
    with core.outbox as outbox:
        outbox.put(parcel(1, 3))
        assert inside.wait(SECONDS)
        before, waiting = outbox.delivered, outbox.oldest
        go_on.set()
        outbox.flush()
        assert before.end_lsn == 0
        assert waiting is not None
        assert outbox.oldest is None
        assert outbox.delivered == (109, Position(101, 3), 3)
    assert emitted == [0]
    assert len(core.consumer.drain()) == 3


def test_what_the_log_has_when_it_is_stopped_is_delivered() -> None:
    core = Core(capacity=4)
    with core.outbox as outbox:
        # More than the ring takes, and nobody drains it.
        outbox.put(parcel(1, 100))
        while core.log.last_sequence(0) != 100 or core.producer.stats().emitted == 0:
            outbox.check()
        core.stopping.set()
    assert outbox.delivered.last_sequence == 100


def test_what_the_log_has_not_when_it_is_stopped_is_not_delivered(core: Core) -> None:
    def fail() -> None:
        core.stopping.set()
        raise LogUnavailableError("no server")

    with core.outbox as outbox:
        outbox.put(parcel(1, 3))
        outbox.flush()
        core.log.before = fail
        outbox.put(parcel(4, 3))
        with pytest.raises(Stopped):
            outbox.flush()
    assert outbox.delivered.last_sequence == 3
    assert core.log.last_sequence(0) == 3


def test_an_error_ends_the_outbox_for_those_who_put(core: Core) -> None:
    def fail() -> None:
        raise OSError("the disk is full")

    core.log.before = fail
    with core.outbox as outbox:
        outbox.put(parcel(1, 3))
        with pytest.raises(OSError, match="the disk is full"):
            outbox.flush()
        with pytest.raises(OSError, match="the disk is full"):
            outbox.put(parcel(4, 3))
    assert outbox.delivered.end_lsn == 0


def test_a_change_larger_than_the_arena_is_not_in_the_log() -> None:
    core = Core(arena_bytes=65536)
    core.delivery.begin()
    with pytest.raises(CaptureError, match=r"table t: a change of 70001 bytes .*larger arena_bytes"):
        core.delivery.deliver(parcel(1, 1, size=70_000).batch)
    assert core.log.last_sequence(0) is None
