"""What the demo prints when it is over, and its verdict."""

from __future__ import annotations

import enum

from rich.columns import Columns
from rich.console import Console
from rich.table import Table

from ... import WriteOp
from .outcome import Outcome
from .totals import TotalsByCarrier

__all__ = ["Verdict", "print_report"]


class Verdict(enum.IntEnum):
    """How a run ended, as an exit code. 2 is left to the command line: the run did not take place."""

    AGREE = 0
    MISSING = 1
    DISAGREE = 3


def print_report(outcome: Outcome, console: Console) -> Verdict:
    """Prints the view, the databases' answer and the accounts of the rings; says whether the two answers agree."""
    console.print(
        Columns(
            [
                _totals_table("The view, from events", outcome.view),
                _totals_table("The databases, by SQL", outcome.database),
            ]
        )
    )
    console.print(_rings_table(outcome))
    if outcome.killed:
        times = ", ".join(f"{role} {count}" for role, count in outcome.killed.items())
        console.print(f"Times killed and started again: {times}.", markup=False, highlight=False, soft_wrap=True)
    verdict = _verdict(outcome)
    for line in _explain(outcome, verdict):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return verdict


def _verdict(outcome: Outcome) -> Verdict:
    if any(core.missing != core.excused for core in outcome.cores):
        return Verdict.DISAGREE
    if outcome.missing:
        return Verdict.MISSING
    return Verdict.AGREE if outcome.view == outcome.database else Verdict.DISAGREE


def _explain(outcome: Outcome, verdict: Verdict) -> list[str]:
    if verdict is Verdict.AGREE:
        flown = sum(totals.flown for totals in outcome.view.values())
        cancelled = sum(totals.cancelled for totals in outcome.view.values())
        return [
            f"The view and the databases agree exactly: {len(outcome.view)} carriers,"
            f" {flown:,} flights flown, {cancelled:,} cancelled."
        ]
    if verdict is Verdict.MISSING:
        lines = [
            f"core {number}: its ring overflowed; the view is missing {core.missing:,} events, the first of them"
            f" {core.producer.first_dropped_sequence:,}, the last {core.producer.last_dropped_sequence:,}."
            for number, core in enumerate(outcome.cores)
            if core.missing
        ]
        return [
            *lines,
            f"The view is missing {outcome.missing:,} events in all. Give the rings a larger --capacity.",
        ]
    lines = [
        f"core {number}: the view is missing {core.missing:,} events,"
        + (" but the log has them all." if core.recovered else f" but the producer counted {core.excused:,} drops.")
        for number, core in enumerate(outcome.cores)
        if core.missing != core.excused
    ]
    lines += [
        f"{carrier}: the view says {outcome.view.get(carrier)}, the databases {outcome.database.get(carrier)}."
        for carrier in sorted(outcome.view.keys() | outcome.database.keys())
        if outcome.view.get(carrier) != outcome.database.get(carrier)
    ]
    return [*lines, "The view and the databases DISAGREE, and no overflow explains it: this is a bug."]


def _totals_table(title: str, totals: TotalsByCarrier) -> Table:
    table = Table("carrier", title=title)
    for heading in ("scheduled", "flown", "cancelled", "delay, min", "mean delay"):
        table.add_column(heading, justify="right")
    for carrier, row in totals.items():
        mean = "" if row.mean_delay is None else f"{row.mean_delay:.3f}"
        table.add_row(carrier, f"{row.scheduled:,}", f"{row.flown:,}", f"{row.cancelled:,}", f"{row.delay:,}", mean)
    return table


def _rings_table(outcome: Outcome) -> Table:
    cores = outcome.cores
    counts = {
        f"{op} events": [core.events[op] for core in cores] for op in (WriteOp.INSERT, WriteOp.UPDATE, WriteOp.DELETE)
    }
    counts |= {
        "events/s": [round(sum(core.events.values()) / outcome.seconds) for core in cores],
        "batches": [core.consumer.batches for core in cores],
        "dropped": [core.producer.dropped for core in cores],
        "times THROTTLED": [core.producer.throttle_transitions for core in cores],
        "times SUSPENDED": [core.producer.suspend_transitions for core in cores],
        "times back to NORMAL": [core.producer.normal_transitions for core in cores],
    }
    recovered = [core.recovered for core in cores if core.recovered is not None]
    if recovered:
        counts |= {
            "holes": [core.gaps for core in recovered],
            "replayed from the log": [core.replayed for core in recovered],
            "catch-ups": [core.episodes for core in recovered],
        }
    table = Table("", title=f"The rings, in {outcome.seconds:.1f} s")
    for number, core in enumerate(cores):
        table.add_column(f"core {number} ({', '.join(core.airports)})", justify="right")
    table.add_column("total", justify="right")
    for name, counted in counts.items():
        table.add_row(name, *(f"{count:,}" for count in counted), f"{sum(counted):,}")
    table.add_row("capacity", *(f"{core.capacity:,}" for core in cores), "")
    table.add_row("highest utilization", *(f"{core.producer.high_water_mark} %" for core in cores), "")
    return table
