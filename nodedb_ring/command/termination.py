"""SIGTERM and SIGHUP as exceptions, for a command that must clean up before it ends; and blocks that defer them."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Generator, Iterable
from types import FrameType
from typing import Final

__all__ = ["TERMINATION", "signals_handled", "termination_deferred", "termination_unwinds"]

TERMINATION: Final = (signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def signals_handled(
    numbers: Iterable[signal.Signals], handler: Callable[[int, FrameType | None], object]
) -> Generator[None, None, None]:
    """In the block these signals call `handler`. Only in the main thread.

    A signal that is ignored stays ignored, so that a command under ``nohup`` outlives its terminal.
    """
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number, own in before.items():
            if own is not signal.SIG_IGN:
                signal.signal(number, handler)
        yield
    finally:
        for number, own in before.items():
            signal.signal(number, own)


@contextlib.contextmanager
def termination_unwinds() -> Generator[None, None, None]:
    """In the block SIGTERM raises ``SystemExit(143)`` and SIGHUP ``SystemExit(129)``, as `signals_handled` says."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    with signals_handled(TERMINATION, end):
        yield


@contextlib.contextmanager
def termination_deferred() -> Generator[None, None, None]:
    """Defers Ctrl-C, SIGTERM and SIGHUP to the end of the block. Only in the main thread.

    It uses handlers and not a signal mask: a child started in the block would inherit the mask, and other threads would
    not have it.
    """
    pending: list[int] = []
    is_over = False

    def defer(number: int, frame: FrameType | None) -> None:
        if is_over:
            handlers[number](number, frame)
        else:
            pending.append(number)

    given = {number: signal.getsignal(number) for number in (signal.SIGINT, *TERMINATION)}
    handlers: dict[int, Callable[[int, FrameType | None], object]]
    handlers = {number: handler for number, handler in given.items() if callable(handler)}
    try:
        for number in handlers:
            signal.signal(number, defer)
        yield
    finally:
        # A signal from here on may interrupt this anywhere; a handler that is still in place passes it on.
        is_over = True
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in pending:
            signal.raise_signal(number)
