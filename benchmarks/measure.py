"""Timing on a machine that other processes use, too."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

__all__ = ["WrongAnswerError", "best", "check", "clock_cost", "no_collection"]


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


def best(rounds: int, once: Callable[[], float]) -> float:
    """The least of some rounds: an interruption can only make a round longer."""
    with no_collection():
        return min(once() for _ in range(rounds))


def clock_cost() -> float:
    """Nanoseconds between two readings of the clock with nothing between."""
    clock = time.perf_counter_ns
    return min(-clock() + clock() for _ in range(10_000))
