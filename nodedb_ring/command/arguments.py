"""Arguments that several commands share, and the checks of their values."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Final

from ..bus.directory import DEFAULT_DIRECTORY
from ..errors import CorruptRingError

__all__ = [
    "BUS_EXIT_CODES",
    "BUS_REFUSALS",
    "NAME_HELP",
    "add_bus_name",
    "add_directory",
    "number",
    "positive",
    "positives",
    "seconds",
]

NAME_HELP: Final = "name of a bus, as nodedb-ring list shows it"
BUS_EXIT_CODES: Final = (
    "exit code: 0 done, or the reader closed the pipe; 2 refused, with one line on stderr that says why"
)
BUS_REFUSALS: Final = (CorruptRingError, OSError, ValueError)
"""Errors of opening or reading a bus. ValueError covers impossible names and LayoutError."""


def add_bus_name(parser: argparse.ArgumentParser) -> None:
    """Adds the argument NAME."""
    parser.add_argument("name", metavar="NAME", help=NAME_HELP)


def add_directory(parser: argparse.ArgumentParser) -> None:
    """Adds the option --directory."""
    parser.add_argument(
        "--directory",
        type=Path,
        default=DEFAULT_DIRECTORY,
        metavar="DIR",
        help="directory of the buses (default: %(default)s)",
    )


def positive(text: str) -> int:
    """A whole number, at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number, at least 1")
    return value


def positives(text: str) -> list[int]:
    """Whole numbers with commas between them, each at least 1."""
    return [positive(part) for part in text.split(",")]


def number(text: str) -> float:
    """The number, or NaN if the text is not a number: NaN is outside every range."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def seconds(text: str) -> float:
    """A finite number of seconds, more than 0."""
    value = number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number of seconds, more than 0")
    return value
