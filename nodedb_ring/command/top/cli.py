"""The command line of ``nodedb-ring top``."""

from __future__ import annotations

import argparse
from typing import Final

from ..arguments import BUS_EXIT_CODES, BUS_REFUSALS, add_bus_name, add_directory, number, positive
from ..subcommand import Subcommand

__all__ = ["TOP"]

_SHORTEST_INTERVAL: Final = 0.1
"""Seconds. Below it a sample costs more than it shows."""
_LONGEST_INTERVAL: Final = 3600


def _interval(text: str) -> float:
    value = number(text)
    if not _SHORTEST_INTERVAL <= value <= _LONGEST_INTERVAL:
        raise argparse.ArgumentTypeError(
            f"{text!r}: must be a number of seconds, {_SHORTEST_INTERVAL} to {_LONGEST_INTERVAL}"
        )
    return value


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bus_name(parser)
    add_directory(parser)
    parser.add_argument(
        "--interval",
        type=_interval,
        default=1.0,
        metavar="S",
        help="seconds between two samples, 0.1 to 3600 (default: %(default)g); rates are over that time",
    )
    until = parser.add_mutually_exclusive_group()
    until.add_argument("--count", type=positive, metavar="N", help="end after N intervals (default: at Ctrl-C)")
    until.add_argument("--once", action="store_true", help="print one table over one interval, and end")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the fields of inspect --json, rates and lag: one line per interval, or one object with --once",
    )


def _run(options: argparse.Namespace) -> int:
    from .command import run_top

    return run_top(
        options.name,
        options.directory,
        interval=options.interval,
        count=options.count,
        once=options.once,
        json=options.json,
    )


TOP: Final = Subcommand(
    name="top",
    help="watch a bus live: utilization, rates, drops, lag and owners",
    description=(
        "Shows the ring of each core at every interval, until Ctrl-C: how full it is, events in and out per second,"
        " drops, events that wait (lag), and who holds the ends; and below them the captures of PostgreSQL that emit"
        " into the bus. It claims no end and delays nobody. It draws on a terminal, which needs the extra [live];"
        " elsewhere it prints one table per sample. If another bus takes the name, it shows that one from then on."
    ),
    epilog=BUS_EXIT_CODES + "; 130 interrupted",
    add_arguments=_add_arguments,
    run=_run,
    refusals=BUS_REFUSALS,
    missing={
        "rich": "needs rich to draw, which is not installed: pip install 'nodedb_ring[live]'"
        " (--once and --json do without)"
    },
    only_shows=True,
)
