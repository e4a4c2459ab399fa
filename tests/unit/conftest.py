"""Liveness is held by a watchdog: a test that hangs fails with the stacks of all threads, however long it may take."""

from __future__ import annotations

import faulthandler
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from nodedb_ring import EventBus

from .shared_buses import BusMaker
from .watchdog import SECONDS, start_round, stop


@pytest.fixture(autouse=True)
def watchdog() -> Iterator[None]:
    def bark(number: int, frame: FrameType | None) -> None:
        faulthandler.dump_traceback()
        raise TimeoutError(f"the test still runs after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, bark)
    start_round()
    yield
    stop()
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def make_bus() -> Iterator[BusMaker]:
    """Makes shared buses, and removes them when the test is over."""
    with BusMaker() as maker:
        yield maker


@pytest.fixture
def bus(make_bus: BusMaker) -> EventBus:
    """One ring of 16 slots, shared."""
    return make_bus()
