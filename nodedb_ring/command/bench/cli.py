"""The command line of ``nodedb-ring bench``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from ..arguments import positive, positives, seconds
from ..subcommand import Subcommand

__all__ = ["BENCH"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="fewer and shorter measurements, about 5 s: rougher")
    parser.add_argument(
        "--capacities",
        type=positives,
        metavar="N,N,...",
        help="events per ring, rounded up to powers of two (default: 1024,8192,65536; quick: 1024,65536)",
    )
    parser.add_argument(
        "--batch-sizes",
        type=positives,
        metavar="N,N,...",
        help=(
            "events per call: 1 is emit, more is emit_batch (default: 1,4,16,64,256,1024; quick: 1,32,1024); a batch"
            " larger than a ring is not measured there"
        ),
    )
    parser.add_argument(
        "--value-bytes", type=positive, default=128, metavar="N", help="bytes of each value (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=seconds, metavar="S", help="total time to measure (default: 50; quick: 3.5)")
    parser.add_argument(
        "--json",
        type=Path,
        nargs="?",
        const=Path("-"),
        metavar="FILE",
        help="write machine, settings and figures to FILE; without FILE print them in place of the tables",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the figures into FILE, for example bench.png")


def _run(options: argparse.Namespace) -> int:
    from .command import run_bench

    run_bench(
        quick=options.quick,
        capacities=options.capacities,
        batch_sizes=options.batch_sizes,
        value_bytes=options.value_bytes,
        seconds=options.seconds,
        as_json=options.json,
        plot=options.plot,
    )
    return 0


BENCH: Final = Subcommand(
    name="bench",
    help="measure a ring between two processes on this machine",
    description=(
        "Measures events from one process to another through shared rings: events per second by batch size and"
        " capacity, and the one-way latency to a reader that spins and to one that sleeps. Every answer is checked"
        " before it is timed. Everything is measured in several rounds, in turn; each figure is the median of the"
        " rounds, shown with the least and the most. Each process is pinned to a CPU of its own, out of those that this"
        " process may use: choose them with taskset."
    ),
    epilog=(
        "exit code: 0 measured; 2 refused, with one line on stderr that says why; 3 the events that came out of a ring"
        " are not those that went in, which would be a bug; 141 the reader of the output closed the pipe"
    ),
    add_arguments=_add_arguments,
    run=_run,
    refusals=(MemoryError, OSError, ValueError),
    missing={"matplotlib": "--plot needs matplotlib, which is not installed: pip install 'nodedb_ring[plot]'"},
)
