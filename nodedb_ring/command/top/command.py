"""The command ``nodedb-ring top``: how often, in which form, and until when."""

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
    """Shows how a bus does until it is interrupted, and returns the exit code.

    Parameters
    ----------
    name : str
    directory : Path
    interval : float
        Seconds between two samples.
    count : int, optional
        End after so many samples that have rates.
    once : bool
        One sample, as text or as one JSON object of several lines.
    json : bool
        A JSON object a line.
    clock, pause
        What tells and what spends the time, in seconds.

    Unless `once` or `json`, it draws on a terminal; on anything else it prints a table a sample, without control codes.

    Raises
    ------
    ModuleNotFoundError
        rich is not installed, and there is a terminal to draw on.
    LayoutError, OSError
        The bus cannot be opened, or what took its name cannot be.
    """
    with Watch(name, directory, clock) as watch:
        first = watch.sample()
        samples = _samples(watch, interval, 1 if once else count, pause)
        if json:
            return _print(samples, lambda sample: as_json(sample, indent=2 if once else None))
        if once or not sys.stdout.isatty() or os.environ.get("TERM") in {"dumb", "unknown"}:
            # Tables follow each other with a line between.
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
    # Whoever closes the pipe has seen enough.
    with contextlib.suppress(BrokenPipeError):
        for sample in samples:
            sys.stdout.write(text(sample))
            sys.stdout.flush()
    return 0
