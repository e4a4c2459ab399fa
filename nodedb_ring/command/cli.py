"""The command line ``nodedb-ring``: finds the command, runs it, and turns its errors into exit codes."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from .. import __version__
from ..errors import WrongAnswerError
from .bench.cli import BENCH
from .buses import INSPECT, LIST, UNLINK
from .capture import CAPTURE
from .demo.cli import DEMO
from .logs import LOG
from .subcommand import Subcommand
from .top.cli import TOP

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

__all__ = ["SUBCOMMANDS", "command_parser", "main"]

SUBCOMMANDS: Final = (DEMO, BENCH, LIST, INSPECT, TOP, UNLINK, LOG, CAPTURE)
"""All commands, in the order of ``nodedb-ring --help``."""

_REFUSED: Final = 2
"""The exit code that argparse uses, too."""
_WRONG_ANSWER: Final = 3
_INTERRUPTED: Final = 130
"""128 + SIGINT, as in a shell."""
_PIPE_CLOSED: Final = 141
"""128 + SIGPIPE, as in a shell."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that `arguments` name, by default those of the process; returns the exit code."""
    _open_standard_streams()
    try:
        options = command_parser().parse_args(arguments)
    except SystemExit:
        # argparse has printed its help or refused the arguments.
        _discard_unwritten()
        raise
    [command] = [command for command in SUBCOMMANDS if command.name == options.command]
    try:
        code = _run(command, options)
    except BrokenPipeError:
        code = 0 if command.only_shows else _PIPE_CLOSED
    _discard_unwritten()
    return code


class _Parser(argparse.ArgumentParser):
    """Prints help and errors into a closed pipe without a traceback, as newer releases of Python do by themselves."""

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        with contextlib.suppress(OSError):
            super()._print_message(message, file)


def command_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = _Parser(
        prog="nodedb-ring",
        description="An event bus from database cores to analytics: one bounded ring per core.",
    )
    parser.add_argument("--version", action="version", version=f"nodedb_ring {__version__}")
    parsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in SUBCOMMANDS:
        command.add_arguments(
            parsers.add_parser(command.name, help=command.help, description=command.description, epilog=command.epilog)
        )
    return parser


def _run(command: Subcommand, options: argparse.Namespace) -> int:
    try:
        code = command.run(options)
        # Flushed here, because an error while the interpreter exits would print a traceback.
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except WrongAnswerError as error:
        _print_error(f"nodedb-ring {command.name}: wrong answer: {error}")
        return _WRONG_ANSWER
    except ModuleNotFoundError as error:
        message = command.missing.get(error.name or "")
        if message is None:
            raise
        return _refuse(command, message)
    except command.refusals as error:
        return _refuse(command, str(error))
    except KeyboardInterrupt:
        _print_error("nodedb-ring: interrupted")
        return _INTERRUPTED
    return code


def _refuse(command: Subcommand, message: str) -> int:
    _print_error(f"nodedb-ring {command.name}: {message}")
    return _REFUSED


def _print_error(line: str) -> None:
    # A closed stderr does not change the exit code.
    with contextlib.suppress(BrokenPipeError):
        print(line, file=sys.stderr)


def _open_standard_streams() -> None:
    """Opens /dev/null for each output stream that is None because its descriptor was closed before the start."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - stays open as long as the process lives


def _discard_unwritten() -> None:
    """Discards output that a closed pipe or a full disk did not take; else it would be a traceback at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            # A stream that a test has put in place may have no descriptor.
            with contextlib.suppress(OSError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
