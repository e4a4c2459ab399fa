"""Rounds of threads that start together: what the tests of free threads are made of.

A race between two calls is met by number: each round makes new objects and lets all threads go at one instant, and
there are many rounds. Without the GIL the threads do run at once. With it they take turns, and the rounds are fewer.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
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
def eager_switches() -> Iterator[None]:
    """With the GIL, lets the interpreter change threads often: each change is a chance to meet a race."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


class Contest(Generic[S]):
    """Threads that meet once a round, each with its own call on what the round is about.

    Parameters
    ----------
    calls : sequence of callables
        One a thread. What it returns or raises is its result of the round.
    prepare : callable
        Makes what a round is about, from the number of the round.
    check : callable
        Gets that, and the results in the order of `calls`, an exception where one was raised. It runs alone.
    spread : int
        Up to so many turns of an empty loop, about 20 ns each, before a call: for races whose two sides are not equally
        long.
    """

    def __init__(
        self,
        calls: Sequence[Callable[[S], object]],
        *,
        prepare: Callable[[int], S],
        check: Callable[[S, list[Any]], None],
        spread: int = 0,
    ) -> None:
        self._calls, self._prepare, self._check, self._spread = calls, prepare, check, spread
        self._barrier = threading.Barrier(len(calls), self._between)
        self._line: list[None] = []
        self._results: list[Any] = [None] * len(calls)
        self._subject: list[S] = []
        self._round = 0

    def _between(self) -> None:
        """What the last thread at the barrier does, while the others wait."""
        if self._subject:
            self._check(self._subject.pop(), self._results)
        self._results = [None] * len(self._calls)
        self._line = []
        self._subject.append(self._prepare(self._round))
        self._round += 1

    def _meet(self) -> None:
        """Leaves with the others: the barrier wakes one thread after the other, and the first ones wait here."""
        line, everybody = self._line, len(self._calls)
        line.append(None)
        turns = 0
        while len(line) < everybody:
            turns += 1
            if turns % 100 == 0:
                os.sched_yield()

    def _thread(self, number: int, count: int) -> None:
        call, lots = self._calls[number], random.Random(number)
        for _ in range(count):
            self._barrier.wait()
            [subject] = self._subject
            wait = lots.randrange(self._spread + 1)
            self._meet()
            for _ in range(wait):
                pass
            try:
                self._results[number] = call(subject)
            except Exception as error:
                # Without its frames, which would keep what the round was about.
                self._results[number] = error.with_traceback(None)
            del subject
        self._barrier.wait()

    def run(self, count: int) -> None:
        """Runs so many rounds; raises what `prepare` or `check` raised, or AssertionError where a thread hangs."""

        def body(number: int) -> Callable[[], BaseException | None]:
            def run() -> BaseException | None:
                try:
                    self._thread(number, count)
                except threading.BrokenBarrierError:
                    return None
                except BaseException as error:
                    return error
                return None

            return run

        with eager_switches():
            errors = watchdog.run(
                *(body(number) for number in range(len(self._calls))),
                progress=lambda: self._round,
                stop=self._barrier.abort,
            )
        for error in errors:
            if error is not None:
                error.add_note(f"in round {self._round} of {count}")
                raise error
