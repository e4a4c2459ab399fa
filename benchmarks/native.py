"""Rows through the ``.pxd`` without the GIL, in one thread and between two, compared with a plain ring in C.

The host of a virtual machine may move its cores, which changes the time of a cache line between them. So a probe of
that time precedes every transfer, both sides run in turn, and only rounds of the same kind, near or far, are compared.
"""

from __future__ import annotations

import dataclasses
import mmap
import os
import statistics
import threading

import nodedb_ring

from .machine import core_pair
from .measure import best, check
from .native_build import NativeLoops, Way
from .sample import new_ring
from .table import Row

__all__ = ["one_thread", "two_threads"]

_ROW_BYTES = 128
_GROUP = 64
_PAUSES = (8, 64, 400)
_TRIPS = 1000
_NEAR_NS = 250.0
_PATIENCE_S = 60  # far more than any transfer takes; only lost rows take longer


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Contest:
    """The ring against the plain ring: rows published and taken per call; 0 takes all that is there."""

    what: str
    other: str
    together: int
    taken: int
    goal: float | None


_CONTESTS = (
    _Contest(
        what="published 64 at a time, drained in batches",
        other="bare copy-through",
        together=64,
        taken=0,
        goal=0.7,
    ),
    _Contest(what="published singly, drained in batches", other="plain C ring", together=1, taken=0, goal=0.9),
    _Contest(what="published singly, popped singly", other="plain C ring", together=1, taken=1, goal=0.9),
)


def _plain_way(loops: NativeLoops) -> Way:
    """The plain ring over memory of the same size and kind as ours."""
    block = mmap.mmap(
        -1, nodedb_ring.DEFAULT_EVENT_BUS_CAPACITY * _ROW_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    )
    block.madvise(mmap.MADV_HUGEPAGE)
    return loops.Way(None, block)


def one_thread(rounds: int, loops: NativeLoops) -> list[Row]:
    """Push and pop in turn."""
    producer, _consumer = new_ring()
    ours, plain = loops.Way(producer.ring, None), _plain_way(loops)
    count = _GROUP * 1000
    rows: list[Row] = []
    for together, what, other in (
        (1, "one thread: ring_push and ring_pop in turn", "plain C ring"),
        (_GROUP, "one thread: 64 reserved, copied in, published, taken, copied out", "copy-through"),
    ):
        for way in (ours, plain):
            # Often enough that every slot is used and a stale row would be found.
            for _ in range(3):
                check("rows that are wrong", way.turns(count, together, True)[0], 0)
        took, other_took = (_best_turns(way, count, together, rounds * 10) for way in (ours, plain))
        beside = f"{other} {other_took:.1f} ns: ratio {took / other_took:.2f}"
        rows.append(Row(group="native", what=what, value=took, unit="ns per row", beside=beside))
    return rows


def _best_turns(way: Way, count: int, together: int, rounds: int) -> float:
    return best(rounds, lambda: way.turns(count, together, False)[1] / count)


def two_threads(rounds: int, count: int, loops: NativeLoops) -> list[Row]:
    """`count` rows per transfer, between two cores."""
    cores = core_pair()
    if cores is None:
        return []
    producer, _consumer = new_ring()
    ours, plain = loops.Way(producer.ring, None), _plain_way(loops)
    count -= count % _GROUP
    rows: list[Row] = []
    for contest in _CONTESTS:
        for way in (ours, plain):
            check("rows that are wrong", _transfer(way, contest, count, 64, cores, checked=True).wrong, 0)
        rounds_by_pause = {
            pauses: [
                (_transfer(ours, contest, count, pauses, cores), _transfer(plain, contest, count, pauses, cores))
                for _ in range(rounds)
            ]
            for pauses in _PAUSES
        }
        rows += _contest_rows(contest, rounds_by_pause)
    return rows


@dataclasses.dataclass(frozen=True, slots=True)
class _Transfer:
    probe_ns: float
    millions: float  # M rows per second
    wrong: int


def _transfer(
    way: Way, contest: _Contest, count: int, pauses: int, cores: tuple[int, int], *, checked: bool = False
) -> _Transfer:
    """One run: probes the distance between the cores, sends the rows, checks what arrived."""
    received: list[tuple[int, int]] = []

    def receive() -> None:
        os.sched_setaffinity(0, {cores[1]})
        received.append(way.receive(count, contest.taken, pauses, _TRIPS, checked))

    before = os.sched_getaffinity(0)
    # A daemon, so that lost rows do not keep the process alive.
    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    os.sched_setaffinity(0, {cores[0]})
    try:
        probe_ns, start = way.send(count, contest.together, pauses, _TRIPS)
        thread.join(_PATIENCE_S)
    finally:
        os.sched_setaffinity(0, before)
    check(f"transfers that ended within {_PATIENCE_S} s", len(received), 1)
    wrong, end = received[0]
    check("rows that are wrong", wrong, 0)
    return _Transfer(probe_ns, count / (end - start) * 1e3, wrong)


_Pair = tuple[_Transfer, _Transfer]


def _kind(pair: _Pair) -> str:
    near = {transfer.probe_ns < _NEAR_NS for transfer in pair}
    return "mixed" if len(near) > 1 else "near" if near == {True} else "far"


def _contest_rows(contest: _Contest, rounds_by_pause: dict[int, list[_Pair]]) -> list[Row]:
    """One row per kind of round: the best ratio with equal pauses; then every pause, and best against best."""
    rows: list[Row] = []
    for kind in ("near", "far"):
        ratios: dict[int, float] = {}
        best_rates = [0.0, 0.0]
        notes: list[str] = []
        for pauses, pairs in rounds_by_pause.items():
            chosen = [pair for pair in pairs if _kind(pair) == kind]
            if not chosen:
                continue
            ratios[pauses] = statistics.median(one.millions / other.millions for one, other in chosen)
            rates = [statistics.median(pair[side].millions for pair in chosen) for side in (0, 1)]
            best_rates = [max(pair) for pair in zip(best_rates, rates, strict=True)]
            notes.append(f"{pauses}: {ratios[pauses]:.2f} = {rates[0]:.0f}/{rates[1]:.0f} M/s x{len(chosen)}")
        if not ratios:
            continue
        rows.append(
            Row(
                group="native",
                what=f"{kind}, {contest.what}",
                value=max(ratios.values()),
                unit=f"of {contest.other}",
                goal=contest.goal,
                at_least=True,
                beside=f"best against best {best_rates[0] / best_rates[1]:.2f}; pauses " + ", ".join(notes),
            )
        )
    return rows
