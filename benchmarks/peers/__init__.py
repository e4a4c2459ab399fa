"""Libraries that carry events between two processes: nodedb_ring and what one would use instead."""

from __future__ import annotations

from typing import Final

from .faster_fifo import FasterFifo
from .global_buffer import GlobalBuffer
from .kickmsg import Kickmsg
from .mapped import Mapped
from .peer import Peer
from .pyzmq import Pyzmq
from .shared_bus import SharedBus, SharedBusAsync
from .standard_library import StandardPipe, StandardQueue

__all__ = ["PEERS", "Mapped", "Peer", "SharedBus", "SharedBusAsync"]

PEERS: Final[tuple[type[Peer], ...]] = (
    StandardQueue,
    StandardPipe,
    FasterFifo,
    Pyzmq,
    Kickmsg,
    GlobalBuffer,
    Mapped,
)
"""Everybody but us."""
