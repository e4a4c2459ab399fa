"""How far a receiver has come, for peers whose sender would otherwise run over it.

They drop or overwrite what the receiver has not taken yet, by design. Here nothing may be lost, so the receiver writes
down how many messages it has taken, and the sender waits while it is a whole ring ahead.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Final

__all__ = ["GROUP", "Credit"]

GROUP: Final = 64
"""Single events between two reads of the credit: each read costs as much as a cheap send."""

_TAKEN: Final = 0


class Credit:
    """Made before the fork. The sender calls `wait_for_room` before it sends, the receiver `give` when it has taken."""

    def __init__(self, capacity: int, rest: Callable[[], None]) -> None:
        self._word = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")
        self._capacity = capacity
        self._limit = capacity
        self._sent = 0
        self._rest = rest

    def wait_for_room(self, count: int) -> None:
        """Returns when there is room for `count` messages, which the caller then sends."""
        self._sent += count
        while self._sent > self._limit:
            self._limit = self._word[_TAKEN] + self._capacity
            if self._sent > self._limit:
                self._rest()

    def give(self, count: int) -> None:
        """The receiver has taken `count` more."""
        self._word[_TAKEN] += count
