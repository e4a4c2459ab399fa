"""Child processes of a command: only the parent answers Ctrl-C, a child that dies is named, and none is left running.

They are spawned, not forked: a fork copies locks that other threads hold, and the parent may have a thread that draws
its progress. A spawned child has only what it is given, and opens a bus by its name, as other programs do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import signal
from collections.abc import Callable, Generator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Final

__all__ = ["Child", "send", "spawn", "stop"]

_STOP_TIMEOUT: Final = 5
"""Seconds from SIGTERM to SIGKILL."""


@dataclasses.dataclass(frozen=True, slots=True)
class Child:
    """A process, its role in words, and the connection to it."""

    role: str
    process: BaseProcess
    link: Connection

    def await_ready(self) -> None:
        """Waits for its first message, which says that it is ready.

        Raises
        ------
        ChildProcessError
            It ended before it was ready.
        """
        try:
            self.link.recv()
        except (EOFError, OSError):
            raise self.failure() from None

    def receive(self) -> Any:
        """Waits for its next message.

        Raises
        ------
        EOFError
            It ended with exit code 0.
        ChildProcessError
            It was killed or failed.
        """
        try:
            return self.link.recv()
        except (EOFError, OSError):  # OSError if it was killed in the middle of a message
            self.process.join()
            if self.process.exitcode != 0:
                raise self.failure() from None
            raise EOFError from None

    def failure(self) -> ChildProcessError:
        """The error that says how it ended; waits until it has."""
        self.process.join()
        code = self.process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return ChildProcessError(f"{self.role}, process {self.process.pid}, {how}")


def send(child: Child, message: object) -> None:
    """Sends a message; does nothing if the child has ended."""
    # The end of file on its link shows the parent that it ended.
    with contextlib.suppress(ConnectionError):
        child.link.send(message)


def spawn(role: str, work: Callable[..., None], *arguments: object) -> Child:
    """Starts a process that runs ``work(link, *arguments)`` and then closes its link to the parent.

    If a signal may raise in the parent, call it in ``termination_deferred()``: an interrupted start leaves a child that
    never learns its work and prints a traceback.
    """
    context = multiprocessing.get_context("spawn")
    link, childs_link = context.Pipe()
    # Daemonic, so that the interpreter ends it at exit if a second Ctrl-C interrupts stop().
    process = context.Process(target=_run_child, args=(work, childs_link, *arguments), name=role, daemon=True)
    with childs_link, _sigint_blocked():
        process.start()
    return Child(role, process, link)


@contextlib.contextmanager
def _sigint_blocked() -> Generator[None, None, None]:
    """Children started in the block never get SIGINT: else Ctrl-C on a terminal would make them print a traceback.

    A child inherits the mask, so it holds before its first line of Python.
    """
    # Started here, because it starts with the first child otherwise and then unblocks SIGINT (CPython 3.11).
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def stop(children: Sequence[Child]) -> None:
    """Ends them by SIGTERM, and by SIGKILL those that have not ended after a while."""
    for child in children:
        child.process.terminate()
    for child in children:
        child.process.join(_STOP_TIMEOUT)
        child.process.kill()
        child.process.join()
        child.link.close()


def _run_child(work: Callable[..., None], link: Connection, *arguments: object) -> None:
    with link:
        work(link, *arguments)
