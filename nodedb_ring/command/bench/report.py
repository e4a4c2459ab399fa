"""The figures as text: one line per batch size and one column per capacity; then one line per way to wait."""

from __future__ import annotations

from collections.abc import Sequence

from .results import Results, Spread

__all__ = ["report"]

_SHOWN = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "slowest": 100.0}


def report(results: Results) -> str:
    """The machine, then throughput and latency, each as the median of the rounds and their spread."""
    machine, settings = results.machine, results.settings
    pinned = "on one CPU" if machine.pinned_to is None else "on CPUs {} and {}".format(*machine.pinned_to)
    rates = {(one.capacity, one.batch_size): one.events_per_second for one in results.throughput}
    throughput = [
        ["batch size", *(f"capacity {capacity:,}" for capacity in settings.capacities)],
        *(
            [
                f"{size:,}",
                *(
                    _spread(rates[capacity, size], 1e6) if (capacity, size) in rates else "-"
                    for capacity in settings.capacities
                ),
            ]
            for size in settings.batch_sizes
        ),
    ]
    latency = [
        ["reader", *_SHOWN],
        *([one.wait, *(_spread(one.at(percentile), 1e3) for percentile in _SHOWN.values())] for one in results.latency),
    ]
    return (
        f"{machine.processor}, {machine.cpus} CPUs, {machine.kernel}, {machine.python}, NumPy {machine.numpy},"
        f" nodedb_ring {results.nodedb_ring}\n"
        f"one process to another, {pinned}; values of {settings.value_bytes:,} bytes;"
        f" load {machine.load_before:.1f} before, {machine.load_after:.1f} after\n"
        f"median of {settings.rounds} rounds (least to most); every answer was checked\n"
        f"\nThroughput, million events/s\n{_table(throughput)}"
        f"\nLatency one way, µs, at {results.latency_rate:,} events/s\n{_table(latency)}"
    )


def _spread(spread: Spread, unit: float) -> str:
    return f"{_number(spread.median / unit)} ({_number(spread.least / unit)} to {_number(spread.most / unit)})"


def _number(value: float) -> str:
    """Three digits, or all digits before the decimal point."""
    return f"{value:,.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() + "\n" for row in rows
    )
