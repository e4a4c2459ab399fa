"""What every way from one process to another must be able to do to be measured."""

from __future__ import annotations

import abc
import importlib.util
import itertools
import os
import time
from collections.abc import Callable
from itertools import repeat
from typing import ClassVar, Final

from ..records import CYCLE, Ledger, One

__all__ = ["MODES", "POLLING", "WAITING", "Peer", "fresh_name", "rest_for"]

POLLING: Final = (0, 100, 1000)
"""Turns of an empty loop, about 10 ns each, between two polls while there are no events, or no room."""

WAITING: Final = (0,)
"""For a peer whose own calls wait."""

MODES: Final = ("spinning", "hybrid", "parked")
"""How a receiver waits for one event: it only polls; it waits as it does by default; it sleeps at once."""

_LOOK_S: Final = 50e-6
"""How long a peer without a default of its own polls before it sleeps."""

_numbers = itertools.count()


def fresh_name() -> str:
    """A name that is unique on this machine."""
    return f"nodedb-ring-benchmark-{os.getpid()}-{next(_numbers)}"


def rest_for(pauses: int) -> Callable[[], None]:
    """A function that waits so many turns of an empty loop."""

    def rest() -> None:
        for _ in repeat(None, pauses):
            pass

    return rest


class Peer(abc.ABC):
    """One way of events, made before two processes are forked: one of them sends, the other receives.

    Parameters
    ----------
    is_batched : bool
        Whether it is to carry batches of 1024 events, or single ones.
    pauses : int
        One of the class's `pauses`.
    """

    title: ClassVar[str]
    module: ClassVar[str | None] = None
    """What must be installed."""
    to_install: ClassVar[str] = ""
    """What it takes to install it, if that is more than ``pip``."""
    pauses: ClassVar[tuple[int, ...]]
    lap: ClassVar[int] = CYCLE
    """Events, in whole cycles, after which the memory of the first is used again: sent before any time is taken."""
    can_look: ClassVar[bool] = True
    """Whether ``try_one`` can return with nothing."""
    can_wait: ClassVar[bool] = True
    """Whether ``wait_one`` can sleep."""
    has_thread: ClassVar[bool] = False
    """Whether a thread in Python sends what it was given, so that a sender that polls a clock must let it run."""

    def __init__(self, *, is_batched: bool, pauses: int = 0) -> None:
        self.is_batched = is_batched
        self.rest = rest_for(pauses)

    @classmethod
    def is_installed(cls) -> bool:
        """Whether it can be measured here."""
        return cls.module is None or importlib.util.find_spec(cls.module) is not None

    @classmethod
    def has(cls, mode: str) -> bool:
        """Whether its receiver can wait in that one of the `MODES`."""
        return {"spinning": cls.can_look, "hybrid": cls.can_look and cls.can_wait, "parked": cls.can_wait}[mode]

    def set_mode(self, mode: str) -> None:  # noqa: B027
        """Called in both processes, after an end was opened and before its first event: how the receiver will wait."""

    # In the process that sends.

    @abc.abstractmethod
    def open_sender(self) -> None:
        """Makes ready whatever need not be timed."""

    @abc.abstractmethod
    def make_ready(self, first: int, count: int) -> None:
        """Makes the ready events, numbered from `first` on."""

    @abc.abstractmethod
    def send_fields(self, first: int, count: int) -> None:
        """Makes `count` events of their fields, and sends each when it is made."""

    @abc.abstractmethod
    def send_ready(self) -> None:
        """Sends the ready events one by one."""

    @abc.abstractmethod
    def send_batches(self, count: int) -> None:
        """Sends `count` events in ready batches; `count` is a multiple of ``CYCLE``."""

    @abc.abstractmethod
    def send_one(self, place: int) -> None:
        """Sends one of the ready events, and wakes the receiver if it may sleep in the mode that was set."""

    @abc.abstractmethod
    def send_stamped(self, number: int, lsn: int) -> None:
        """Makes one event of its fields, and sends it as ``send_one`` does."""

    # In the process that receives.

    @abc.abstractmethod
    def open_receiver(self) -> None:
        """Makes ready whatever need not be timed."""

    @abc.abstractmethod
    def receive(self, count: int, ledger: Ledger) -> None:
        """Takes `count` events into NumPy arrays of its own, and enters them."""

    def try_one(self) -> One | None:
        """The next event, or None if it is not there."""
        raise NotImplementedError

    def wait_one(self) -> One:
        """The next event, asleep until it comes."""
        raise NotImplementedError

    def taker(self, mode: str) -> Callable[[], One]:
        """Returns what waits for one event in that mode, which was set."""
        poll, wait, clock = self.try_one, self.wait_one, time.perf_counter

        def spin() -> One:
            while (one := poll()) is None:
                pass
            return one

        def spin_then_wait() -> One:
            end = clock() + _LOOK_S
            while (one := poll()) is None:
                if clock() > end:
                    return wait()
            return one

        return {"spinning": spin, "hybrid": spin_then_wait, "parked": wait}[mode]

    def idle(self, seconds: float) -> None:
        """Waits, as its users would, for events that do not come."""
        raise NotImplementedError

    # In the process that made it.

    @abc.abstractmethod
    def close(self) -> None:
        """Removes what it left on the machine."""
