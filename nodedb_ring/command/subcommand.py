"""What a command of ``nodedb-ring`` is."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping

__all__ = ["Subcommand"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Subcommand:
    """One command: how it is called, and what runs it.

    Attributes
    ----------
    name : str
        The word after ``nodedb-ring``.
    help : str
        One line for ``nodedb-ring --help``.
    description, epilog : str
        The text before and after the options in ``nodedb-ring NAME --help``.
    add_arguments : callable
        Adds the command's arguments to its parser.
    run : callable
        Runs the command and returns the exit code. It imports what the command needs, so that others start fast.
    refusals : tuple of exception types
        Errors that are the user's to mend: one line on stderr and exit code 2, in place of a traceback.
    missing : mapping of str to str, default empty
        For each module of an optional extra, the line to show if it is not installed.
    only_shows : bool, default False
        Whether the command only shows something: then a reader who closes the pipe early is no error.
    """

    name: str
    help: str
    description: str
    epilog: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    refusals: tuple[type[Exception], ...]
    missing: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    only_shows: bool = False
