"""The command ``log``: what an event log in a SQLite file has, and its upkeep."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Final

from ..errors import LogError
from .subcommand import Subcommand

if TYPE_CHECKING:
    from ..log.sqlite import SqliteEventLog

__all__ = ["LOG"]

_DAMAGED: Final = 1


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the log: a SQLite file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="read every stored batch, and say which are damaged")
    parser.add_argument("--backup", metavar="PATH", help="copy the log into a new file, while others append")
    parser.add_argument("--drop-group", metavar="GROUP", help="forget the watermarks of a group that does not follow")
    parser.add_argument("--trim", action="store_true", help="delete what all groups of a core have committed")


def _run(options: argparse.Namespace) -> int:
    from ..log.sqlite import SqliteEventLog

    writes = options.trim or options.drop_group is not None
    if not os.path.exists(options.file):
        # Opened to be written, it would be made.
        raise FileNotFoundError(f"{options.file}: there is no such file")
    if writes:
        # Opened to be written, a database of something else would get a log.
        SqliteEventLog(options.file, read_only=True).close()
    with SqliteEventLog(options.file, read_only=not writes) as log:
        if options.backup is not None:
            log.backup(options.backup)
        if options.drop_group is not None:
            _drop(log, options.drop_group)
        if options.trim:
            log.trim_committed()
        damaged = [str(each) for each in log.damage() if each is not None] if options.check else None
        sys.stdout.write(_json(log, damaged) if options.json else _text(log, damaged))
    return _DAMAGED if damaged else 0


def _drop(log: SqliteEventLog, group: str) -> None:
    known = {each.group for each in log.groups()}
    if group not in known:
        raise LogError(f"group {group!r}: the log has none of this name; it has {', '.join(sorted(known)) or 'none'}")
    log.drop_group(group)


def _sizes(path: str) -> dict[str, int]:
    """Bytes of the log's files on the disk, by what they are."""
    files = {"database": path, "wal": f"{path}-wal", "reserve": f"{path}-reserve"}
    return {name: os.path.getsize(file) for name, file in files.items() if os.path.exists(file)}


def _json(log: SqliteEventLog, damaged: list[str] | None) -> str:
    found: dict[str, object] = {
        "path": log.path,
        "log_id": log.log_id,
        "bytes": _sizes(log.path),
        "cores": [each._asdict() for each in log.cores()],
        "groups": [each._asdict() for each in log.groups()],
    }
    if damaged is not None:
        found["damaged"] = damaged
    return json.dumps(found, indent=2) + "\n"


def _text(log: SqliteEventLog, damaged: list[str] | None) -> str:
    from .inspection import aligned

    sizes = ", ".join(f"{name} {size:,} bytes" for name, size in _sizes(log.path).items())
    lines = [f"{log.path}: log {log.log_id}; {sizes}\n"]
    cores = [
        [
            str(each.core_id),
            "-" if each.first_sequence is None else f"{each.first_sequence:,}",
            f"{each.last_sequence:,}",
            f"{each.events:,}",
            f"{each.batches:,}",
            f"{each.size:,}",
        ]
        for each in log.cores()
    ]
    if cores:
        lines.append("\n" + aligned([["core", "first", "last", "events", "batches", "bytes"], *cores]))
    groups = [
        [
            each.group,
            str(each.core_id),
            "-" if each.sequence is None else f"{each.sequence:,}",
            f"{each.lag:,}",
            each.holder or "-",
        ]
        for each in log.groups()
    ]
    if groups:
        lines.append("\n" + aligned([["group", "core", "watermark", "lag", "followed by"], *groups]))
    if damaged is not None:
        lines.append("\n" + "".join(f"{each}\n" for each in damaged or ["every stored batch is intact"]))
    return "".join(lines)


LOG: Final = Subcommand(
    name="log",
    help="show what an event log has and who reads it; check, trim or copy it",
    description=(
        "Shows what a log in a SQLite file has of each core, and where each group stands: its watermark, how many"
        " numbers it is behind, and who follows now. It writes only to trim or to drop a group. With --json it prints"
        " one object: path, log_id, bytes (of its files), cores and groups, with the fields of CoreRange and"
        " GroupPosition, and with --check damaged, an array of messages. What is asked for is done in this order:"
        " --backup, --drop-group, --trim, --check."
    ),
    epilog="exit code: 0 done; 1 --check has found damage; 2 refused, with one line on stderr that says why",
    add_arguments=_add_arguments,
    run=_run,
    refusals=(LogError, OSError, ValueError),
)
