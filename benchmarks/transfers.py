"""Events from one process to another: built from fields one by one, ready ones, and in batches."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Final, TypeAlias

from .native_build import TwoProcesses
from .peers import PEERS, Mapped, Peer, SharedBus
from .process_pair import PingPong, is_near, run_pair
from .records import CYCLE, Ledger
from .table import Row

__all__ = ["MEASURES", "READY", "Measure", "Rates", "fastest", "rates", "transfers"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One kind of transfer, and the goals for it (see docs/benchmarks.md)."""

    name: str
    what: str
    is_batched: bool = False
    least_millions: float | None = None
    """Goal for the ring between near cores, in M events/s."""
    of_best: float | None = None
    """Goal for the ratio to the fastest peer."""
    of_library: float | None = None
    """Goal for the ratio to the fastest peer other than the hand-written ring."""
    of_hand: float | None = None
    """Goal for the ratio to the hand-written ring."""

    def sender(self, peer: Peer, first: int, count: int) -> Callable[[], None]:
        """Returns what sends `count` events, numbered from `first` on; it prepares all that may be prepared."""
        if self.name == "fields":
            return lambda: peer.send_fields(first, count)
        if self.name == "ready":
            peer.make_ready(first, count)
            return peer.send_ready
        return lambda: peer.send_batches(count)


READY: Final = Measure(name="ready", what="ready events, one by one", least_millions=8.0)

MEASURES: Final = (
    Measure(name="fields", what="events built from their fields, one by one", of_best=3.0),
    READY,
    Measure(name="batches", what="batches of 1024", is_batched=True, of_library=1.0, of_hand=0.8),
)


@dataclasses.dataclass(frozen=True, slots=True)
class _Transfer:
    line_ns: float
    millions: float  # M events per second


@dataclasses.dataclass(frozen=True, slots=True)
class _Way:
    """A peer with one length of its pauses."""

    peer: type[Peer]
    pauses: int


Rates: TypeAlias = dict[_Way, list[float]]
"""M events per second of each round, of every peer with each of its pauses."""


def transfers(
    measure: Measure, peers: list[type[Peer]], rounds: int, seconds: float, native: TwoProcesses
) -> list[Row]:
    """The ring and every peer in turn; about `seconds` per transfer."""
    of_kinds = rates(measure, [SharedBus, *peers], rounds, seconds, native)
    return [row for kind, done in of_kinds.items() for row in _rows(measure, kind, done)]


def rates(
    measure: Measure, everybody: list[type[Peer]], rounds: int, seconds: float, native: TwoProcesses
) -> dict[str, Rates]:
    """Every peer with each of its pauses, in turn: the transfers between near and those between far cores."""
    ways = [_Way(peer, pauses) for peer in everybody for pauses in peer.pauses]
    # A first transfer of each says how many events fill the time.
    counts = {way: _count_for(seconds, _transfer(way, measure, 4 * CYCLE, native).millions) for way in ways}
    done: dict[_Way, list[_Transfer]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            done[way].append(_transfer(way, measure, counts[way], native))
    of_kinds: dict[str, Rates] = {}
    for kind in ("near", "far"):
        of_kind = {
            way: [one.millions for one in transfers if is_near(one.line_ns) == (kind == "near")]
            for way, transfers in done.items()
        }
        of_kinds[kind] = {way: chosen for way, chosen in of_kind.items() if chosen}
    return of_kinds


def fastest(done: Rates) -> dict[type[Peer], float]:
    """The median of each peer, with the best of its pauses."""
    best: dict[type[Peer], float] = {}
    for way, millions in done.items():
        best[way.peer] = max(best.get(way.peer, 0.0), statistics.median(millions))
    return best


def _count_for(seconds: float, millions: float) -> int:
    return max(1, round(seconds * millions * 1e6 / CYCLE)) * CYCLE


def _transfer(way: _Way, measure: Measure, count: int, native: TwoProcesses) -> _Transfer:
    """Compares every byte of one lap, probes the distance between the cores, then times `count` events."""
    peer = way.peer(is_batched=measure.is_batched, pauses=way.pauses)
    ping_pong = PingPong(native)

    def send() -> tuple[float, float]:
        peer.open_sender()
        send_lap = measure.sender(peer, 1, peer.lap)
        ping_pong.meet()
        send_lap()
        send_all = measure.sender(peer, peer.lap + 1, count)
        line_ns = ping_pong.ping()
        start = time.perf_counter()
        send_all()
        ping_pong.meet()
        return line_ns, start

    def receive() -> float:
        peer.open_receiver()
        ping_pong.meet()
        thorough = Ledger(1, is_cyclic=measure.is_batched, is_thorough=True)
        peer.receive(peer.lap, thorough)
        thorough.close()
        ledger = Ledger(peer.lap + 1, is_cyclic=measure.is_batched, is_thorough=False)
        ping_pong.pong()
        peer.receive(count, ledger)
        end = time.perf_counter()
        ping_pong.meet()
        return end

    try:
        outcome = run_pair(send, receive)
    finally:
        peer.close()
    line_ns, start = outcome.first
    return _Transfer(line_ns, count / (outcome.second - start) / 1e6)


def _rows(measure: Measure, kind: str, done: Rates) -> list[Row]:
    """The ring and its ratios, then every peer; each with the best of its pauses."""
    medians = {way: statistics.median(millions) for way, millions in done.items()}
    best = fastest(done)
    if SharedBus not in best or len(best) == 1:
        return []
    ours = best.pop(SharedBus)
    notes = {
        peer: ", ".join(
            f"{f'pauses {way.pauses}: ' if len(peer.pauses) > 1 else ''}{millions:.2f} x{len(done[way])}"
            for way, millions in medians.items()
            if way.peer is peer
        )
        for peer in (SharedBus, *best)
    }
    rows = [
        Row(
            group=measure.name,
            what=f"{kind}, {SharedBus.title}",
            value=ours,
            unit="M/s",
            goal=measure.least_millions if kind == "near" else None,
            at_least=True,
            beside=notes[SharedBus],
        )
    ]
    for name, goal, others in (
        ("the fastest peer", measure.of_best, PEERS),
        ("the fastest library", measure.of_library, [peer for peer in PEERS if peer is not Mapped]),
        ("the hand-written ring", measure.of_hand, [Mapped]),
    ):
        present = [peer for peer in others if peer in best]
        if goal is None or not present:
            continue
        quickest = max(present, key=best.__getitem__)
        beside = f"{ours:.2f} against {best[quickest]:.2f} M/s of {quickest.title}"
        # A peer that is not installed may be the fastest, so without one that `[bench]` installs there is no goal.
        bound = goal if all(peer in best or peer.to_install for peer in others) else None
        if bound is None:
            beside += "; some are not installed"
        what = f"{kind}, ratio to {name}"
        ratio = ours / best[quickest]
        rows.append(Row(group=measure.name, what=what, value=ratio, unit="x", goal=bound, at_least=True, beside=beside))
    for peer, millions in sorted(best.items(), key=lambda item: -item[1]):
        ratio = ours / millions
        beside = f"{'faster than the ring: ' if ratio < 1 else ''}ring/peer {ratio:.2f}; {notes[peer]}"
        rows.append(Row(group=measure.name, what=f"{kind}, {peer.title}", value=millions, unit="M/s", beside=beside))
    return rows
