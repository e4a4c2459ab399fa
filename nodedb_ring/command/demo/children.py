"""A process of the demo: it gets the bus, and sends the bus's warnings to the parent."""

from __future__ import annotations

import signal
from collections.abc import Callable
from multiprocessing.connection import Connection

from ... import EventBus
from ..child_process import Child
from ..child_process import spawn as spawn_child
from .log import warnings_shown

__all__ = ["TerminationFlag", "spawn"]


def spawn(role: str, work: Callable[..., None], bus: EventBus, *arguments: object) -> Child:
    """Starts a process that runs ``work(link, bus, *arguments)`` and then closes link and bus."""
    return spawn_child(role, _with_bus, work, bus, *arguments)


def _with_bus(link: Connection, work: Callable[..., None], bus: EventBus, *arguments: object) -> None:
    with bus, warnings_shown(link.send):
        work(link, bus, *arguments)


class TerminationFlag:
    """A flag that SIGTERM sets from now on; made in the main thread.

    It is not a ``threading.Event``, whose ``set()`` would wait forever for a lock that the interrupted code may hold.
    """

    def __init__(self) -> None:
        self._is_set = False
        signal.signal(signal.SIGTERM, self._set)

    def _set(self, *_: object) -> None:
        self._is_set = True

    def is_set(self) -> bool:
        """Whether SIGTERM has arrived."""
        return self._is_set
