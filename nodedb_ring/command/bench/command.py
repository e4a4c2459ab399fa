"""The command ``nodedb-ring bench``: what it refuses before it measures, and where the figures go."""

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
"""The place of the JSON when it is to be printed instead of the tables."""


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
        Files to write; what was there is replaced at the end of a run that went well.

    Raises
    ------
    ValueError
        What was asked for cannot be measured, or be drawn in such a file.
    ModuleNotFoundError
        There is no Matplotlib, and a plot is wanted.
    OSError
        A file cannot be written, or there is no room for the rings; ``ChildProcessError`` if a process was killed.
    WrongAnswerError
        What came out of a ring is not what went in.
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
    """What draws the figures in the format of that file. Asked before they are measured: a minute later is late."""
    from .plot import check_format, picture

    check_format(path)
    return lambda results: picture(results, path.suffix)


@contextlib.contextmanager
def _writable(path: Path) -> Generator[None, None, None]:
    """Makes sure that a file can be written, and leaves none behind if it was not.

    Raises
    ------
    OSError
        It cannot.
    """
    was_there = path.exists()
    path.open("ab").close()
    try:
        yield
    except BaseException:
        if not was_there:
            path.unlink(missing_ok=True)
        raise
