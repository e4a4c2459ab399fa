"""A follower that several threads touch: one of them has its turn, and its position may be read at any moment."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

import pytest

from nodedb_ring import BusyError, EventBatch, Follower, follow
from nodedb_ring.recovery.hand import Hand
from nodedb_ring.recovery.state import FollowState
from tests.unit.builders import batch, fill, ring, sequences

from .memory_log import MemoryLog

SECONDS = 20.0
TAKE: CodeType = Follower._take_new.__code__  # pyright: ignore[reportPrivateUsage]


class GatedLog(MemoryLog):
    """Counts the threads that read it at once, and keeps those but the main one until they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.append(0, batch(1, 2))
        self.inside = 0
        self.most = 0
        self.entered = threading.Event()
        self.let_go = threading.Event()

    def read(self, core_id: int, first_sequence: int, last_sequence: int) -> Iterator[EventBatch]:
        self.inside += 1
        self.most = max(self.most, self.inside)
        if threading.current_thread() is not threading.main_thread():
            self.entered.set()
            assert self.let_go.wait(SECONDS)
        self.inside -= 1
        return super().read(core_id, first_sequence, last_sequence)


def at_each_bytecode(code: CodeType, see: Callable[[int], object], call: Callable[[], object]) -> object:
    """Calls `call`, and `see` with the number of each bytecode of a function before that runs."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if frame.f_code is not code:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            count += 1
            see(count)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return call()
    finally:
        sys.settrace(before)


def test_one_of_two_threads_gets_the_turn_wherever_they_meet() -> None:
    """The second call begins before each bytecode of the first in turn, and stays in the log while that goes on."""
    met = 0
    for step in itertools.count(1):
        log = GatedLog()
        follower = follow(None, log, group="g", core_id=0)
        became: list[object] = []
        answered = threading.Event()

        def take(follower: Follower = follower) -> object:
            try:
                return sequences(follower._take_new(0.0))  # pyright: ignore[reportPrivateUsage]
            except BusyError:
                return "refused"

        def take_there(became: list[object] = became, answered: threading.Event = answered) -> None:
            became.append(take())
            answered.set()

        second = threading.Thread(target=take_there)

        def meet(
            count: int, log: GatedLog = log, second: threading.Thread = second, answered: threading.Event = answered
        ) -> None:
            if count == step:  # noqa: B023 - called in this turn
                second.start()
                while not log.entered.wait(0.001) and not answered.is_set():
                    pass

        became.append(at_each_bytecode(TAKE, meet, take))
        log.let_go.set()
        if second.ident is None:
            break
        second.join(SECONDS)
        assert log.most == 1
        assert became.count([1, 2]) == 1
        assert became.count("refused") + became.count([]) == 1
        met += "refused" in became
    assert met > 10


@pytest.mark.parametrize("source", ["ring", "log", "ring behind the log"])
@pytest.mark.parametrize("wants_heartbeats", [True, False])
def test_a_position_is_read_while_batches_are_taken(source: str, wants_heartbeats: bool) -> None:
    """At each moment it is that of a whole batch, and it never falls."""
    ways = (FollowState.drained, FollowState._take_piece, FollowState.deliver)  # pyright: ignore[reportPrivateUsage]
    for way in ways:
        log = MemoryLog()
        log.append(0, batch(1, 8))
        producer, consumer = ring(16)
        if source != "log":
            fill(producer, 1 if source == "ring" else 5, 8)
        follower = follow(
            None if source == "log" else consumer, log, group="g", core_id=0, max_events=4, heartbeats=wants_heartbeats
        )
        found: list[int] = []

        def look(_: int, follower: Follower = follower, found: list[int] = found) -> None:
            found.append(follower.position or 0)

        def take(follower: Follower = follower) -> None:
            for _ in range(2):
                assert len(follower.next_batch(0)) == 4

        at_each_bytecode(way.__code__, look, take)
        assert found == sorted(found)
        assert set(found) <= {0, 4, 8}
        assert follower.position == 8


def test_a_hand_is_read_while_batches_are_taken_out_of_it() -> None:
    """What another thread finds at each moment: never the first batch's place in the next one."""
    for code, stop in ((Hand.take.__code__, 2), (Hand.take.__code__, 4), (Hand.join.__code__, None)):
        hand = Hand()
        hand.batches = (batch(1, 4), batch(5, 5))
        hand.start = 1
        found: list[tuple[int | None, int]] = []

        def look(_: int, hand: Hand = hand, found: list[tuple[int | None, int]] = found) -> None:
            found.append((hand.first, len(hand)))

        def change(hand: Hand = hand, stop: int | None = stop) -> None:
            if stop is None:
                hand.join()
            else:
                hand.take(stop)

        at_each_bytecode(code, look, change)
        assert set(found) <= {(2, 4), (3, 3), (1, 5), (5, 1)}
