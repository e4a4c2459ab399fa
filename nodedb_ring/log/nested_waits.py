"""``NestedWaits``: how many calls of one thread may wait at once, each in a handler that interrupts the one before."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, final

from ..errors import BusyError

__all__ = ["MOST_WAITING", "NestedWaits"]

MOST_WAITING: Final = 8
"""The most calls of one thread that wait at once: one, and those of handlers that interrupt each other."""


@final
class NestedWaits:
    """Counts the waits of each thread, and refuses too many.

    A signal handler that waits is itself interrupted by the next signal. If signals keep arriving, the waits nest until
    the stack overflows.

    Thread safety
    -------------
    Any thread.
    """

    __slots__ = ("_threads",)

    def __init__(self) -> None:
        # The thread of each wait.
        self._threads: Final[list[int]] = []

    def check(self) -> None:
        """Refuses this thread if it may not wait once more.

        Raises
        ------
        BusyError
        """
        # Of a copy: what other threads remove while it counts moves those behind it.
        if self._threads.copy().count(threading.get_ident()) >= MOST_WAITING:
            raise BusyError(
                f"{MOST_WAITING} calls of this thread wait for their turn, each in a signal handler that interrupts"
                " the one before; call when they have returned"
            )

    def wait(self, wait: Callable[[], object]) -> None:
        """Calls `wait`, counted as one more wait of this thread.

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
