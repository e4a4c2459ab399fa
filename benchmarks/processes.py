"""``python -m benchmarks.processes``: events between two processes, ours beside what its users would take instead.

Everybody carries the same events of 256 bytes, one process to another, a core each where there are two, holds up to
16,384 of them, and ends with NumPy arrays of the receiver's own. Before a transfer is timed, a lap of it is compared
byte for byte, and the way of a cache line between the cores is measured; only transfers of the same kind are compared,
near or far. Of a peer's pauses between two looks the best counts; a figure is the median of its rounds, and in every
round all take turns.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import time
from pathlib import Path

from .idle import idle
from .machine import core_pair, describe
from .native_build import two_processes
from .peers import PEERS
from .round_trips import round_trips
from .table import Row, print_rows
from .transfers import MEASURES, transfers

__all__ = ["main"]

_PARTS = ("fields", "ready", "batches", "trips", "idle")


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmarks that were asked for: 0, or with ``--strict`` 1 if a target was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: figures are rougher")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine and figures to FILE as well")
    parser.add_argument("--only", action="append", choices=_PARTS, help="may be repeated")
    parser.add_argument(
        "--strict", action="store_true", help="exit with 1 if a target is missed; a wrong answer always ends the run"
    )
    options = parser.parse_args(arguments)
    wanted: set[str] = set(options.only or _PARTS)
    # A ring that is filled would say so on the terminal.
    logging.getLogger("nodedb_ring").addHandler(logging.NullHandler())
    logging.getLogger("nodedb_ring").propagate = False
    machine = describe()
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    start = time.monotonic()
    rows = _run(wanted, quick=options.quick)
    missed = [row for row in rows if row.reached is False]
    targets = sum(row.target is not None for row in rows)
    machine["load at the end"] = f"{os.getloadavg()[0]:.1f}"
    took = time.monotonic() - start
    print(f"{took:.0f} s; {len(missed)} of {targets} targets missed; load {machine['load at the end']}")
    if options.json is not None:
        figures = [{**dataclasses.asdict(row), "reached": row.reached} for row in rows]
        absent = [peer.title for peer in PEERS if not peer.is_installed()]
        record = {"machine": machine, "quick": options.quick, "not installed": absent, "rows": figures}
        options.json.write_text(json.dumps(record, indent=2) + "\n")
    return 1 if missed and options.strict else 0


def _run(wanted: set[str], *, quick: bool) -> list[Row]:
    native = two_processes()
    peers = [peer for peer in PEERS if peer.is_installed()]
    for peer in PEERS:
        if not peer.is_installed():
            print(f"{peer.title}: not installed")
    if core_pair() is None:
        print("one core: what crosses it is a change of process, and no figure here means much")
    rounds, seconds = (3, 0.05) if quick else (11, 0.1)
    rows: list[Row] = []

    def show(title: str, new: list[Row]) -> None:
        print_rows(title, new)
        rows.extend(new)

    for measure in MEASURES:
        if measure.name in wanted:
            show(f"{measure.what}, process to process", transfers(measure, peers, rounds, seconds, native))
    if "trips" in wanted:
        show("Round trip of an event, the median", round_trips(peers, rounds, native))
    if "idle" in wanted:
        show("Waiting for nothing", idle(peers, 1.0 if quick else 3.0, native))
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
