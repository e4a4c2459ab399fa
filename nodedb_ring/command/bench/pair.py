"""The two processes of a benchmark: one writes, one reads, on a core each, through rings that have no name any more."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Callable, Generator, Mapping
from multiprocessing.connection import Connection, wait
from typing import Any, Final, TypeVar

from ...bus.directory import DEFAULT_DIRECTORY
from ...bus.event_bus import EventBus
from ...bus.file import remove
from ...ends._consumer import EventConsumer
from ...errors import WrongAnswerError
from ..child_process import Child, send, spawn, stop
from ..termination import termination_deferred
from .measurement import Measurement
from .settings import Settings
from .workload import Lap, Tally

__all__ = ["Pair", "pair_of_processes"]

_Figure = TypeVar("_Figure")

_READY: Final = "ready"
_GO: Final = "go"
_PATIENCE: Final = 10.0
"""Seconds until the rest of a lap is taken for lost: far more than all of it takes."""


class Pair:
    """A writer and a reader that have every ring open, and measure one thing after another."""

    def __init__(self, writer: Child, reader: Child) -> None:
        self._writer = writer
        self._reader = reader

    def measure(self, measurement: Measurement[_Figure]) -> _Figure:
        """Has both do their part, and returns the figure.

        Raises
        ------
        WrongAnswerError
            What came is not what was sent.
        ChildProcessError
            One of them was killed or failed: says which.
        """
        both = (self._reader, self._writer)
        for child in both:
            send(child, measurement)
        for child in both:
            self._await(child, _READY)  # each has its end of the ring: neither takes the other for gone
        for child in both:
            send(child, _GO)
        self._await(self._reader, _READY)  # the lap was compared
        send(self._writer, _GO)
        read = self._hear(self._reader)
        return measurement.figure(self._hear(self._writer), read)

    def await_ready(self) -> None:
        """Returns when both have all rings open."""
        self._await(self._writer, _READY)
        self._await(self._reader, _READY)

    def _await(self, child: Child, word: str) -> None:
        said = self._hear(child)
        if said != word:
            raise RuntimeError(f"{child.role} said {said!r}, and not {word!r}")

    def _hear(self, child: Child) -> Any:
        # One that has died is named, and not what the other then missed.
        ready = wait([child.link, self._writer.process.sentinel, self._reader.process.sentinel])
        for one in (self._writer, self._reader):
            if one.process.sentinel in ready:
                raise one.failure()
        try:
            said = child.link.recv()
        except (EOFError, OSError):
            raise child.failure() from None
        if isinstance(said, WrongAnswerError):
            raise said
        return said


@contextlib.contextmanager
def pair_of_processes(settings: Settings, cpus: tuple[int, int] | None) -> Generator[Pair, None, None]:
    """Makes a ring of each capacity and starts the two processes, on those CPUs if given; both are gone at the end.

    The rings' names are gone before this yields: however it ends from then on, no bus is left.

    Raises
    ------
    CapacityError, OSError
        There is no room for the rings.
    """
    with contextlib.ExitStack() as ends:
        buses: dict[int, EventBus] = {}
        for capacity in settings.capacities:
            name = f"bench-{os.getpid()}-{secrets.token_hex(4)}"
            ends.callback(_unlink, name)
            buses[capacity] = ends.enter_context(
                EventBus.create(name, 1, capacity, arena_bytes=settings.arena_bytes(capacity))
            )
        children: list[Child] = []
        ends.callback(stop, children)
        for place, (role, work) in enumerate((("the writer", _write), ("the reader", _read))):
            with termination_deferred():
                children.append(spawn(role, _serve, work, buses, None if cpus is None else cpus[place]))
        pair = Pair(*children)
        pair.await_ready()
        for bus in buses.values():
            bus.unlink()
        yield pair


def _unlink(name: str) -> None:
    # By name: an interrupt may come before there is an object for it.
    with contextlib.suppress(FileNotFoundError):
        remove(name, DEFAULT_DIRECTORY)


# In the children.


def _serve(
    link: Connection,
    work: Callable[[Connection, EventBus, Measurement[Any]], None],
    buses: Mapping[int, EventBus],
    cpu: int | None,
) -> None:
    """Does one measurement after another, until the parent has gone or has enough."""
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    # A ring that is filled on purpose has pressure, and its ends come and go.
    logging.getLogger("nodedb_ring").setLevel(logging.CRITICAL)
    link.send(_READY)
    # What the parent's end says when it closes, and what is said to one that has closed.
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            measurement: Measurement[Any] = link.recv()
            try:
                work(link, buses[measurement.capacity], measurement)
            except WrongAnswerError as error:
                link.send(error)


def _write(link: Connection, bus: EventBus, measurement: Measurement[Any]) -> None:
    with bus.producer(0) as producer:
        link.send(_READY)
        link.recv()
        measurement.send_lap(producer)
        link.recv()
        written = measurement.write(producer)
    link.send(written)


def _read(link: Connection, bus: EventBus, measurement: Measurement[Any]) -> None:
    with bus.consumer(0) as consumer:
        link.send(_READY)
        link.recv()
        _read_lap(consumer, measurement.lap)
        link.send(_READY)
        read = measurement.read(consumer)
    link.send(read)


def _read_lap(consumer: EventConsumer, lap: Lap) -> None:
    tally = Tally(lap, thorough=True)
    while tally.count < len(lap.events):
        batch = consumer.drain(timeout=_PATIENCE)
        if not len(batch):
            raise WrongAnswerError(f"{tally.count:,} events came, {len(lap.events):,} were sent")
        tally.take(batch)
