"""One event to the other process and one back, to a receiver that spins, spins and then sleeps, or sleeps at once."""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Final

import numpy as np

from .measure import check
from .native_build import TwoProcesses
from .peers import MODES, Peer, SharedBus
from .process_pair import PingPong, is_near, run_pair
from .records import number_of
from .table import Row

__all__ = ["round_trips"]

_TRIPS: Final = 1000
_WARMING: Final = 100
_MOST_HYBRID_US: Final = 5.0
_MOST_OF_FUTEX: Final = 1.15
_FUTEX: Final = "bare futex"


@dataclasses.dataclass(frozen=True, slots=True)
class _Trips:
    line_ns: float
    median_us: float


def round_trips(peers: list[type[Peer]], rounds: int, native: TwoProcesses) -> list[Row]:
    """Every peer in every mode that it has, and the bare futex, in turn."""
    everybody: list[type[Peer]] = [SharedBus, *peers]
    pairs = [(peer, mode) for mode in MODES for peer in everybody if peer.has(mode)]
    done: dict[tuple[str, str], list[_Trips]] = {(peer.title, mode): [] for peer, mode in pairs}
    done[_FUTEX, "parked"] = []
    for _ in range(rounds):
        for peer, mode in pairs:
            done[peer.title, mode].append(_trips(peer, mode, native))
            if (peer, mode) == (SharedBus, "parked"):
                # Right after the ring, because the two are compared.
                done[_FUTEX, "parked"].append(_futex_trips(native))
    return [row for mode in MODES for row in _rows(mode, done)]


def _trips(kind: type[Peer], mode: str, native: TwoProcesses) -> _Trips:
    there, back = kind(is_batched=False), kind(is_batched=False)
    ping_pong = PingPong(native)
    trips = _TRIPS + _WARMING

    def ping() -> tuple[float, float]:
        there.open_sender()
        there.make_ready(1, trips)
        back.open_receiver()
        there.set_mode(mode)
        back.set_mode(mode)
        take, send, clock = back.taker(mode), there.send_one, time.perf_counter_ns
        line_ns = ping_pong.ping()
        took: list[int] = []
        numbers: list[int] = []
        for trip in range(trips):
            start = clock()
            send(trip)
            one = take()
            took.append(clock() - start)
            numbers.append(number_of(one))
        ping_pong.meet()
        _check_numbers(numbers)
        return line_ns, statistics.median(took[_WARMING:]) / 1000

    def pong() -> None:
        there.open_receiver()
        back.open_sender()
        back.make_ready(1, trips)
        there.set_mode(mode)
        back.set_mode(mode)
        take, send = there.taker(mode), back.send_one
        ping_pong.pong()
        numbers: list[int] = []
        for trip in range(trips):
            one = take()
            # Checked while the answer is on its way.
            send(trip)
            numbers.append(number_of(one))
        ping_pong.meet()
        _check_numbers(numbers)

    try:
        outcome = run_pair(ping, pong)
    finally:
        there.close()
        back.close()
    return _Trips(*outcome.first)


def _check_numbers(numbers: list[int]) -> None:
    check("the numbers", numbers, list(range(1, len(numbers) + 1)))


def _futex_trips(native: TwoProcesses) -> _Trips:
    ping_pong = PingPong(native)

    def ping() -> tuple[float, float]:
        line_ns = ping_pong.ping()
        took = native.futex_ping(ping_pong.page, _TRIPS + _WARMING)
        ping_pong.meet()
        return line_ns, float(np.median(took[_WARMING:])) / 1000

    def pong() -> None:
        ping_pong.pong()
        native.futex_pong(ping_pong.page, _TRIPS + _WARMING)
        ping_pong.meet()

    return _Trips(*run_pair(ping, pong).first)


def _rows(mode: str, done: dict[tuple[str, str], list[_Trips]]) -> list[Row]:
    """Uses only near rounds if there are any; for a sleeper the distance is a small part of the trip."""
    chosen: dict[str, list[_Trips]] = {}
    kinds: dict[str, str] = {}
    for (title, of), trips in done.items():
        if of != mode:
            continue
        near = [one for one in trips if is_near(one.line_ns)]
        chosen[title], kinds[title] = near or trips, "near" if near else "far"
    medians = {title: statistics.median(one.median_us for one in trips) for title, trips in chosen.items()}
    ours = medians[SharedBus.title]
    rows: list[Row] = []
    if mode == "parked":
        # The ratio of each round, because its two sides ran one right after the other.
        ratio = statistics.median(
            one.median_us / bare.median_us
            for one, bare in zip(done[SharedBus.title, mode], done[_FUTEX, mode], strict=True)
        )
        beside = f"{ours:.1f} against {medians[_FUTEX]:.1f} µs, median of pairs"
        what = f"{mode}, ratio to a bare futex"
        rows.append(Row(group="trips", what=what, value=ratio, unit="x", goal=_MOST_OF_FUTEX, beside=beside))
    for title, microseconds in sorted(medians.items(), key=lambda item: item[1]):
        is_ours = title == SharedBus.title
        goal = _MOST_HYBRID_US if is_ours and mode == "hybrid" and kinds[title] == "near" else None
        ratio = ours / microseconds
        beside = "" if is_ours else f"{'faster than the ring: ' if ratio > 1 else ''}ring/peer {ratio:.2f}; "
        beside += f"x{len(chosen[title])} {kinds[title]}"
        what = f"{mode}, {title}"
        rows.append(Row(group="trips", what=what, value=microseconds, unit="µs", goal=goal, beside=beside))
    return rows
