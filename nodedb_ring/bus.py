"""The bus: one ring a core, handed out as its two ends."""

from __future__ import annotations

from typing import Final

from ._consumer import EventConsumer
from ._producer import EventProducer
from ._ring import EventRing
from .backpressure import BackpressureConfig
from .errors import CapacityError
from .region import private_block, ring_size

__all__ = ["DEFAULT_EVENT_BUS_CAPACITY", "create_event_bus"]

DEFAULT_EVENT_BUS_CAPACITY: Final = 65_536
"""Events a ring, unless asked otherwise."""


def create_event_bus(
    num_cores: int,
    capacity: int = DEFAULT_EVENT_BUS_CAPACITY,
    *,
    arena_bytes: int | None = None,
    backpressure: BackpressureConfig | None = None,
) -> tuple[list[EventProducer], list[EventConsumer]]:
    """Makes a ring for each of `num_cores` cores, and returns the producers' ends and the consumers' ends, by core.

    Parameters
    ----------
    num_cores : int, at least 1
    capacity : int, default 65,536
        Events a ring holds, rounded up to a power of two; every slot is usable.
    arena_bytes : int, optional
        Payload a ring holds, in bytes: by default 256 a slot, and at least 64 KiB.
    backpressure : BackpressureConfig, optional
        Thresholds of the pressure states.

    All of the memory is touched here: 4 + 128 bytes a slot and the arena, 25 MB a core by default.

    Raises
    ------
    CapacityError
        A count below 1, or a ring too large to address.
    MemoryError
        The kernel refuses so much.
    """
    if not isinstance(num_cores, int) or isinstance(num_cores, bool):
        raise TypeError(f"num_cores {num_cores!r}: must be an int, not {type(num_cores).__name__}")
    if num_cores < 1:
        raise CapacityError(f"num_cores {num_cores}: must be at least 1")
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
