"""``slot_timeout``: how long a slot in use is waited for, and what is no such time."""

from __future__ import annotations

from typing import Any

import pytest

from nodedb_ring import ArgumentError, create_event_bus
from nodedb_ring.capture.postgres import PostgresCapture
from nodedb_ring.errors import CaptureError
from tests.unit.ends.test_limits import ENDLESS, NO_NUMBERS, NO_TIMEOUTS

from .captured import Captured, captured, maps, until
from .server import Database


def made(slot_timeout: Any) -> PostgresCapture:
    """Without a server: what is no time is refused before anything is asked."""
    [producer], _ = create_event_bus(1, 8)
    return PostgresCapture("", producer, publication="p", slot="s", slot_timeout=slot_timeout)


@pytest.mark.parametrize("wrong", NO_TIMEOUTS, ids=repr)
def test_no_timeouts(wrong: Any) -> None:
    with pytest.raises(ArgumentError, match=r"^slot_timeout .*: must be 0 or more seconds, or None for no limit"):
        made(wrong)


@pytest.mark.parametrize("wrong", NO_NUMBERS, ids=["str", "bytes", "list", "object", "complex", "datetime64"])
def test_no_numbers(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"^slot_timeout .*: must be a number of seconds, or None for no limit, not "):
        made(wrong)


def test_a_slot_in_use_is_refused_when_the_time_is_over(database: Database) -> None:
    with captured(database, "t(id int PRIMARY KEY)") as core:
        first = core.running
        assert first is not None
        until(lambda: first.stats().connected)
        for short in (0, 0.0, 0.2):
            other = Captured(database, core.slot).capture(slot_timeout=short)
            with pytest.raises(CaptureError, match=r"slot 'slot_.*is active for PID.*stop that capture"):
                other.run()


@pytest.mark.parametrize("endless", [None, 10**400], ids=["None", "10**400"])
def test_without_a_limit_it_is_waited_for(database: Database, endless: Any, caplog: pytest.LogCaptureFixture) -> None:
    with captured(database, "t(id int PRIMARY KEY)") as core:
        first = core.running
        assert first is not None
        until(lambda: first.stats().connected)
        second = Captured(database, core.slot)
        with second.capture(slot_timeout=endless) as waiting:
            until(lambda: "is active for PID" in caplog.text)
            first.close()
            until(lambda: waiting.stats().connected)
            database.execute("INSERT INTO t VALUES (1)")
            assert [row_id for _, row_id, *_ in maps(second.drain(1))] == ["1"]
            # It has connected once, and lost no connection.
            assert waiting.stats().reconnects == 0


@pytest.mark.parametrize("endless", ENDLESS, ids=repr)
def test_endless(endless: Any) -> None:
    assert made(endless).error is None
