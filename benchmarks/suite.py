"""The command line of a benchmark with several parts: options, the machine, the tables, the JSON and the exit code."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from .machine import describe
from .table import Row, print_rows

__all__ = ["Show", "run_suite", "silence_rings"]

Show: TypeAlias = Callable[[str, list[Row]], None]
"""Prints the rows of one part under a title, and keeps them."""


def silence_rings() -> None:
    """Keeps warnings of the rings off the terminal: a benchmark fills some on purpose."""
    logging.getLogger("nodedb_ring").addHandler(logging.NullHandler())
    logging.getLogger("nodedb_ring").propagate = False


def run_suite(
    name: str,
    description: str | None,
    parts: Sequence[str],
    run: Callable[[set[str], bool, Show], None],
    arguments: list[str] | None,
    **notes: object,
) -> int:
    """Runs the parts that the command line asks for; 0, or with ``--strict`` 1 if a goal was missed.

    Parameters
    ----------
    name : str
        The module, as ``python -m`` takes it.
    description : str, optional
        The text of ``--help``.
    parts : sequence of str
        What ``--only`` may choose.
    run : callable
        Given the wanted parts, whether to be quick, and what shows the rows.
    arguments : list of str, optional
        Those of the process by default.
    **notes
        More for the JSON file.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=description)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: figures are rougher")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine and figures to FILE as well")
    parser.add_argument("--only", action="append", choices=parts, help="may be repeated")
    parser.add_argument(
        "--strict", action="store_true", help="exit with 1 if a goal is missed; a wrong answer always ends the run"
    )
    options = parser.parse_args(arguments)
    silence_rings()
    machine = describe()
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    rows: list[Row] = []

    def show(title: str, new: list[Row]) -> None:
        print_rows(title, new)
        rows.extend(new)

    start = time.monotonic()
    run(set(options.only or parts), options.quick, show)
    took = time.monotonic() - start
    machine["load at the end"] = f"{os.getloadavg()[0]:.1f}"
    missed = [row for row in rows if row.reached is False]
    goals = sum(row.goal is not None for row in rows)
    print(f"{took:.0f} s; {len(missed)} of {goals} goals missed; load {machine['load at the end']}")
    if options.json is not None:
        figures = [{**dataclasses.asdict(row), "reached": row.reached} for row in rows]
        record = {"machine": machine, "quick": options.quick, **notes, "rows": figures}
        options.json.write_text(json.dumps(record, indent=2) + "\n")
    return 1 if missed and options.strict else 0
