"""``python -m benchmarks.processes``: events between two processes, through a ring and through other libraries.

All carry the same events of 256 bytes from one process to another, one core each if there are two. All hold up to
16,384 events and end with NumPy arrays that the receiver owns. Before a transfer is timed, one lap of it is compared
byte for byte, and the time of a cache line between the cores is measured: only transfers with the same distance, near
or far, are compared. A library that polls runs with several pauses, and its best one counts. A figure is the median of
its rounds, and in every round all libraries take turns. The latency is that of one direction, at a fixed rate.
"""

from __future__ import annotations

from typing import Final

from .fours import fours
from .idle import idle
from .latency import latencies
from .machine import core_pair
from .native_build import TwoProcesses, two_processes
from .peers import PEERS, Peer
from .round_trips import round_trips
from .suite import Show, run_suite
from .table import Row
from .transfers import MEASURES, transfers

__all__ = ["main"]

_PARTS: Final = ("fields", "ready", "batches", "trips", "latency", "idle")


def main(arguments: list[str] | None = None) -> int:
    """Runs the parts that were asked for: 0, or with ``--strict`` 1 if a goal was missed."""
    absent = [peer.title for peer in PEERS if not peer.is_installed()]
    return run_suite("benchmarks.processes", __doc__, _PARTS, _run, arguments, **{"not installed": absent})


def _run(wanted: set[str], quick: bool, show: Show) -> None:
    native = two_processes()
    peers = [peer for peer in PEERS if peer.is_installed()]
    for peer in PEERS:
        if not peer.is_installed():
            print(f"{peer.title}: not installed{f'; {peer.to_install}' if peer.to_install else ''}")
        elif not peer.can_wait:
            print(f"{peer.title}: cannot sleep, so it has no trips but the spinning ones, and is not idle")
    if core_pair() is None:
        print("one core: every transfer waits for a switch of processes, and no figure here means much")
    rounds, seconds = (2, 0.03) if quick else (11, 0.1)
    for measure in MEASURES:
        if measure.name in wanted:
            show(f"{measure.what}, process to process", transfers(measure, peers, rounds, seconds, native))
    if "batches" in wanted:
        show("Batches of four events, process to process", fours(rounds, seconds, native))
    if "trips" in wanted:
        show("Round trip of an event, the median", round_trips(peers, rounds, native))
    if "latency" in wanted:
        show("One-way latency of an event", _latencies(peers, quick, native))
    if "idle" in wanted:
        show("Waiting while no events come", idle(peers, 1.0 if quick else 3.0, native))


def _latencies(peers: list[type[Peer]], quick: bool, native: TwoProcesses) -> list[Row]:
    rows, too_slow = latencies(peers, 2 if quick else 7, 500 if quick else 4_000, native)
    for line in too_slow:
        print(line)
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
