"""Runs ``nodedb-ring bench``: checks its arguments, measures, and prints or writes the figures."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Final

from ..termination import termination_unwinds
from .progress import progress_shown
from .report import report
from .results import Results
from .run import measurements, run
from .settings import Settings

__all__ = ["STDOUT", "run_bench"]

STDOUT: Final = Path("-")
"""The path that means: print the JSON instead of the tables."""


def run_bench(
    *,
    quick: bool = False,
    capacities: Sequence[int] | None = None,
    batch_sizes: Sequence[int] | None = None,
    value_bytes: int = 128,
    seconds: float | None = None,
    as_json: Path | None = None,
    plot: Path | None = None,
) -> None:
    """Measures, and prints tables, or the JSON if that goes to `STDOUT`.

    Only in the main thread: it answers SIGTERM and SIGHUP.

    Parameters
    ----------
    quick, capacities, batch_sizes, value_bytes, seconds
        As for `Settings.of`.
    as_json, plot : Path, optional
        Files to write. An existing file is replaced only at the end of a successful run.

    Raises
    ------
    ValueError
        The settings cannot be measured, or the file name has no picture format.
    ModuleNotFoundError
        `plot` is given and Matplotlib is not installed.
    OSError
        A file cannot be written, or the rings do not fit in memory; ``ChildProcessError`` if a process was killed.
    WrongAnswerError
        The events that came out of a ring are not those that went in.
    """
    settings = Settings.of(
        quick=quick, capacities=capacities, batch_sizes=batch_sizes, value_bytes=value_bytes, seconds=seconds
    )
    draw = None if plot is None else _drawing(plot)
    with contextlib.ExitStack() as ends:
        ends.enter_context(termination_unwinds())
        for path in (as_json, plot):
            if path is not None and path != STDOUT:
                ends.enter_context(_writable(path))
        show = ends.enter_context(progress_shown(measurements(settings), settings.rounds))
        results = run(settings, show)
        text = json.dumps(results.document(), indent=2) + "\n"
        if as_json is not None and as_json != STDOUT:
            as_json.write_text(text)
        if plot is not None and draw is not None:
            plot.write_bytes(draw(results))
    sys.stdout.write(text if as_json == STDOUT else report(results))


def _drawing(path: Path) -> Callable[[Results], bytes]:
    """Returns the function that draws into such a file. Called before measuring, so that errors come early."""
    from .plot import check_format, picture

    check_format(path)
    return lambda results: picture(results, path.suffix)


@contextlib.contextmanager
def _writable(path: Path) -> Generator[None, None, None]:
    """Checks that a file can be written; removes a new one if the block fails.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    was_there = path.exists()
    path.open("ab").close()
    try:
        yield
    except BaseException:
        if not was_there:
            path.unlink(missing_ok=True)
        raise
