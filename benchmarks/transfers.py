"""Events from one process to another: fields that are made into events one by one, ready events, and batches."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Final

from .native_build import TwoProcesses
from .peers import PEERS, Mapped, Peer, SharedBus
from .process_pair import PingPong, is_near, run_pair
from .records import CYCLE, Ledger
from .table import Row

__all__ = ["MEASURES", "Measure", "transfers"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One thing that is sent, and what ours must reach in it."""

    name: str
    what: str
    is_batched: bool = False
    least_millions: float | None = None
    """Between near cores: M events/s."""
    of_best: float | None = None
    """Of the fastest peer."""
    of_library: float | None = None
    """Of the fastest peer that is not the ring by hand."""
    of_hand: float | None = None
    """Of the ring by hand."""

    def sender(self, peer: Peer, first: int, count: int) -> Callable[[], None]:
        """What sends `count` events, numbered from `first` on; whatever can be ready is."""
        if self.name == "fields":
            return lambda: peer.send_fields(first, count)
        if self.name == "ready":
            peer.make_ready(first, count)
            return peer.send_ready
        return lambda: peer.send_batches(count)


MEASURES: Final = (
    Measure(name="fields", what="events built of their fields, one by one", of_best=3.0),
    Measure(name="ready", what="ready events, one by one", least_millions=8.0),
    Measure(name="batches", what="batches of 1024", is_batched=True, of_library=1.0, of_hand=0.8),
)


@dataclasses.dataclass(frozen=True, slots=True)
class _Transfer:
    line_ns: float
    millions: float  # events a second


@dataclasses.dataclass(frozen=True, slots=True)
class _Way:
    """A peer with one length of its pauses."""

    peer: type[Peer]
    pauses: int


def transfers(
    measure: Measure, peers: list[type[Peer]], rounds: int, seconds: float, native: TwoProcesses
) -> list[Row]:
    """Every peer with each of its pauses, in turn; about `seconds` a transfer."""
    everybody: list[type[Peer]] = [SharedBus, *peers]
    ways = [_Way(peer, pauses) for peer in everybody for pauses in peer.pauses]
    # A first transfer of each says how many events fill the time.
    counts = {way: _count_for(seconds, _transfer(way, measure, 4 * CYCLE, native).millions) for way in ways}
    done: dict[_Way, list[_Transfer]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            done[way].append(_transfer(way, measure, counts[way], native))
    rows: list[Row] = []
    for kind in ("near", "far"):
        of_kind = {
            way: [one for one in transfers if is_near(one.line_ns) == (kind == "near")]
            for way, transfers in done.items()
        }
        rows += _rows(measure, kind, {way: chosen for way, chosen in of_kind.items() if chosen})
    return rows


def _count_for(seconds: float, millions: float) -> int:
    return max(1, round(seconds * millions * 1e6 / CYCLE)) * CYCLE


def _transfer(way: _Way, measure: Measure, count: int, native: TwoProcesses) -> _Transfer:
    """A lap with every byte compared, a probe of the way between the cores, then `count` events against the clock."""
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


def _rows(measure: Measure, kind: str, done: dict[_Way, list[_Transfer]]) -> list[Row]:
    """Ours beside what it must reach, then every peer; each with the best of its pauses."""
    medians = {way: statistics.median(one.millions for one in transfers) for way, transfers in done.items()}
    best: dict[type[Peer], float] = {}
    for way, millions in medians.items():
        best[way.peer] = max(best.get(way.peer, 0.0), millions)
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
            target=measure.least_millions if kind == "near" else None,
            at_least=True,
            beside=notes[SharedBus],
        )
    ]
    for name, target, others in (
        ("the fastest peer", measure.of_best, PEERS),
        ("the fastest library", measure.of_library, [peer for peer in PEERS if peer is not Mapped]),
        ("the ring by hand", measure.of_hand, [Mapped]),
    ):
        present = [peer for peer in others if peer in best]
        if target is None or not present:
            continue
        fastest = max(present, key=best.__getitem__)
        beside = f"{ours:.2f} against {best[fastest]:.2f} M/s of {fastest.title}"
        # Who is absent may be the fastest: then nothing is reached, and nothing missed.
        bound = target if len(present) == len(others) else None
        if bound is None:
            beside += "; not all of them ran"
        what = f"{kind}, of {name}"
        ratio = ours / best[fastest]
        rows.append(
            Row(group=measure.name, what=what, value=ratio, unit="times", target=bound, at_least=True, beside=beside)
        )
    for peer, millions in sorted(best.items(), key=lambda item: -item[1]):
        ratio = ours / millions
        beside = f"{'it wins: ' if ratio < 1 else ''}ours is {ratio:.2f} of it; {notes[peer]}"
        rows.append(Row(group=measure.name, what=f"{kind}, {peer.title}", value=millions, unit="M/s", beside=beside))
    return rows
