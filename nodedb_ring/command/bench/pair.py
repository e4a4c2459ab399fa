"""The two processes of a benchmark: one writes and one reads, each on its own core, through unlinked rings."""

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
_LAP_TIMEOUT: Final = 10.0
"""Seconds without an event after which the rest of a lap counts as lost; a whole lap takes far less."""


class Pair:
    """A writer and a reader that have every ring open and run one measurement after another."""

    def __init__(self, writer: Child, reader: Child) -> None:
        self._writer = writer
        self._reader = reader

    def measure(self, measurement: Measurement[_Figure]) -> _Figure:
        """Runs both parts and returns the figure.

        Raises
        ------
        WrongAnswerError
            The events that arrived are not those that were sent.
        ChildProcessError
            One of them was killed or failed; the message says which.
        """
        both = (self._reader, self._writer)
        for child in both:
            send(child, measurement)
        for child in both:
            self._await(child, _READY)  # both have claimed their ends, so neither sees the other as disconnected
        for child in both:
            send(child, _GO)
        self._await(self._reader, _READY)  # the lap was compared
        send(self._writer, _GO)
        read = self._receive(self._reader)
        return measurement.figure(self._receive(self._writer), read)

    def await_ready(self) -> None:
        """Waits until both have all rings open."""
        self._await(self._writer, _READY)
        self._await(self._reader, _READY)

    def _await(self, child: Child, word: str) -> None:
        said = self._receive(child)
        if said != word:
            raise RuntimeError(f"{child.role} sent {said!r}, but {word!r} was expected")

    def _receive(self, child: Child) -> Any:
        # If one process died, that is the error, and not what the other one missed because of it.
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
    """Creates a ring of each capacity and starts the two processes, on those CPUs if given; ends both after the block.

    The buses are unlinked before the block begins, so that none is left however it ends.

    Raises
    ------
    CapacityError, OSError
        The rings do not fit in memory.
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
    # By name, because an interrupt may come before the object exists.
    with contextlib.suppress(FileNotFoundError):
        remove(name, DEFAULT_DIRECTORY)


# In the children.


def _serve(
    link: Connection,
    work: Callable[[Connection, EventBus, Measurement[Any]], None],
    buses: Mapping[int, EventBus],
    cpu: int | None,
) -> None:
    """Runs one measurement after another until the parent closes the link."""
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    # Rings are filled on purpose and their ends close, and neither needs a warning.
    logging.getLogger("nodedb_ring").setLevel(logging.CRITICAL)
    link.send(_READY)
    # Both errors mean that the parent has closed its end.
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
        batch = consumer.drain(timeout=_LAP_TIMEOUT)
        if not len(batch):
            raise WrongAnswerError(f"{tally.count:,} events arrived, {len(lap.events):,} were sent")
        tally.take(batch)
