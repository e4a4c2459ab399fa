"""The bus: one ring per core, of which callers get the two ends, within a process or between processes."""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

from .._ring import EventRing
from ..core.backpressure import BackpressureConfig
from ..ends._consumer import EventConsumer, consumer_stats
from ..ends._producer import EventProducer, producer_stats
from ..ends.stats import RingStats
from ..errors import CapacityError, ClosedError, LayoutError
from .directory import DEFAULT_DIRECTORY
from .file import MOST_CORES, BusFile, names
from .region import private_block, ring_size

__all__ = ["DEFAULT_EVENT_BUS_CAPACITY", "EventBus", "create_event_bus"]

DEFAULT_EVENT_BUS_CAPACITY: Final = 65_536
"""The default capacity of a ring, in events."""


def create_event_bus(
    num_cores: int,
    capacity: int = DEFAULT_EVENT_BUS_CAPACITY,
    *,
    arena_bytes: int | None = None,
    backpressure: BackpressureConfig | None = None,
) -> tuple[list[EventProducer], list[EventConsumer]]:
    """Makes a ring per core, and returns a list of the producers and a list of the consumers, by core.

    All memory is touched here: 132 bytes per slot and the arena, 25 MB per core by default.

    Parameters
    ----------
    num_cores : int, at least 1
    capacity : int, default 65,536
        Events per ring, rounded up to a power of two. Every slot is usable.
    arena_bytes : int, optional
        Payload per ring, in bytes: by default 256 per slot, and at least 64 KiB.
    backpressure : BackpressureConfig, optional
        Thresholds of the pressure states.

    Raises
    ------
    CapacityError
        A count below 1, more than 65,536 cores, or a ring too large to address.
    MemoryError
        The kernel refuses so much.
    """
    _check_num_cores(num_cores)
    slots, payload = ring_size(capacity, arena_bytes)
    config = BackpressureConfig() if backpressure is None else backpressure
    thresholds = (config.throttle_enter, config.throttle_exit, config.suspend_enter, config.suspend_exit)
    rings = [
        EventRing(
            private_block(slots, payload), core_id=core_id, capacity=slots, arena_bytes=payload, thresholds=thresholds
        )
        for core_id in range(num_cores)
    ]
    return [EventProducer(ring) for ring in rings], [EventConsumer(ring) for ring in rings]


