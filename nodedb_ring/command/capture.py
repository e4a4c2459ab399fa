"""The command ``capture``: runs a capture of PostgreSQL beside the database."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Generator
from types import FrameType
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

from ..bus.event_bus import DEFAULT_EVENT_BUS_CAPACITY, EventBus
from ..errors import CaptureError, LogError, RoleTaken
from .arguments import BUS_REFUSALS, add_directory, positive
from .capture_status import status_written
from .subcommand import Subcommand
from .termination import TERMINATION, signals_handled

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ..capture.postgres import PostgresCapture
    from ..log import EventLog

__all__ = ["CAPTURE"]

_PROGRESS_SECONDS: Final = 1.0

_PRESSURE: Final = "core %d: the ring is %s at %d %%"
"""What a producer logs whenever its ring fills, and when it has room again."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dsn", metavar="DSN", help="the database: postgresql://user@host/name, or a string of libpq")
    parser.add_argument("--publication", required=True, metavar="NAME", help="what is captured")
    parser.add_argument("--slot", required=True, metavar="NAME", help="the replication slot, one for each capture")
    parser.add_argument("--bus", required=True, metavar="NAME", help="the bus, which is made if there is none")
    parser.add_argument("--core", type=int, default=0, metavar="N", help="core of the bus (default: %(default)s)")
    parser.add_argument(
        "--capacity",
        type=positive,
        default=DEFAULT_EVENT_BUS_CAPACITY,
        metavar="N",
        help="events per ring of a bus that is made (default: %(default)s)",
    )
    parser.add_argument(
        "--arena-bytes", type=positive, metavar="N", help="bytes of payload per ring of a bus that is made"
    )
    parser.add_argument(
        "--log",
        metavar="LOG",
        help="also keep the events: in a SQLite file, or in JetStream as nats://host:4222/STREAM",
    )
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--snapshot", action="store_true", help="begin with the rows that are there, and make the slot")
    begin.add_argument("--create-slot", action="store_true", help="make the slot, for the changes from now on")
    add_directory(parser)


def _run(options: argparse.Namespace) -> int:
    from ..capture.postgres import PostgresCapture

    handler = logging.StreamHandler()
    handler.addFilter(_is_no_pressure)
    logging.basicConfig(format="nodedb-ring capture: %(message)s", handlers=[handler])
    with _log_of(options.log) as log, _bus_of(options) as bus, bus.producer(options.core) as producer:
        capture = PostgresCapture(
            options.dsn,
            producer,
            publication=options.publication,
            slot=options.slot,
            log=log,
            snapshot=options.snapshot,
        )
        if options.create_slot:
            capture.ensure_slot()
        with (
            _stopped_by_signals(capture),
            status_written(bus.name, bus.directory, options.core, options.slot, capture.stats),
            _progress(capture, shows=options.snapshot),
        ):
            capture.run()
    return 0


def _is_no_pressure(record: logging.LogRecord) -> bool:
    """A capture that fills its ring waits, as often as that happens; ``top`` shows it."""
    return record.msg != _PRESSURE


def _log_of(where: str | None) -> AbstractContextManager[EventLog | None]:
    if where is None:
        return contextlib.nullcontext()
    if not where.startswith(("nats://", "tls://")):
        from ..log.sqlite import SqliteEventLog

        return SqliteEventLog(where)
    from ..log.jetstream import JetStreamEventLog

    url = urlsplit(where)
    stream = url.path.strip("/")
    if not stream:
        raise ValueError(f"--log {where}: names no stream; write {where.rstrip('/')}/STREAM")
    return JetStreamEventLog(urlunsplit((url.scheme, url.netloc, "", "", "")), stream)


def _bus_of(options: argparse.Namespace) -> EventBus:
    try:
        return EventBus.open(options.bus, directory=options.directory)
    except FileNotFoundError:
        return EventBus.create(
            options.bus,
            options.core + 1,
            options.capacity,
            arena_bytes=options.arena_bytes,
            directory=options.directory,
        )


@contextlib.contextmanager
def _stopped_by_signals(capture: PostgresCapture) -> Generator[None, None, None]:
    """In the block Ctrl-C, SIGTERM and SIGHUP stop the capture, which then returns."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        capture.stop()

    with signals_handled((signal.SIGINT, *TERMINATION), stop):
        yield


@contextlib.contextmanager
def _progress(capture: PostgresCapture, *, shows: bool) -> Generator[None, None, None]:
    """A line on a terminal that counts the rows of a snapshot, until the stream begins."""
    done = threading.Event()

    def show() -> None:
        while not done.wait(_PROGRESS_SECONDS):
            stats = capture.stats()
            if stats.connected:
                break
            sys.stderr.write(f"\rsnapshot: {stats.received:,} rows")
            sys.stderr.flush()
        sys.stderr.write("\n")

    thread = threading.Thread(target=show, daemon=True)
    if shows and sys.stderr.isatty():
        thread.start()
    try:
        yield
    finally:
        done.set()
        if thread.ident is not None:
            thread.join()


_MISSING: Final = {
    "psycopg2": "needs psycopg2, which is not installed: pip install 'nodedb_ring[postgres]'",
    "nats": "needs nats-py for --log nats://, which is not installed: pip install 'nodedb_ring[nats]'",
}

CAPTURE: Final = Subcommand(
    name="capture",
    help="emit the changes of a PostgreSQL database into a bus",
    description=(
        "Receives the committed changes of a publication through a replication slot, and emits them as write events"
        " into a core of a shared bus, until it gets SIGTERM, SIGHUP or Ctrl-C. A restart goes on where it ended. The"
        " bus stays when the command ends, so that its consumers drain it: see unlink. The slot stays, too, and the"
        " server keeps its log for it: drop a slot that is not needed any more with SELECT"
        " pg_drop_replication_slot('NAME')."
    ),
    epilog="exit code: 0 stopped by a signal; 2 refused or ended by an error, with one line on stderr that says why",
    add_arguments=_add_arguments,
    run=_run,
    refusals=(*BUS_REFUSALS, CaptureError, IndexError, LogError, RoleTaken),
    missing=_MISSING,
)
