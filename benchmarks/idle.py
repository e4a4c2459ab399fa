"""What a process costs while it waits: for nothing, and for an event every 10 ms."""

from __future__ import annotations

import time
from typing import Final

from .measure import check
from .native_build import TwoProcesses
from .peers import Peer, SharedBus, SharedBusAsync
from .process_pair import PingPong, run_pair
from .records import number_of
from .table import Row

__all__ = ["idle"]

_MOST_PERCENT: Final = 0.2
_MOST_PERCENT_SELDOM: Final = 1.0
_EVERY_S: Final = 0.01


def idle(peers: list[type[Peer]], seconds: float, native: TwoProcesses) -> list[Row]:
    """CPU time of waiting, in percent of one core; the sender is connected, and silent but in the last row."""
    everybody: list[type[Peer]] = [SharedBus, SharedBusAsync, *(peer for peer in peers if peer.can_wait)]
    rows: list[Row] = []
    for peer in everybody:
        goal = _MOST_PERCENT if issubclass(peer, SharedBus) else None
        percent, waited = _waiting(peer, seconds, native)
        beside = f"waited {waited:.1f} s"
        rows.append(Row(group="idle", what=peer.title, value=percent, unit="% of one core", goal=goal, beside=beside))
    percent, waited = _receiving_seldom(seconds, native)
    what = f"{SharedBus.title}, one event every {_EVERY_S * 1000:.0f} ms"
    beside = f"received for {waited:.1f} s; a bare sleep of that length, as often: {_sleeping(seconds):.2f} %"
    goal = _MOST_PERCENT_SELDOM
    rows.append(Row(group="idle", what=what, value=percent, unit="% of one core", goal=goal, beside=beside))
    return rows


def _sleeping(seconds: float) -> float:
    """What the kernel takes for the wakes alone, in percent of one core."""
    start, used = time.perf_counter(), time.process_time()
    for _ in range(max(10, int(seconds / _EVERY_S))):
        time.sleep(_EVERY_S)
    return (time.process_time() - used) / (time.perf_counter() - start) * 100


def _receiving_seldom(seconds: float, native: TwoProcesses) -> tuple[float, float]:
    bus = SharedBus(is_batched=False)
    ping_pong = PingPong(native)
    events = max(10, int(seconds / _EVERY_S))

    def receive() -> tuple[float, float]:
        bus.open_receiver()
        ping_pong.meet()
        start, used = time.perf_counter(), time.process_time()
        numbers = [number_of(bus.wait_one()) for _ in range(events)]
        waited = time.perf_counter() - start
        used = time.process_time() - used
        check("the numbers", numbers, list(range(1, events + 1)))
        return used / waited * 100, waited

    def send() -> None:
        bus.open_sender()
        bus.make_ready(1, events)
        ping_pong.meet()
        for place in range(events):
            time.sleep(_EVERY_S)
            bus.send_one(place)

    try:
        return run_pair(receive, send).first
    finally:
        bus.close()


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
