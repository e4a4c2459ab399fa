"""What a process costs that waits for events which do not come."""

from __future__ import annotations

import time
from typing import Final

from .native_build import TwoProcesses
from .peers import Peer, SharedBus, SharedBusAsync
from .process_pair import PingPong, run_pair
from .table import Row

__all__ = ["idle"]

_MOST_PERCENT: Final = 1.0


def idle(peers: list[type[Peer]], seconds: float, native: TwoProcesses) -> list[Row]:
    """The processor's time of `seconds` of waiting, in percent of a core; the sender is there, and silent."""
    everybody: list[type[Peer]] = [SharedBus, SharedBusAsync, *(peer for peer in peers if peer.can_wait)]
    rows: list[Row] = []
    for peer in everybody:
        target = _MOST_PERCENT if issubclass(peer, SharedBus) else None
        percent, waited = _waiting(peer, seconds, native)
        beside = f"waited {waited:.1f} s"
        rows.append(Row(group="idle", what=peer.title, value=percent, unit="% of a core", target=target, beside=beside))
    return rows


def _waiting(kind: type[Peer], seconds: float, native: TwoProcesses) -> tuple[float, float]:
    peer = kind(is_batched=False)
    ping_pong = PingPong(native)

    def receive() -> tuple[float, float]:
        peer.open_receiver()
        ping_pong.meet()
        start, used = time.perf_counter(), time.process_time()
        peer.idle(seconds)
        waited = time.perf_counter() - start
        return (time.process_time() - used) / waited * 100, waited

    def stay() -> None:
        peer.open_sender()
        ping_pong.meet()
        time.sleep(seconds * 1.1)

    try:
        return run_pair(receive, stay).first
    finally:
        peer.close()
