"""Processes of a command: started so that Ctrl-C is the parent's alone to answer, named when they die, and never left.

They are spawned, not forked. A fork copies the locks that other threads hold, and the parent may have a thread that
draws its progress. And a spawned child has only what it is given: it opens a bus by its name, as other programs do.
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

_PATIENCE: Final = 5  # seconds a child has to end when told to


@dataclasses.dataclass(frozen=True, slots=True)
class Child:
    """A process, what it does, and the link to it."""

    role: str
    process: BaseProcess
    link: Connection

    def await_ready(self) -> None:
        """Waits for its first message, by which it says that it is ready.

        Raises
        ------
        ChildProcessError
            It has ended instead.
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
            It has ended, and well.
        ChildProcessError
            It was killed, or failed.
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
    """Sends a message, if there is still somebody to read it."""
    # If it has died, the end of file on its link says so, and how is known then.
    with contextlib.suppress(ConnectionError):
        child.link.send(message)


def spawn(role: str, work: Callable[..., None], *arguments: object) -> Child:
    """Starts a process that does ``work(link, *arguments)``, and then closes its link to the parent.

    Where a signal may unwind the parent, call it in ``termination_deferred()``: a start that is unwound halfway leaves
    a child that was not told what to do, and says so in a traceback.
    """
    context = multiprocessing.get_context("spawn")
    link, childs_link = context.Pipe()
    # Daemonic: if a second Ctrl-C keeps stop from its work, the interpreter does it at exit.
    process = context.Process(target=_run_child, args=(work, childs_link, *arguments), name=role, daemon=True)
    with childs_link, _interrupts_held_back():
        process.start()
    return Child(role, process, link)


@contextlib.contextmanager
def _interrupts_held_back() -> Generator[None, None, None]:
    """A child started here never has SIGINT: Ctrl-C on a terminal would reach it too, and it would print a traceback.

    The mask is inherited, and holds before the child's first line of Python.
    """
    # Starts with the first child otherwise, and unblocks SIGINT when it does (CPython 3.11).
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def stop(children: Sequence[Child]) -> None:
    """Ends them: asked to, and after a while in any case."""
    for child in children:
        child.process.terminate()
    for child in children:
        child.process.join(_PATIENCE)
        child.process.kill()
        child.process.join()
        child.link.close()


def _run_child(work: Callable[..., None], link: Connection, *arguments: object) -> None:
    with link:
        work(link, *arguments)
