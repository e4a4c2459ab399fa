"""A process of the demo: it is given the bus, and tells the parent what the bus warned of."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.connection import Connection

from .. import EventBus, child_process
from ..child_process import Child
from .log import warnings_shown

__all__ = ["spawn"]


def spawn(role: str, work: Callable[..., None], bus: EventBus, *arguments: object) -> Child:
    """Starts a process that does ``work(link, bus, *arguments)``, and then closes both."""
    return child_process.spawn(role, _with_bus, work, bus, *arguments)


def _with_bus(link: Connection, work: Callable[..., None], bus: EventBus, *arguments: object) -> None:
    with bus, warnings_shown(link.send):
        work(link, bus, *arguments)
