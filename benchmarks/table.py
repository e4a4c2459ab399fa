"""The rows of a benchmark, and the table that they make."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable

__all__ = ["Row", "print_rows"]

_HEADINGS = ("what", "measured", "unit", "target", "", "beside it, in the same run")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure, whose answer was checked before it was timed.

    Attributes
    ----------
    group, what : str
        Which part of the benchmark, and what was measured.
    value : float
    unit : str
    target : float or None
        What it must reach; None where nothing was promised.
    at_least : bool
        Whether more is better; `target` is then a least value, and otherwise a most.
    beside : str
        What was measured in the same run to compare it with, and the ratio of the two.
    """

    group: str
    what: str
    value: float
    unit: str
    target: float | None = None
    at_least: bool = False
    beside: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    def cells(self) -> tuple[str, str, str, str, str, str]:
        """The row as text, a cell a heading."""
        bound = "" if self.target is None else f"{'>=' if self.at_least else '<='} {self.target:g}"
        verdict = {None: "", True: "ok", False: "short"}[self.reached]
        return self.what, _number(self.value), self.unit, bound, verdict, self.beside


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 20 else f"{value:.2f}"


def print_rows(title: str, rows: Iterable[Row]) -> None:
    """Prints a table: with rich where it is installed, else in plain columns."""
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
    colours = {"ok": "green", "short": "red"}
    for row in cells:
        verdict = f"[{colours[row[4]]}]{row[4]}[/]" if row[4] else ""
        table.add_row(*row[:4], verdict, row[5])
    # A file or a pipe has no width of its own, and a folded figure is hard to read.
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
