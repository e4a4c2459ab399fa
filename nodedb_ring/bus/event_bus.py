"""The bus: one ring per core, and its two ends, within a process or between processes."""

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
"""Default capacity of a ring, in events."""


def create_event_bus(
    num_cores: int,
    capacity: int = DEFAULT_EVENT_BUS_CAPACITY,
    *,
    arena_bytes: int | None = None,
    backpressure: BackpressureConfig | None = None,
) -> tuple[list[EventProducer], list[EventConsumer]]:
    """Creates one ring per core, and returns the producers and the consumers, in the order of the cores.

    All of the memory is touched here: 4 + 128 bytes per slot and the arena, by default 25 MB per core.

    Parameters
    ----------
    num_cores : int, at least 1
    capacity : int, default 65,536
        Events that a ring can hold, rounded up to a power of two; every slot is usable.
    arena_bytes : int, optional
        Bytes of payload that a ring can hold: by default 256 per slot, and at least 64 KiB.
    backpressure : BackpressureConfig, optional
        Thresholds of the pressure states.

    Raises
    ------
    CapacityError
        A count below 1, more than 65,536 cores, or a ring too large to address.
    MemoryError
        The kernel refuses the memory.
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
    """A bus that processes share by name: ``EventBus.create`` creates it, ``EventBus.open`` opens it.

    An end has at most one live holder. ``producer(core_id)`` and ``consumer(core_id)`` claim an end and return the same
    classes as ``create_event_bus``. A claim ends when the end is closed or garbage-collected, or when its process ends
    for any reason. Then a successor may claim the end, and continues where the last holder stopped. Published events
    outlive both sides. The bus exists until it is unlinked or the machine restarts.

    A bus pickles as its name, so it can be passed to a child process with any start method; its ends cannot.

    Thread safety
    -------------
    Any thread. In a forked child, ends that were claimed before the fork raise ``ForkError``; the bus itself works.
    """

    __slots__ = ("_file", "_is_closed", "_rings", "directory", "name")

    name: str
    """The name of the bus."""
    directory: Path
    """The directory of its file."""
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
        # Rings that claim nothing, to read the accounts from.
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
        """Creates a bus under a new name, and opens it.

        Its file is readable and writable for this user only, and all of its memory is allocated at once.

        Parameters
        ----------
        name : str
            Letters, digits, ``_``, ``-`` and ``.``, at most 128.
        num_cores, capacity, arena_bytes, backpressure
            As for ``create_event_bus``.
        directory : path, default ``/dev/shm``
            A directory in memory. On a disk, the kernel may write every page of the bus to it.

        Raises
        ------
        FileExistsError
            A bus of that name exists, of this user or another.
        OSError
            ENOSPC: the file system is full. ENAMETOOLONG: the directory's path is too long. Otherwise the file system,
            or the process's sandbox, lacks something: the directory, ``/proc``, hard links, locks, writes or maps. The
            message says what, and what to do. No file is left behind.
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
            No bus has that name.
        PermissionError
            The bus belongs to another user.
        LayoutError
            The file is not a bus, or is a bus of another version, layout or size, or one on a disk from before the
            machine's last start. The message says which.
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
                attach=True,
            )
        except LayoutError as error:
            raise LayoutError(f"{file.path}: {error}") from None

    def producer(self, core_id: int) -> EventProducer:
        """Claims the producer's end of a core's ring. It continues after the highest sequence number tried there.

        Raises
        ------
        RoleTaken
            A live process holds it; the exception's ``pid`` says which, unless it is in another pid namespace.
        CorruptRingError
            Something else has written to the block.
        IndexError
            The bus has no such core.
        PermissionError
            The process has changed its user since it opened the bus.
        FileNotFoundError
            ``/proc``, which is needed to claim ends, does not exist.
        OSError
            The process has no file descriptor left.
        """
        ring = self._ring(core_id)
        ring.adopt_producer(self._file.fileno(), self._file.wake_path(core_id))
        return EventProducer(ring)

    def consumer(self, core_id: int) -> EventConsumer:
        """Claims the consumer's end of a core's ring. Events that were leased and not released come first, in order.

        Raises
        ------
        RoleTaken, CorruptRingError, IndexError, PermissionError, FileNotFoundError, OSError
            As for ``producer``.
        """
        # A forked child may still read its leases, and uses the bus itself.
        ring = self._ring(core_id, own_mapping=True)
        ring.adopt_consumer(self._file.fileno(), self._file.wake_path(core_id))
        return EventConsumer(ring)

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
        """A snapshot of each core's ring. Needs no claim: any process that may open the bus may call it.

        Raises
        ------
        CorruptRingError
            Something else has written to a block.
        """
        return tuple(self.ring_stats(core_id) for core_id in range(self.num_cores))

    def ring_stats(self, core_id: int) -> RingStats:
        """A snapshot of one core's ring, even if the blocks of other cores are corrupt.

        Raises
        ------
        CorruptRingError
            Something else has written to this core's block.
        IndexError
            The bus has no such core.
        """
        # Read before the check that the bus is open, because close() from another thread clears them.
        rings = self._rings
        self._check_core(core_id)
        ring = rings[core_id]
        ring.check_positions()
        (producer_pid, producer_is_elsewhere), (consumer_pid, consumer_is_elsewhere) = ring.holders(self._file.fileno())
        producer_claims, consumer_claims = ring.claims
        # Closed meanwhile, the descriptor said nothing of the locks.
        self._check_open()
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
        """Removes the name; processes that have the bus open continue. May be repeated.

        The memory is freed when the last of them has closed it.
        """
        self._file.unlink()

    def close(self) -> None:
        """Closes the bus in this process. Ends that were claimed through it stay open. May be repeated."""
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
        """Whether the name still refers to this bus: False after an unlink, even if another bus has the name now."""
        return self._file.is_linked()

    @property
    def path(self) -> Path:
        """The path of its file."""
        return self._file.path

    @property
    def num_cores(self) -> int:
        """Number of cores, each with one ring."""
        return self._file.num_cores

    @property
    def capacity(self) -> int:
        """Events that each ring can hold: a power of two."""
        return self._file.capacity

    @property
    def arena_bytes(self) -> int:
        """Bytes of payload that each ring can hold."""
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
    # Absolute, because a process that unpickles the bus may have another working directory.
    return DEFAULT_DIRECTORY if directory is None else Path(directory).absolute()
