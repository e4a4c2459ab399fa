"""The rows of a benchmark, and the table that they make."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable

__all__ = ["Row", "print_rows"]

_HEADINGS = ("what", "measured", "unit", "goal", "", "for comparison, in the same run")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure, whose answer was checked before it was timed.

    Attributes
    ----------
    group, what : str
        Which part of the benchmark, and what was measured.
    value : float
    unit : str
    goal : float or None
        The bound that `docs/benchmarks.md` sets for this figure, or None.
    at_least : bool
        Whether more is better: then `goal` is the least value, otherwise the most.
    beside : str
        What was measured in the same run for comparison, and the ratio of the two.
    """

    group: str
    what: str
    value: float
    unit: str
    goal: float | None = None
    at_least: bool = False
    beside: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.at_least else self.value <= self.goal

    def cells(self) -> tuple[str, str, str, str, str, str]:
        """The row as text, one cell per heading."""
        bound = "" if self.goal is None else f"{'>=' if self.at_least else '<='} {self.goal:g}"
        verdict = {None: "", True: "ok", False: "missed"}[self.reached]
        return self.what, _number(self.value), self.unit, bound, verdict, self.beside


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 20 else f"{value:.2f}"


def print_rows(title: str, rows: Iterable[Row]) -> None:
    """Prints a table: with rich if it is installed, else in plain columns."""
    cells = [row.cells() for row in rows]
    try:
        from rich.console import Console
        from rich.table import Table
    except ModuleNotFoundError:
        _print_plain(title, cells)
        return
    table = Table(title=title, title_justify="left", title_style="bold")
    for place, heading in enumerate(_HEADINGS):
        table.add_column(heading, justify="right" if place in {1, 3} else "left")
    colours = {"ok": "green", "missed": "red"}
    for row in cells:
        verdict = f"[{colours[row[4]]}]{row[4]}[/]" if row[4] else ""
        table.add_row(*row[:4], verdict, row[5])
    # A file or a pipe has no width, and a wrapped figure is hard to read.
    Console(width=None if sys.stdout.isatty() else 180).print(table)


def _print_plain(title: str, cells: list[tuple[str, str, str, str, str, str]]) -> None:
    print(title)
    lines = [_HEADINGS, *cells]
    widths = [max(len(line[place]) for line in lines) for place in range(len(_HEADINGS))]
    for line in lines:
        padded = [
            text.rjust(width) if place in {1, 3} else text.ljust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(padded).rstrip())
