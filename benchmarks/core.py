"""``python -m benchmarks.core``: what the bus costs, each figure beside what it must reach.

Every row's answer is checked before it is timed; a wrong one ends the run. Rows of one thread are the best of several
short rounds; ratios of two threads are medians over rounds in which what is compared ran in turn.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import time
from pathlib import Path

from .batches import batches
from .machine import core_pair, describe
from .memory import memory
from .native import one_thread, two_threads
from .native_build import native_loops
from .python_calls import python_calls
from .table import Row, print_rows
from .threads import threads

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmarks that were asked for: 0, or with ``--strict`` 1 if a target was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.core", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: figures are rougher")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine and figures to FILE as well")
    parser.add_argument(
        "--only", action="append", choices=["calls", "batches", "threads", "memory", "native"], help="may be repeated"
    )
    parser.add_argument(
        "--strict", action="store_true", help="exit with 1 if a target is missed; a wrong answer always ends the run"
    )
    options = parser.parse_args(arguments)
    wanted: set[str] = set(options.only or ("calls", "batches", "threads", "memory", "native"))
    # A ring that is filled on purpose would say so on the terminal.
    logging.getLogger("nodedb_ring").addHandler(logging.NullHandler())
    logging.getLogger("nodedb_ring").propagate = False
    machine = describe()
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    start = time.monotonic()
    rows = _run(wanted, quick=options.quick)
    missed = [row for row in rows if row.reached is False]
    targets = sum(row.target is not None for row in rows)
    print(f"{time.monotonic() - start:.0f} s; {len(missed)} of {targets} targets missed")
    if options.json is not None:
        figures = [{**dataclasses.asdict(row), "reached": row.reached} for row in rows]
        record = {"machine": machine, "quick": options.quick, "rows": figures}
        options.json.write_text(json.dumps(record, indent=2) + "\n")
    return 1 if missed and options.strict else 0


def _run(wanted: set[str], *, quick: bool) -> list[Row]:
    rounds = 3 if quick else 10
    loops = native_loops() if wanted & {"batches", "native"} else None
    rows: list[Row] = []

    def show(title: str, new: list[Row]) -> None:
        print_rows(title, new)
        rows.extend(new)

    if "calls" in wanted:
        show("Calls from Python, one thread", python_calls(rounds))
    if "batches" in wanted and loops is not None:
        show("Batches of events with 128-byte values, in turn on a default ring", batches(rounds, loops))
    if "threads" in wanted:
        show("Thread to thread in Python", threads(rounds, 100_000 if quick else 400_000))
    if "memory" in wanted:
        show("Memory", memory(1_000_000 if quick else 10_000_000))
    if "native" in wanted and loops is not None:
        show("128-byte rows through the .pxd, one native thread", one_thread(rounds, loops))
        title = "128-byte rows through the .pxd, two native threads"
        if core_pair() is None:
            title += ": this machine has one core, and nothing to measure"
        show(title, two_threads(3 if quick else 15, 320_000 if quick else 1_280_000, loops))
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
