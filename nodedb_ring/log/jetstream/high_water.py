"""``HighWaterMark``: the highest number that is known to be stored, and who waits for a higher one."""

from __future__ import annotations

import contextlib
import time
from queue import Empty, SimpleQueue
from typing import Final, final

__all__ = ["HighWaterMark"]

_LONGEST_SLEEP: Final = 3600.0
"""Seconds of one sleep. A wait that lasts longer sleeps again."""


@final
class HighWaterMark:
    """A number that only rises, and waits for it to pass another.

    No lock or condition: a signal handler may interrupt a wait, and the thread that would wake it must not wait for
    what the interrupted code holds.

    Thread safety
    -------------
    Any thread, and a signal handler in the midst of any call.

    Attributes
    ----------
    value : int
        -1 before the first.
    """

    def __init__(self) -> None:
        self.value: int = -1
        self.is_closed: bool = False
        self.waiting: Final[set[SimpleQueue[None]]] = set()

    def advance(self, value: int) -> None:
        """Raises it to `value`, if that is higher, and wakes those who wait."""
        if value > self.value:
            self.value = value
            self._wake()

    def close(self) -> None:
        """Ends all waits."""
        self.is_closed = True
        self._wake()

    def wait_beyond(self, value: int, until: float) -> bool:
        """Waits until it is above `value`, it is closed, or ``time.monotonic()`` is `until`. Whether it is above."""
        woken: SimpleQueue[None] = SimpleQueue()
        try:
            # In this order, as advance() has the other: a rise that the loop does not see wakes it.
            self.waiting.add(woken)
            while self.value <= value and not self.is_closed:
                left = until - time.monotonic()
                if left <= 0:
                    break
                with contextlib.suppress(Empty):
                    woken.get(timeout=min(left, _LONGEST_SLEEP))
        finally:
            self.waiting.discard(woken)
        return self.value > value

    def _wake(self) -> None:
        # A copy is made in one step, whoever comes or goes meanwhile; a tuple is not.
        for woken in self.waiting.copy():
            woken.put(None)
