"""SIGTERM and SIGHUP as exceptions, for a command that has something to put back before it ends."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Generator
from types import FrameType
from typing import Final

__all__ = ["TERMINATION", "termination_unwinds"]

TERMINATION: Final = (signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def termination_unwinds() -> Generator[None, None, None]:
    """Either is a ``SystemExit`` with a shell's exit code for it, 143 or 129, in the block. Only in the main thread.

    What is ignored stays so: a command under ``nohup`` outlives its terminal.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.getsignal(number) for number in TERMINATION}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, end)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
