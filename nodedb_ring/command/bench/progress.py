"""Progress on stderr: a bar on a terminal if rich is installed, otherwise one line per round."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator

from .run import Progress

__all__ = ["progress_shown"]


@contextlib.contextmanager
def progress_shown(total: int, rounds: int) -> Generator[Progress, None, None]:
    """Yields a callback, to be called after each of `total` measurements."""
    try:
        from rich.console import Console
    except ModuleNotFoundError as error:
        if error.name != "rich":
            raise
        yield _lines(total, rounds)
        return
    console = Console(stderr=True)
    # A file or a pipe gets no control codes and no line ten times per second.
    if not console.is_interactive:
        yield _lines(total, rounds)
        return
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=total)
        yield lambda done, what: bar.update(task, completed=done, description=what)


def _lines(total: int, rounds: int) -> Progress:
    per_round = total // rounds

    def write_line(done: int, what: str) -> None:
        if done % per_round == 0:
            sys.stderr.write(f"{done:,} of {total:,} measured; {what}\n")
            sys.stderr.flush()

    return write_line
