"""Liveness is held by a watchdog: a test that hangs fails with the stacks of all threads, however long it may take."""

from __future__ import annotations

import faulthandler
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

SECONDS = 60


@pytest.fixture(autouse=True)
def watchdog() -> Iterator[None]:
    def bark(number: int, frame: FrameType | None) -> None:
        faulthandler.dump_traceback()
        raise TimeoutError(f"the test still runs after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, bark)
    signal.alarm(SECONDS)
    # For a wait that answers no signal.
    faulthandler.dump_traceback_later(2 * SECONDS, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
