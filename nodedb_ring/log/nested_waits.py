"""``NestedWaits``: how deep waits may lie one in the midst of the other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, final

from ..errors import BusyError

__all__ = ["MOST_WAITING", "NestedWaits"]

MOST_WAITING: Final = 8
"""Calls of one thread that wait at once: one, and those of handlers that came one in the midst of the other."""


@final
class NestedWaits:
    """Counts the waits of each thread, and refuses too many.

    A signal handler that waits is itself interrupted by the next signal. Where signals arrive in a row, handlers would
    wait one in the midst of the other until the stack ends.

    Thread safety
    -------------
    Any thread.
    """

    __slots__ = ("_threads",)

    def __init__(self) -> None:
        # Of each wait the thread's.
        self._threads: Final[list[int]] = []

    def check(self) -> None:
        """Whether this thread may wait once more.

        Raises
        ------
        BusyError
        """
        if self._threads.count(threading.get_ident()) >= MOST_WAITING:
            raise BusyError(
                f"{MOST_WAITING} calls of this thread wait for their turn, each in a signal handler that interrupts"
                " the one before; call when they have returned"
            )

    def wait(self, wait: Callable[[], object]) -> None:
        """Calls what waits, as one wait more of this thread.

        Raises
        ------
        BusyError
        """
        self.check()
        me = threading.get_ident()
        try:
            self._threads.append(me)
            wait()
        finally:
            self._threads.remove(me)
