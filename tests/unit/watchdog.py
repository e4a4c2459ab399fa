"""How long a test may take, or each round of a test that has many."""

from __future__ import annotations

import faulthandler
import signal
from typing import Final

__all__ = ["SECONDS", "start_round", "stop"]

SECONDS: Final = 60


def start_round() -> None:
    """Gives the running test so many seconds from now on, whatever it has used."""
    signal.alarm(SECONDS)
    # For a wait that answers no signal.
    faulthandler.dump_traceback_later(2 * SECONDS, exit=True)


def stop() -> None:
    """The test is over."""
    faulthandler.cancel_dump_traceback_later()
    signal.alarm(0)
