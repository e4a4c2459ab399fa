"""Between any two instructions of one end's call the other end does its worst.

These are races that native traffic meets by chance, each at every instant there is.
"""

from __future__ import annotations

import gc
import itertools
import os
import signal
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from nodedb_ring import EVENT_DTYPE, EventBatch, EventBus, EventConsumer, WriteEvent, WriteOp

from .journal import memory_directory
from .stepping import Stepping, build
from .tracing import CONT, SINGLE_STEP, TRACEME, can_trace, is_stop, on_one_processor, ptrace, traced

ARENA_BYTES: Final = 64


@pytest.fixture(scope="module")
def stepping(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stepping]:
    """The compiled calls between two stops."""
    reason = can_trace()
    if reason:
        pytest.skip(reason)
    with on_one_processor():
        yield build(tmp_path_factory.mktemp("stepping"))


@pytest.fixture
def bus() -> Generator[EventBus]:
    """A shared ring that one event fills, its slot and its arena."""
    with (
        memory_directory() as directory,
        EventBus.create("step", 1, 1, arena_bytes=ARENA_BYTES, directory=directory) as bus,
    ):
        yield bus


def filling(sequence: int) -> WriteEvent:
    """An event of as many bytes as the arena has, other ones for each number."""
    return WriteEvent(
        sequence=sequence,
        collection="",
        op=WriteOp.INSERT,
        row_id="",
        lsn=sequence,
        new_value=bytes([sequence % 251]) * ARENA_BYTES,
    )


class Stepped:
    """A child that claims the consumer and stops before and after the calls that it makes between stops."""

    def __init__(self, bus: EventBus, body: Callable[[EventConsumer], None]) -> None:
        self.said = Path(bus.directory) / "said"
        self.pid = os.fork()
        if self.pid == 0:
            gc.disable()  # a collection would be of what the parent left, and no part of the call
            code = 1
            try:
                ptrace(TRACEME, 0)
                body(bus.consumer(0))
                code = 0
            except BaseException:
                self.said.write_text(traceback.format_exc())
            finally:
                os._exit(code)

    def go(self, request: int) -> bool:
        """Lets it continue, by one instruction or up to its next stop; False once it has ended, and well."""
        ptrace(request, self.pid)
        return self.has_stopped()

    def has_stopped(self) -> bool:
        """The same, for one that continues already."""
        _, status = os.waitpid(self.pid, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, self.said.read_text()
            return False
        self.is_between_calls = is_stop(status, signal.SIGSTOP)
        assert self.is_between_calls or is_stop(status, signal.SIGTRAP), f"the child ended with {status:#x}"
        return True


@contextmanager
def stepped(bus: EventBus, body: Callable[[EventConsumer], None]) -> Generator[Stepped]:
    child = Stepped(bus, body)
    with traced(child.pid):
        assert child.has_stopped()
        yield child


@pytest.mark.parametrize("take", ["pop", "drain", "try_recv"])
def test_a_taken_row_is_read_before_it_is_released(stepping: Stepping, bus: EventBus, take: str) -> None:
    """The producer writes wherever it may after every instruction of a call that takes an event."""

    def body(consumer: EventConsumer) -> None:
        event: WriteEvent | None = None
        if take == "pop":
            row, payload = np.zeros(EVENT_DTYPE.itemsize, np.uint8), np.zeros(ARENA_BYTES, np.uint8)
            assert stepping.pop(consumer.ring, row, payload) == 1
            event = EventBatch(row.view(EVENT_DTYPE), payload)[0]
        elif take == "drain":
            batch = stepping.between_stops(consumer.drain, 1)
            event = batch[0]
        else:
            event = stepping.between_stops(consumer.try_recv)
        assert event == filling(1)

    producer = bus.producer(0)
    assert producer.emit(filling(1))
    with stepped(bus, body) as child:
        while child.go(SINGLE_STEP) and not child.is_between_calls:
            producer.emit(filling(producer.next_sequence))
        assert not child.go(CONT)
    # It did come to write.
    assert producer.stats().emitted > 1
    producer.close()


def test_the_end_is_not_seen_before_the_last_event(stepping: Stepping, bus: EventBus) -> None:
    """The producer emits its last event and closes after each instruction of the consumer's check for its end."""

    def body(consumer: EventConsumer) -> None:
        while True:
            assert not stepping.producer_gone(consumer.ring), "gone, and an event is left"
            assert len(consumer.drain()) == 1

    producer = bus.producer(0)
    with stepped(bus, body) as child:
        for steps in itertools.count():
            for _ in range(steps):
                assert child.go(SINGLE_STEP)
                if child.is_between_calls:
                    # The check is over, and nothing had come: that was the last instant.
                    assert steps > 1
                    return
            assert producer.emit(filling(steps + 1))
            producer.close()
            # To the end of this check, and to the beginning of the next.
            assert child.go(CONT)
            assert child.is_between_calls
            producer = bus.producer(0)
            assert child.go(CONT)
