"""Rounds of threads that start together: what the tests of free threads are made of.

A race between two calls is met by number: each round makes new objects and lets all threads go at one instant, and
there are many rounds. Without the GIL the threads do run at once. With it they take turns, and the rounds are fewer.
"""

from __future__ import annotations

import functools
import os
import random
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeVar

from . import watchdog

S = TypeVar("S")

GIL: Final = getattr(sys, "_is_gil_enabled", lambda: True)()
"""Whether this interpreter runs one thread at a time."""

ROUNDS: Final = float(os.environ.get("STRESS_ROUNDS", "1"))
"""So many times as many rounds, of every test."""


def rounds(without_gil: int, with_gil: int | None = None) -> int:
    """How often a race is run: so often without the GIL, and with it a twentieth of that, or as given."""
    if with_gil is None:
        with_gil = without_gil // 20
    return max(1, round(ROUNDS * (with_gil if GIL else without_gil)))


@contextmanager
def eager_switches() -> Generator[None]:
    """With the GIL, lets the interpreter change threads often: each change is a chance to meet a race."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


class Contest(Generic[S]):
    """Threads that meet again and again, each with its own call on what they contend for.

    Parameters
    ----------
    calls : sequence of callables
        One a thread. What it returns or raises is its result.
    prepare : callable
        Makes what they contend for, from the number of the round.
    check : callable
        Gets that, and the results in the order of `calls`, an exception where one was raised. It runs alone.
    spread : int
        Up to so many turns of an empty loop, about 20 ns each, before a call: for races whose two sides are not equally
        long.
    together : int
        So many rounds are prepared at once and checked at once. In between the threads meet without going to sleep, and
        so within a fraction of a microsecond, not of a millisecond.
    """

    def __init__(
        self,
        calls: Sequence[Callable[[S], object]],
        *,
        prepare: Callable[[int], S],
        check: Callable[[S, list[Any]], None],
        spread: int = 0,
        together: int = 1,
    ) -> None:
        self._calls, self._prepare, self._check, self._spread = calls, prepare, check, spread
        self._together = together
        self._barrier = threading.Barrier(len(calls), self._between)
        self._subjects: list[S] = []
        self._results: list[list[Any]] = []
        self._lines: list[list[None]] = []
        self._round = self._count = 0

    def _between(self) -> None:
        """What the last thread at the barrier does, while the others sleep."""
        for subject, results in zip(self._subjects, self._results, strict=True):
            self._check(subject, results)
        self._subjects.clear()
        if self._round >= self._count:
            return
        for number in range(self._round, self._round + self._together):
            self._subjects.append(self._prepare(number))
        self._results = [[None] * len(self._calls) for _ in range(self._together)]
        self._lines = [[] for _ in range(self._together)]
        self._round += self._together

    def _meet(self, line: list[None]) -> None:
        """Returns when all threads are here, without sleeping."""
        everybody = len(self._calls)
        line.append(None)
        turns = 0
        while len(line) < everybody:
            turns += 1
            if turns % 100 == 0:
                os.sched_yield()
                if self._barrier.broken:
                    raise threading.BrokenBarrierError

    def _thread(self, number: int, count: int) -> None:
        call, lots = self._calls[number], random.Random(number)
        for _ in range(0, count, self._together):
            self._barrier.wait()
            for i, line in enumerate(self._lines):
                subject, wait = self._subjects[i], lots.randrange(self._spread + 1)
                self._meet(line)
                for _ in range(wait):
                    pass
                try:
                    self._results[i][number] = call(subject)
                except Exception as error:
                    # Without its frames, which would keep what the round was about.
                    self._results[i][number] = error.with_traceback(None)
                del subject
        self._barrier.wait()

    def run(self, count: int) -> None:
        """Runs so many rounds, or the next multiple of `together`.

        Raises what `prepare` or `check` raised, or `StuckError` where a thread hangs.
        """
        errors: list[BaseException] = []
        self._count = count

        def body(number: int) -> None:
            try:
                self._thread(number, count)
            except threading.BrokenBarrierError:
                pass
            except BaseException as error:
                errors.append(error)
                self._barrier.abort()

        with eager_switches():
            watchdog.run(
                *(functools.partial(body, number) for number in range(len(self._calls))),
                progress=lambda: self._round,
                stop=self._barrier.abort,
            )
        if errors:
            errors[0].add_note(f"by round {self._round} of {count}")
            raise errors[0]
        self._subjects.clear()
