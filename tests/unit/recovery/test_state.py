"""The state machine of a follower, without a driver: each row of the table in ``nodedb_ring/recovery/need.py``."""

from __future__ import annotations

import time

import pytest

from nodedb_ring import GapError
from nodedb_ring.recovery import state as module
from nodedb_ring.recovery.state import NOTHING, FollowState, Need
from tests.unit.builders import batch, sequences

from .memory_log import MemoryLog


class Ring:
    """What the state machine asks of a consumer."""

    emitted_sequence: int | None = None
    is_producer_disconnected = False


def following(ring: Ring | None, log: MemoryLog, owed: int = 1) -> FollowState:
    return FollowState(ring, log, core_id=0, owed=owed, wants_heartbeats=False)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def at_wait(ring: Ring, log: MemoryLog, owed: int = 1) -> FollowState:
    """One that found nothing in the ring and nothing in the log."""
    state = following(ring, log, owed)
    assert state.begin(None) is Need.DRAIN
    assert state.drained(NOTHING) is Need.LAST
    assert state.ask_log(Need.LAST) is Need.WAIT
    return state


def test_drained_events_without_a_hole_are_returned() -> None:
    ring, log = Ring(), MemoryLog()
    state = following(ring, log)
    for first in (1, 4):
        assert state.begin(None) is Need.DRAIN
        assert state.drained(batch(first, first + 2)) is Need.RETURN
        assert sequences(state.deliver()) == [first, first + 1, first + 2]
    assert state.undelivered == 7
    assert log.reads == []


def test_drained_events_after_a_hole_wait_for_the_log() -> None:
    ring, log = Ring(), MemoryLog()
    log.put(1, 2)
    state = following(ring, log)
    assert state.begin(None) is Need.DRAIN
    assert state.drained(batch(3, 4)) is Need.READ
    assert state.ask_log(Need.READ) is Need.RETURN
    assert sequences(state.deliver()) == [1, 2]
    assert state.begin(None) is Need.RETURN
    assert sequences(state.deliver()) == [3, 4]
    assert state.begin(None) is Need.DRAIN
    assert (state.delivered, state.replayed, state.gaps) == (4, 2, 1)


def test_an_empty_ring_and_a_number_that_was_tried() -> None:
    ring, log = Ring(), MemoryLog()
    log.put(1, 2)
    ring.emitted_sequence = 2
    state = following(ring, log)
    assert state.begin(None) is Need.DRAIN
    assert state.drained(NOTHING) is Need.READ
    assert state.ask_log(Need.READ) is Need.RETURN


def test_a_number_that_is_tried_after_the_drain_began_is_not_missing() -> None:
    ring, log = Ring(), MemoryLog()
    state = following(ring, log)
    assert state.begin(None) is Need.DRAIN
    ring.emitted_sequence = 1
    assert state.drained(NOTHING) is Need.LAST


def test_a_wait_reads_the_last_number_tried_first() -> None:
    ring, log = Ring(), MemoryLog()
    state = at_wait(ring, log)
    ring.emitted_sequence = 1
    # An empty drain: of what was tried before the wait began, nothing was missing.
    assert state.drained(NOTHING) is Need.DRAIN
    assert state.drained(NOTHING) is Need.READ


def test_the_log_lacks_the_hole_too() -> None:
    ring, log = Ring(), MemoryLog()
    state = following(ring, log)
    state.begin(None)
    assert state.drained(batch(3, 4)) is Need.READ
    with pytest.raises(GapError):
        state.ask_log(Need.READ)
    assert state.begin(None) is Need.READ
    with pytest.raises(GapError) as raised:
        state.ask_log(Need.READ)
    assert (raised.value.first, raised.value.last) == (1, 2)
    state.skip(raised.value)
    assert state.begin(None) is Need.RETURN
    assert sequences(state.deliver()) == [3, 4]


def test_the_log_has_more_than_the_ring_tried() -> None:
    ring, log = Ring(), MemoryLog()
    log.put(1, 3)
    state = following(ring, log)
    state.begin(None)
    assert state.drained(NOTHING) is Need.LAST
    assert state.ask_log(Need.LAST) is Need.READ
    assert state.ask_log(Need.READ) is Need.RETURN
    assert sequences(state.deliver()) == [1, 2, 3]
    assert state.begin(None) is Need.DRAIN


def test_the_log_is_asked_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    state = at_wait(Ring(), MemoryLog())
    assert state.drained(NOTHING) is Need.WAIT
    monkeypatch.setattr(module, "LAST_SECONDS", 0.0)
    assert state.drained(NOTHING) is Need.LAST


def test_the_end() -> None:
    ring, log = Ring(), MemoryLog()
    state = at_wait(ring, log)
    ring.is_producer_disconnected = True
    assert state.drained(NOTHING) is Need.LAST
    assert state.ask_log(Need.LAST) is Need.RETURN
    assert state.deliver() is NOTHING
    assert state.ended
    # A successor has come: the next call asks again.
    ring.is_producer_disconnected = False
    assert state.begin(None) is Need.DRAIN
    assert not state.ended


def test_a_call_whose_time_is_over_returns_nothing() -> None:
    ring, log = Ring(), MemoryLog()
    state = following(ring, log)
    assert state.begin(time.monotonic()) is Need.DRAIN
    assert state.drained(NOTHING) is Need.LAST
    assert state.ask_log(Need.LAST) is Need.RETURN
    assert state.deliver() is NOTHING
    assert not state.ended


def test_a_wait_lasts_until_the_deadline_at_most() -> None:
    state = at_wait(Ring(), MemoryLog())
    assert state.seconds == module.WAIT_SECONDS
    state.begin(time.monotonic() + 0.05)
    assert state.drained(NOTHING) is Need.WAIT
    assert 0 < state.seconds <= 0.05


def test_without_a_ring_the_log_is_asked_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.0)
    log = MemoryLog()
    state = following(None, log)
    assert state.begin(None) is Need.LAST
    assert state.ask_log(Need.LAST) is Need.GROW
    assert state.ask_log(Need.GROW) is Need.LAST
    log.put(1, 2)
    assert state.ask_log(Need.LAST) is Need.READ
    assert state.ask_log(Need.READ) is Need.RETURN
    assert sequences(state.deliver()) == [1, 2]
    assert state.begin(None) is Need.LAST


def test_a_batch_that_was_not_delivered_comes_next() -> None:
    state = following(Ring(), MemoryLog())
    state.begin(None)
    assert state.drained(batch(1, 3)) is Need.RETURN
    # An exception came between.
    assert state.undelivered == 1
    assert state.begin(None) is Need.RETURN
    assert sequences(state.deliver()) == [1, 2, 3]
