"""SIGTERM and SIGHUP as exceptions, for a command that has something to put back before it ends; and when they wait."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Generator
from types import FrameType
from typing import Final

__all__ = ["TERMINATION", "termination_deferred", "termination_unwinds"]

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


@contextlib.contextmanager
def termination_deferred() -> Generator[None, None, None]:
    """Ctrl-C, SIGTERM and SIGHUP are served at the end of the block, as they were before it. Only in the main thread.

    By handlers that note what came, and not by a mask: that a child which is started in the block would inherit, and
    other threads do not have.
    """
    came: list[int] = []
    is_over = False

    def note(number: int, frame: FrameType | None) -> None:
        if is_over:
            handlers[number](number, frame)
        else:
            came.append(number)

    given = {number: signal.getsignal(number) for number in (signal.SIGINT, *TERMINATION)}
    handlers: dict[int, Callable[[int, FrameType | None], object]]
    handlers = {number: handler for number, handler in given.items() if callable(handler)}
    try:
        for number in handlers:
            signal.signal(number, note)
        yield
    finally:
        # One that comes from here on may end this anywhere: a note that is left in place passes on what it gets.
        is_over = True
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)
