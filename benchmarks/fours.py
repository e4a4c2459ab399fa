"""Four events at a time: one ``emit_batch`` against four ``emit``s, between two processes."""

from __future__ import annotations

from typing import Final

from .native_build import TwoProcesses
from .peers import SharedBus, SharedBusFours
from .table import Row
from .transfers import READY, fastest, rates

__all__ = ["fours"]

_LEAST_OF_SINGLE: Final = 1.0


def fours(rounds: int, seconds: float, native: TwoProcesses) -> list[Row]:
    """The events are ready in both cases, as events and as batches; the receiver drains what there is."""
    rows: list[Row] = []
    for kind, done in rates(READY, [SharedBus, SharedBusFours], rounds, seconds, native).items():
        best = fastest(done)
        if len(best) < 2:
            continue
        batched, single = best[SharedBusFours], best[SharedBus]
        row = Row(
            group="batches",
            what=f"{kind}, emit_batch of four against four emits",
            value=batched / single,
            unit="x",
            goal=_LEAST_OF_SINGLE,
            at_least=True,
            beside=f"{batched:.2f} against {single:.2f} M/s",
        )
        rows.append(row)
    return rows
