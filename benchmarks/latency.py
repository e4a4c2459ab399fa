"""One-way latency of an event at a fixed rate: from when it is begun until the other process has it."""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Final

import numpy as np

from .measure import WrongAnswerError, check
from .native_build import TwoProcesses
from .peers import Peer, SharedBus
from .process_pair import PingPong, is_near, run_pair
from .records import BATCH, DEPTH, Ledger, stamp_of
from .table import Row

__all__ = ["latencies"]

_SLOW: Final = 1_000
_FAST: Final = 100_000
_FAST_EVENTS: Final = DEPTH - BATCH
"""Fewer than a ring holds: none can be overwritten, however late the receiver is, so no sender waits for a credit."""

_PERCENTILES: Final = (50.0, 99.0, 99.9)
_LEAST_OF_RATE: Final = 0.8
"""Where events arrive at less than this part of the rate, the queue only grows: then there is no latency to tell."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Reader:
    """A peer, and how its receiver waits."""

    peer: type[Peer]
    mode: str

    @property
    def title(self) -> str:
        return f"{self.peer.title}{', spinning' if self.mode == 'spinning' else ''}"


@dataclasses.dataclass(frozen=True, slots=True)
class _Round:
    line_ns: float
    rate: float  # at which the events arrived, per second
    microseconds: tuple[float, ...]  # one of each percentile


def latencies(
    peers: list[type[Peer]], rounds: int, slow_events: int, native: TwoProcesses
) -> tuple[list[Row], list[str]]:
    """Rows of all who carry that many events a second, in turn, and a line about each of the others.

    A receiver waits as it does by default. One that can only spin is compared with ours spinning.
    """
    readers = [_Reader(SharedBus, "hybrid"), _Reader(SharedBus, "spinning")]
    readers += [_Reader(peer, "hybrid" if peer.has("hybrid") else "spinning") for peer in peers]
    rows: list[Row] = []
    too_slow: list[str] = []
    for rate, count in ((_SLOW, slow_events), (_FAST, _FAST_EVENTS)):
        done: dict[_Reader, list[_Round]] = {reader: [] for reader in readers}
        for _ in range(rounds):
            for reader in readers:
                done[reader].append(_round(reader, rate, count, native))
        for reader, all_rounds in list(done.items()):
            reached = statistics.median(one.rate for one in all_rounds)
            if reached < _LEAST_OF_RATE * rate:
                too_slow.append(
                    f"{reader.title}: no latency at {rate:,} events a second; they arrived at {reached:,.0f} a second"
                )
                del done[reader]
        rows += _rows(rate, done)
    return rows, too_slow


def _round(reader: _Reader, rate: int, count: int, native: TwoProcesses) -> _Round:
    """Compares every byte of one lap, then every number and every time of the events that are timed."""
    peer, mode = reader.peer(is_batched=False), reader.mode
    ping_pong = PingPong(native)
    # The clock that all processes have in common.
    clock = time.monotonic_ns

    def write() -> tuple[float, list[int]]:
        peer.open_sender()
        peer.set_mode(mode)
        peer.make_ready(1, peer.lap)
        ping_pong.meet()
        peer.send_ready()
        line_ns = ping_pong.ping()
        send, sleep, has_thread, interval = peer.send_stamped, time.sleep, peer.has_thread, 1_000_000_000 // rate
        begun: list[int] = []
        due = clock()
        for number in range(1, count + 1):
            due += interval
            while (now := clock()) < due:
                if has_thread:
                    sleep(0)
            send(number, now)
            begun.append(now)
        ping_pong.meet()
        return line_ns, begun

    def read() -> tuple[list[tuple[int, int]], list[int]]:
        peer.open_receiver()
        peer.set_mode(mode)
        ping_pong.meet()
        ledger = Ledger(1, is_cyclic=False, is_thorough=True)
        peer.receive(peer.lap, ledger)
        ledger.close()
        take = peer.taker(mode)
        ping_pong.pong()
        stamps: list[tuple[int, int]] = []
        seen: list[int] = []
        for _ in range(count):
            one = take()
            seen.append(clock())
            # Read at once, so that no event is kept: that would take memory that the next ones need.
            stamps.append(stamp_of(one))
        ping_pong.meet()
        return stamps, seen

    try:
        outcome = run_pair(write, read)
    finally:
        peer.close()
    line_ns, begun = outcome.first
    stamps, seen = outcome.second
    check("the numbers", [number for number, _ in stamps], list(range(1, count + 1)))
    check("the times at which the events were begun", [lsn for _, lsn in stamps], begun)
    took = np.array(seen, np.int64) - np.array(begun, np.int64)
    if took.min() < 0:
        raise WrongAnswerError(f"an event arrived {-took.min():,} ns before it was begun: the cores' clocks differ")
    reached = (count - 1) * 1e9 / (seen[-1] - seen[0])
    return _Round(line_ns, reached, tuple(float(one) / 1000 for one in np.percentile(took, _PERCENTILES)))


def _rows(rate: int, done: dict[_Reader, list[_Round]]) -> list[Row]:
    """Of each percentile the median of the rounds, only of near rounds if there are any."""
    rows: list[Row] = []
    chosen = {reader: [one for one in rounds if is_near(one.line_ns)] or rounds for reader, rounds in done.items()}
    for place, percentile in enumerate(_PERCENTILES):
        medians = {
            reader: statistics.median(one.microseconds[place] for one in rounds) for reader, rounds in chosen.items()
        }
        for reader, microseconds in sorted(medians.items(), key=lambda item: item[1]):
            ours = medians.get(_Reader(SharedBus, reader.mode))
            beside = f"x{len(chosen[reader])} {'near' if is_near(chosen[reader][0].line_ns) else 'far'}"
            if reader.peer is not SharedBus and ours is not None:
                ratio = ours / microseconds
                beside = f"{'faster than the ring: ' if ratio > 1 else ''}ring/peer {ratio:.2f}; {beside}"
            what = f"{rate:,} a second, p{percentile:g}, {reader.title}"
            rows.append(Row(group="latency", what=what, value=microseconds, unit="µs", beside=beside))
    return rows
