"""SIGTERM as an exception, for a command that has something to put back before it ends."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Generator
from types import FrameType

__all__ = ["sigterm_unwinds"]


@contextlib.contextmanager
def sigterm_unwinds() -> Generator[None, None, None]:
    """SIGTERM is a ``SystemExit`` with a shell's exit code for it, 143, in the block. Only in the main thread."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
