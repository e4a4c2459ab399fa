"""Timing on a machine that other processes use, too."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

__all__ = ["StartLine", "WrongAnswerError", "best", "check", "clock_cost", "no_collection"]


class WrongAnswerError(Exception):
    """What was to be timed gives a wrong answer."""


def check(what: str, got: object, expected: object) -> None:
    """Raises `WrongAnswerError` if the answer is wrong."""
    if got != expected:
        raise WrongAnswerError(f"{what}: {got!r}, but it must be {expected!r}")


@contextmanager
def no_collection() -> Generator[None, None, None]:
    """Keeps the cyclic garbage collector from running inside a timed round."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class StartLine(threading.Barrier):
    """Where threads meet before a timed round. The clock starts when the last one arrives, and before any goes on."""

    def __init__(self, parties: int) -> None:
        super().__init__(parties, self._start)
        self._started = 0.0

    def _start(self) -> None:
        self._started = time.perf_counter()

    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self._started


def best(rounds: int, once: Callable[[], float]) -> float:
    """The least of some rounds: an interruption can only make a round longer."""
    with no_collection():
        return min(once() for _ in range(rounds))


def clock_cost() -> float:
    """Nanoseconds between two readings of the clock with nothing between."""
    clock = time.perf_counter_ns
    return min(-clock() + clock() for _ in range(10_000))