@final
class EventBus:
    """A bus that processes share by name: ``EventBus.create`` makes it, ``EventBus.open`` finds it.

    ``producer(core_id)`` and ``consumer(core_id)`` claim an end, and return the same classes as ``create_event_bus``.
    An end has one claim at a time. A claim ends when the end is closed or collected, or when its process ends, in any
    way. Then a successor may claim the end, and continues where the last holder stopped. Published events outlive both
    sides. The bus exists until it is unlinked or the machine restarts.

    A bus pickles as its name, so it can be passed to a child process of any start method. Its ends cannot.

    Thread safety
    -------------
    Any thread. A forked child can use the bus itself, but not the ends that were claimed before the fork.
    """

    __slots__ = ("_file", "_is_closed", "_rings", "directory", "name")

    name: str
    """What it was created as."""
    directory: Path
    """Where its file is."""
    _file: BusFile
    _is_closed: bool
    _rings: tuple[EventRing, ...]

    def __init__(self) -> None:
        raise TypeError("EventBus(): use EventBus.create(name, num_cores) or EventBus.open(name)")

    @classmethod
    def _over(cls, name: str, file: BusFile) -> EventBus:
        bus = cls.__new__(cls)
        bus.name = name
        bus.directory = file.path.parent
        bus._file = file
        bus._is_closed = False
        # These claim nothing. The statistics are read from them.
        bus._rings = tuple(bus._attach(core_id) for core_id in range(file.num_cores))
        return bus

    @classmethod
    def create(
        cls,
        name: str,
        num_cores: int,
        capacity: int = DEFAULT_EVENT_BUS_CAPACITY,
        *,
        arena_bytes: int | None = None,
        backpressure: BackpressureConfig | None = None,
        directory: str | os.PathLike[str] | None = None,
    ) -> EventBus:
        """Makes a bus under a name that is free, and opens it.

        Only this user can read and write its file, which takes all of its memory at once.

        Parameters
        ----------
        name : str
            Letters, digits, ``_``, ``-`` and ``.``, at most 128.
        num_cores, capacity, arena_bytes, backpressure
            As for ``create_event_bus``.
        directory : path, default ``/dev/shm``
            A file system in memory, unless every page may go to disk.

        Raises
        ------
        FileExistsError
            There is a bus of that name, this user's or another's.
        OSError
            ENOSPC: the file system has no room. ENAMETOOLONG: the directory's path is too long. Or the file system, or
            this process's sandbox, lacks something: the directory, ``/proc``, hard links, locks, writes or maps. The
            message says which, and what to do. Nothing is left behind.
        CapacityError
            A count below 1, or a ring too large to address.
        """
        _check_num_cores(num_cores)
        slots, payload = ring_size(capacity, arena_bytes)
        config = BackpressureConfig() if backpressure is None else backpressure
        with BusFile.create(
            name, _directory(directory), num_cores=num_cores, capacity=slots, arena_bytes=payload, config=config
        ) as file:
            for core_id in range(num_cores):
                EventRing(
                    file.block(core_id),
                    core_id=core_id,
                    capacity=slots,
                    arena_bytes=payload,
                    thresholds=file.thresholds,
                )
        return cls._over(name, file)

    @classmethod
    def open(cls, name: str, *, directory: str | os.PathLike[str] | None = None) -> EventBus:
        """Opens the bus of that name.

        Raises
        ------
        FileNotFoundError
            There is none.
        PermissionError
            It is another user's.
        LayoutError
            It is not a bus, or one of another version, layout or size, or it is on a disk and was made before the
            machine started. The message says which.
        """
        return cls._over(name, BusFile.open(name, _directory(directory)))

    @staticmethod
    def list(*, directory: str | os.PathLike[str] | None = None) -> builtins.list[str]:
        """The names of this user's buses, sorted."""
        return names(_directory(directory))

    def _attach(self, core_id: int, *, own_mapping: bool = False) -> EventRing:
        file = self._file
        try:
            return EventRing(
                file.own_block(core_id) if own_mapping else file.block(core_id),
                core_id=core_id,
                capacity=file.capacity,
                arena_bytes=file.arena_bytes,
                thresholds=file.thresholds,
                blocks=file.blocks(),
            )
        except LayoutError as error:
            raise LayoutError(f"{file.path}: {error}") from None

    def producer(self, core_id: int) -> EventProducer:
        """Claims the producer's end of a core's ring, to continue after the highest number that was tried there.

        Raises
        ------
        RoleTaken
            A live process holds it. The exception's ``pid`` says which, unless that is in another pid namespace.
        CorruptRingError
            Something else has written to the block.
        IndexError
            There is no such core.
        PermissionError
            This process has become another user's since it opened the bus.
        FileNotFoundError
            There is no ``/proc``, through which ends are claimed.
        OSError
            No descriptor is left.
        """
        ring = self._ring(core_id)
        file = self._file.opened()
        ring.adopt_producer(file.fd, self._file.wake_path(core_id))
        return EventProducer(ring)

    def consumer(self, core_id: int) -> EventConsumer:
        """Claims the consumer's end of a core's ring. Events that were published and not released come first, in order.

        Raises
        ------
        RoleTaken, CorruptRingError, IndexError, PermissionError, FileNotFoundError, OSError
            As for ``producer``.
        """
        ring = self._adopt_consumer(core_id)
        ring.open_consumer()
        return EventConsumer(ring)

    def consumers(self) -> builtins.list[EventConsumer]:
        """Claims the consumers' ends of all cores, by core; or none, if one of them cannot be claimed.

        In that case the producers notice nothing. ``merge`` and ``wait`` read such a list.

        Raises
        ------
        RoleTaken, CorruptRingError, PermissionError, FileNotFoundError, OSError
            As for ``producer``. The message, or a note of the exception, says which core it was.
        """
        adopted: builtins.list[EventRing] = []
        for core_id in range(self.num_cores):
            try:
                adopted.append(self._adopt_consumer(core_id))
            except BaseException as error:
                for ring in adopted:
                    ring.give_back_consumer()
                error.add_note(f"consumer of core {core_id}: could not be claimed, so none of the bus was")
                raise
        for ring in adopted:
            ring.open_consumer()
        return [EventConsumer(ring) for ring in adopted]

    def _adopt_consumer(self, core_id: int) -> EventRing:
        # In a forked child its leases stay readable while the bus continues: see own_block().
        ring = self._ring(core_id, own_mapping=True)
        file = self._file.opened()
        ring.adopt_consumer(file.fd, self._file.wake_path(core_id))
        return ring

    def _ring(self, core_id: int, *, own_mapping: bool = False) -> EventRing:
        self._check_core(core_id)
        self._file.check_claimable()
        return self._attach(core_id, own_mapping=own_mapping)

    def _check_core(self, core_id: int) -> None:
        self._check_open()
        if not isinstance(core_id, int) or isinstance(core_id, bool):
            raise TypeError(f"core_id {core_id!r}: must be an int, not {type(core_id).__name__}")
        if not 0 <= core_id < self.num_cores:
            raise IndexError(f"core_id {core_id}: the bus has cores 0 to {self.num_cores - 1}")

    def stats(self) -> tuple[RingStats, ...]:
        """A snapshot of each core's ring. It claims nothing.

        Raises
        ------
        CorruptRingError
            Something else has written to a block.
        """
        return tuple(self.ring_stats(core_id) for core_id in range(self.num_cores))

    def ring_stats(self, core_id: int) -> RingStats:
        """One core's part of ``stats()``, which does not depend on the other cores' blocks.

        Raises
        ------
        CorruptRingError
            Something else has written to this core's block.
        IndexError
            There is no such core.
        """
        # Read before the check that the bus is open: close() from another thread empties the tuple.
        rings = self._rings
        self._check_core(core_id)
        ring = rings[core_id]
        ring.check_positions()
        file = self._file.opened()
        (producer_pid, producer_is_elsewhere), (consumer_pid, consumer_is_elsewhere) = ring.holders(file.fd)
        producer_claims, consumer_claims = ring.claims
        return RingStats(
            core_id=ring.core_id,
            pressure_state=ring.pressure_state,
            utilization=ring.utilization,
            producer=producer_stats(ring),
            consumer=consumer_stats(ring),
            producer_pid=producer_pid,
            consumer_pid=consumer_pid,
            producer_is_elsewhere=producer_is_elsewhere,
            consumer_is_elsewhere=consumer_is_elsewhere,
            producer_claims=producer_claims,
            consumer_claims=consumer_claims,
        )

    def unlink(self) -> None:
        """Removes the name. May be repeated. Processes that have it open continue; the last one frees the memory."""
        self._file.unlink()

    def close(self) -> None:
        """Closes the bus in this process. May be repeated. Ends that were claimed through it stay open."""
        self._is_closed = True
        self._rings = ()
        self._file.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClosedError(f"bus {self.name!r}: is closed; open it again")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[[str, Path], EventBus], tuple[str, Path]]:
        return _open_by_name, (self.name, self.directory)

    def __repr__(self) -> str:
        state = " closed" if self._is_closed else ""
        return (
            f"<EventBus {self.name!r}{state}: {self.num_cores} cores of {self.capacity} events, in {str(self.path)!r}>"
        )

    @property
    def is_linked(self) -> bool:
        """Whether its name still leads to it: it was not unlinked, and no other bus has the name."""
        return self._file.is_linked()

    @property
    def path(self) -> Path:
        """The bus's file."""
        return self._file.path

    @property
    def num_cores(self) -> int:
        """The number of rings."""
        return self._file.num_cores

    @property
    def capacity(self) -> int:
        """Events per ring, a power of two."""
        return self._file.capacity

    @property
    def arena_bytes(self) -> int:
        """Payload per ring, in bytes."""
        return self._file.arena_bytes


def _open_by_name(name: str, directory: Path) -> EventBus:
    """Unpickles a bus."""
    return EventBus.open(name, directory=directory)


def _check_num_cores(num_cores: int) -> None:
    if not isinstance(num_cores, int) or isinstance(num_cores, bool):
        raise TypeError(f"num_cores {num_cores!r}: must be an int, not {type(num_cores).__name__}")
    if num_cores < 1:
        raise CapacityError(f"num_cores {num_cores}: must be at least 1")
    if num_cores > MOST_CORES:
        raise CapacityError(f"num_cores {num_cores}: must be at most {MOST_CORES}")


def _directory(directory: str | os.PathLike[str] | None) -> Path:
    # Absolute: a bus may be unpickled in a process with another working directory.
    return DEFAULT_DIRECTORY if directory is None else Path(directory).absolute()
