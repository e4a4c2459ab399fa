"""The commands ``list``, ``inspect`` and ``unlink``."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from .arguments import BUS_EXIT_CODES, BUS_REFUSALS, NAME_HELP, add_bus_name, add_directory
from .subcommand import Subcommand

__all__ = ["INSPECT", "LIST", "UNLINK"]


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_list_arguments(parser: argparse.ArgumentParser) -> None:
    add_directory(parser)
    _add_json(parser)


def _list(options: argparse.Namespace) -> int:
    from .inspection import listing, unfinished_note

    sys.stdout.write(listing(options.directory, as_json=options.json))
    note = "" if options.json else unfinished_note(options.directory)
    if note:
        sys.stderr.write(f"nodedb-ring list: {note}\n")
    return 0


LIST: Final = Subcommand(
    name="list",
    help="list the names of your shared buses",
    description=(
        "Prints the names of your shared buses. If processes were killed while they created a bus, stderr says how many"
        " unfinished files they left: see unlink. With --json it prints one object: buses, an array of names, and"
        " unfinished, an array of objects with name, path and bytes."
    ),
    epilog=BUS_EXIT_CODES,
    add_arguments=_add_list_arguments,
    run=_list,
    refusals=BUS_REFUSALS,
    only_shows=True,
)


def _add_inspect_arguments(parser: argparse.ArgumentParser) -> None:
    add_bus_name(parser)
    add_directory(parser)
    _add_json(parser)


def _inspect(options: argparse.Namespace) -> int:
    from .inspection import inspection

    sys.stdout.write(inspection(options.name, options.directory, as_json=options.json))
    return 0


INSPECT: Final = Subcommand(
    name="inspect",
    help="show how full a bus is, its counts, and who holds its ends",
    description=(
        "Shows the ring of each core. It claims no end and delays nobody. The counts cover the whole life of the bus,"
        " over all holders of its ends; producer and consumer are the process ids of the present holders. With --json"
        " it prints one object: name, path, num_cores, capacity, arena_bytes, and rings, one object per core with the"
        " fields of nodedb_ring.RingStats."
    ),
    epilog=BUS_EXIT_CODES,
    add_arguments=_add_inspect_arguments,
    run=_inspect,
    refusals=BUS_REFUSALS,
    only_shows=True,
)


def _add_unlink_arguments(parser: argparse.ArgumentParser) -> None:
    add_directory(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("name", metavar="NAME", nargs="?", help=NAME_HELP)
    what.add_argument("--unfinished", action="store_true", help="remove unfinished files instead of a bus")


def _unlink(options: argparse.Namespace) -> int:
    if options.unfinished:
        from ..bus.directory import remove_unfinished

        remove_unfinished(options.directory)
    else:
        from ..bus.file import remove
        from .capture_status import remove_statuses

        remove(options.name, options.directory)
        remove_statuses(options.name, options.directory)
    return 0


UNLINK: Final = Subcommand(
    name="unlink",
    help="remove a bus, or unfinished files of killed processes",
    description=(
        "Removes the name of a bus, and what killed captures have left beside it. Processes that have it open can"
        " still use it; its memory is freed when the last of them closes it. The file must be yours, but need not be"
        " a valid bus. With --unfinished it removes your unfinished files that no process has open. A process that"
        " is killed while it creates a bus leaves such a file in versions up to 0.2, and in later ones on a file"
        " system without O_TMPFILE."
    ),
    epilog=BUS_EXIT_CODES,
    add_arguments=_add_unlink_arguments,
    run=_unlink,
    refusals=BUS_REFUSALS,
)
