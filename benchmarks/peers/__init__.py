"""Libraries that carry events between two processes: nodedb_ring and what one would use instead."""

from __future__ import annotations

from typing import Final

from .faster_fifo import FasterFifo
from .global_buffer import GlobalBuffer
from .iceoryx2 import Iceoryx2
from .kickmsg import Kickmsg
from .mapped import Mapped
from .peer import MODES, Peer
from .pyzmq import Pyzmq
from .shared_bus import SharedBus, SharedBusAsync, SharedBusFours
from .slick_queue import SlickQueue
from .standard_library import StandardPipe, StandardQueue
from .subetha import Subetha
from .tachyon import Tachyon

__all__ = ["MODES", "PEERS", "Mapped", "Peer", "SharedBus", "SharedBusAsync", "SharedBusFours"]

PEERS: Final[tuple[type[Peer], ...]] = (
    StandardQueue,
    StandardPipe,
    FasterFifo,
    Pyzmq,
    Kickmsg,
    GlobalBuffer,
    Tachyon,
    Iceoryx2,
    SlickQueue,
    Subetha,
    Mapped,
)
"""Everybody but us."""
