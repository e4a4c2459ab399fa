"""Runs ``nodedb-ring top``: takes samples at an interval and shows them in one of three forms."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .text import as_json, as_table
from .watch import BusSample, Watch

__all__ = ["run_top"]


def run_top(
    name: str,
    directory: Path,
    *,
    interval: float,
    count: int | None,
    once: bool,
    json: bool,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], object] = time.sleep,
) -> int:
    """Shows the state of a bus until it is interrupted, and returns the exit code.

    Parameters
    ----------
    name : str
    directory : Path
    interval : float
        Seconds between two samples.
    count : int, optional
        End after this many intervals.
    once : bool
        Show one sample, as text or as one JSON object over several lines.
    json : bool
        Print one JSON object per line.
    clock, pause
        Returns the time, and sleeps, in seconds.

    Without `once` and `json` it draws on a terminal; elsewhere it prints one table per sample, without control codes.

    Raises
    ------
    ModuleNotFoundError
        stdout is a terminal and rich is not installed.
    LayoutError, OSError
        The bus, or a later one of the same name, cannot be opened.
    """
    with Watch(name, directory, clock) as watch:
        first = watch.sample()
        samples = _samples(watch, interval, 1 if once else count, pause)
        if json:
            return _print(samples, lambda sample: as_json(sample, indent=2 if once else None))
        if once or not sys.stdout.isatty() or os.environ.get("TERM") in {"dumb", "unknown"}:
            # An empty line between two tables.
            gaps = itertools.chain([""], itertools.repeat("\n"))
            return _print(samples, lambda sample: next(gaps) + as_table(sample))
        from .terminal import draw

        draw(first, samples)
        return 0


def _samples(watch: Watch, interval: float, count: int | None, pause: Callable[[float], object]) -> Iterator[BusSample]:
    for _ in itertools.count() if count is None else range(count):
        pause(interval)
        yield watch.sample()


def _print(samples: Iterator[BusSample], text: Callable[[BusSample], str]) -> int:
    # A reader may close the pipe at any time.
    with contextlib.suppress(BrokenPipeError):
        for sample in samples:
            sys.stdout.write(text(sample))
            sys.stdout.flush()
    return 0
