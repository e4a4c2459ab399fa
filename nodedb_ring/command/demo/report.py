"""What the demo prints at its end, and its verdict.

The last screen is one table by carrier, then the rings, then one sentence; with 16 carriers it fits a terminal of 40
lines and 80 columns. What may take more lines (every difference in full) is printed above the tables.
"""

from __future__ import annotations

import enum
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .outcome import Outcome
from .totals import CarrierTotals, sum_totals

__all__ = ["Verdict", "print_report"]

_WRONG: Final = "bold white on red"


class Verdict(enum.IntEnum):
    """How a run ended, as an exit code. 2 is left to the command line: the run did not take place."""

    AGREE = 0
    MISSING = 1
    DISAGREE = 3


def print_report(outcome: Outcome, console: Console) -> Verdict:
    """Prints the differences, the carriers, the rings and one sentence; returns whether the two answers agree."""

    def print_line(line: str, style: str | None = None) -> None:
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)

    verdict = _verdict(outcome)
    for line in _differences(outcome, verdict):
        print_line(line)
    console.print(_carriers_table(outcome))
    print_line("")
    console.print(_rings_table(outcome))
    print_line("")
    if outcome.killed:
        times = ", ".join(f"{role} {count}" for role, count in outcome.killed.items())
        print_line(f"Times killed and started again: {times}.")
    print_line(_sentence(outcome, verdict), None if verdict is Verdict.AGREE else _WRONG)
    return verdict


def _verdict(outcome: Outcome) -> Verdict:
    if any(core.missing != core.excused for core in outcome.cores):
        return Verdict.DISAGREE
    if outcome.missing:
        return Verdict.MISSING
    return Verdict.AGREE if outcome.view == outcome.database else Verdict.DISAGREE


def _sentence(outcome: Outcome, verdict: Verdict) -> str:
    match verdict:
        case Verdict.AGREE:
            return f"The view and {_asked(outcome)} agree exactly: all {len(outcome.view)} carriers are equal."
        case Verdict.MISSING:
            return f"The view is missing {outcome.missing:,} events in all. Give the rings a larger --capacity."
        case Verdict.DISAGREE:
            return f"The view and {_asked(outcome)} DISAGREE, and no overflow explains it: a bug."


def _asked(outcome: Outcome) -> str:
    """Whose answer the view is compared with: each core is a database."""
    return "the database" if len(outcome.cores) == 1 else "the databases"


def _differences(outcome: Outcome, verdict: Verdict) -> list[str]:
    """One line for each core that misses events and, if no overflow explains that, for each carrier that differs."""
    if verdict is Verdict.AGREE:
        return []
    if verdict is Verdict.MISSING:
        return [
            f"core {number}: its ring overflowed; the view is missing {core.missing:,} events, the first of them"
            f" {core.producer.first_dropped_sequence:,}, the last {core.producer.last_dropped_sequence:,}."
            for number, core in enumerate(outcome.cores)
            if core.missing
        ]
    lines = [
        f"core {number}: the view is missing {core.missing:,} events,"
        + (" but the log has them all." if core.recovered else f" but the producer counted {core.excused:,} drops.")
        for number, core in enumerate(outcome.cores)
        if core.missing != core.excused
    ]
    lines += [
        f"{carrier}: the view says {outcome.view.get(carrier)}, {_asked(outcome)} {outcome.database.get(carrier)}."
        for carrier in sorted(outcome.view.keys() | outcome.database.keys())
        if outcome.view.get(carrier) != outcome.database.get(carrier)
    ]
    return lines


def _compact_table() -> Table:
    """A table without any lines drawn: two frames would not fit 40 lines."""
    return Table(box=None, pad_edge=False, padding=(0, 1))


def _carriers_table(outcome: Outcome) -> Table:
    table = _compact_table()
    table.add_column("carrier")
    for heading in ("flown", "cancelled"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("mean delay, view", "mean delay, SQL"):
        table.add_column(heading, justify="right")
    table.add_column("equal")
    view, database = outcome.view, outcome.database
    for carrier in sorted(view.keys() | database.keys()):
        table.add_row(*_comparison(carrier, view.get(carrier), database.get(carrier)))
    table.add_row(*_comparison("all", sum_totals(view), sum_totals(database)), style="bold")
    return table


def _comparison(name: str, seen: CarrierTotals | None, asked: CarrierTotals | None) -> list[Text]:
    """One row: what the view has seen, and what the databases answer. A difference is red, and says NO."""
    cells = [
        name,
        _count(seen and seen.flown, asked and asked.flown),
        _count(seen and seen.cancelled, asked and asked.cancelled),
        _mean_delay(seen),
        _mean_delay(asked),
        "yes" if seen == asked else "NO",
    ]
    return [Text(cell, "" if seen == asked else _WRONG) for cell in cells]


def _count(seen: int | None, asked: int | None) -> str:
    """A count as the view has it and, if the databases have another one, that too."""
    texts = ["-" if count is None else f"{count:,}" for count in (seen, asked)]
    return texts[0] if seen == asked else " vs ".join(texts)


def _mean_delay(totals: CarrierTotals | None) -> str:
    return "-" if totals is None or totals.mean_delay is None else f"{totals.mean_delay:.3f} min"


def _rings_table(outcome: Outcome) -> Table:
    cores = outcome.cores
    events = [sum(core.events.values()) for core in cores]
    counts = {
        "events in the view": events,
        "events/s": [round(count / outcome.seconds) for count in events],
        "batches": [core.consumer.batches for core in cores],
        "dropped": [core.producer.dropped for core in cores],
        "times THROTTLED": [core.producer.throttle_transitions for core in cores],
        "times SUSPENDED": [core.producer.suspend_transitions for core in cores],
    }
    recovered = [core.recovered for core in cores if core.recovered is not None]
    if recovered:
        counts |= {
            "holes": [core.gaps for core in recovered],
            "replayed from the log": [core.replayed for core in recovered],
            "catch-ups": [core.episodes for core in recovered],
        }
    table = _compact_table()
    has_total = len(cores) > 1
    table.add_column(f"the {'rings' if has_total else 'ring'}, in {outcome.seconds:.1f} s")
    for number, core in enumerate(cores):
        table.add_column(f"core {number} ({', '.join(core.airports)})", justify="right")
    if has_total:
        table.add_column("total", justify="right")
        counts = {name: [*counted, sum(counted)] for name, counted in counts.items()}
    for name, counted in counts.items():
        table.add_row(name, *(f"{count:,}" for count in counted))
    # In red only if no drop explains it: then the verdict is a disagreement, whatever the totals say.
    table.add_row(
        "missing from the view",
        *(f"{core.missing:,}" for core in cores),
        *([f"{outcome.missing:,}"] if has_total else []),
        style=None if all(core.missing == core.excused for core in cores) else _WRONG,
    )
    table.add_row("capacity", *(f"{core.capacity:,}" for core in cores))
    table.add_row("highest utilization", *(f"{core.producer.high_water_mark} %" for core in cores))
    return table
