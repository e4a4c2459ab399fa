"""A process of the demo: it is given the bus, and tells the parent what the bus warned of."""

from __future__ import annotations

import signal
from collections.abc import Callable
from multiprocessing.connection import Connection

from ... import EventBus
from ..child_process import Child
from ..child_process import spawn as spawn_child
from .log import warnings_shown

__all__ = ["TerminationNoted", "spawn"]


def spawn(role: str, work: Callable[..., None], bus: EventBus, *arguments: object) -> Child:
    """Starts a process that does ``work(link, bus, *arguments)``, and then closes both."""
    return spawn_child(role, _with_bus, work, bus, *arguments)


def _with_bus(link: Connection, work: Callable[..., None], bus: EventBus, *arguments: object) -> None:
    with bus, warnings_shown(link.send):
        work(link, bus, *arguments)


class TerminationNoted:
    """Is set by SIGTERM, from now on; made in the main thread.

    Not a ``threading.Event``: its ``set()`` waits for ever for a lock that the code it interrupts may hold.
    """

    def __init__(self) -> None:
        self._came = False
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_: object) -> None:
        self._came = True

    def is_set(self) -> bool:
        """Whether SIGTERM came."""
        return self._came
