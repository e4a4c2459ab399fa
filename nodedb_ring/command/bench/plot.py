"""The figures as a picture: throughput by batch size, and latency by percentile. Needs Matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from .results import Results, Spread

__all__ = ["DOTS_PER_INCH", "SIZE_INCHES", "check_format", "picture"]

SIZE_INCHES: Final = (10.0, 4.7)
DOTS_PER_INCH: Final = 160
"""1600 by 752 pixels: sharp at half the size, as in a README."""

_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The palette of Okabe and Ito, safe for colour-blind readers. The lines have different markers, too."""
_MARKERS: Final = "osD^vP*"
_TICKS: Final = {"50 %": 50.0, "90 %": 90.0, "99 %": 99.0, "99.9 %": 99.9, "99.99 %": 99.99}
_MARKED: Final = {*_TICKS.values(), 100.0}
_SLOWEST: Final = 1e5
"""The place of the slowest event on the percentile axis, because 100 % is infinitely far on its log scale."""


def check_format(path: Path) -> None:
    """Checks that a file name ends in a known picture format.

    Raises
    ------
    ValueError
        It does not; the message lists the formats.
    """
    known = sorted(FigureCanvasAgg.filetypes)
    if path.suffix[1:].lower() not in known:
        raise ValueError(f"--plot {path}: must end in a picture format: {', '.join(known)}")


def picture(results: Results, suffix: str) -> bytes:
    """Both panels as the bytes of a file with that `suffix`, such as ``.png``."""
    style = mpl.rc_context(
        {
            "font.size": 11.0,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#dddddd",
            "grid.linewidth": 0.7,
            "legend.frameon": False,
            "legend.title_fontsize": 12.5,
        }
    )
    with style:
        figure = Figure(SIZE_INCHES, DOTS_PER_INCH, layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        _draw_throughput(left, results)
        _draw_latency(right, results)
        machine = results.machine
        figure.supxlabel(
            f"nodedb_ring {results.nodedb_ring}, between two processes, values of {results.settings.value_bytes:,}"
            f" bytes; {machine.processor}, {machine.kernel}, {machine.python}.\n"
            f"Lines are the median of {results.settings.rounds} rounds, bands the least and the most.",
            fontsize=8.5,
            color="#555555",
        )
        file = io.BytesIO()
        figure.savefig(file, format=suffix[1:].lower())
    return file.getvalue()


def _draw_throughput(axes: Axes, results: Results) -> None:
    for place, capacity in enumerate(results.settings.capacities):
        points = [(one.batch_size, one.events_per_second) for one in results.throughput if one.capacity == capacity]
        _line(axes, place, points, unit=1e6, label=f"{capacity:,}")
    _legend(axes, "Throughput, by ring capacity in events")
    axes.set_xlabel("events in a batch; 1 is emit()")
    axes.set_ylabel("million events/s")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    sizes = _sparse(results.settings.batch_sizes)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    _plain_numbers(axes)


def _sparse(sizes: Sequence[int]) -> Sequence[int]:
    """At most eight, so that labels do not overlap."""
    return sizes[:: -(-len(sizes) // 8)]


def _draw_latency(axes: Axes, results: Results) -> None:
    for place, one in enumerate(results.latency):
        points = [(_place(point.percentile), point.nanoseconds) for point in one.percentiles]
        marks = [number for number, point in enumerate(one.percentiles) if point.percentile in _MARKED]
        _line(axes, place, points, unit=1e3, label=f"{one.wait} reader", marks=marks)
    _legend(axes, f"Latency one way, at {results.latency_rate:,} events/s")
    axes.set_xlabel("percentile of events")
    axes.set_ylabel("µs")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([*map(_place, _TICKS.values()), _SLOWEST], [*_TICKS, "all"])
    axes.xaxis.set_minor_locator(NullLocator())
    _plain_numbers(axes)


def _place(percentile: float) -> float:
    return _SLOWEST if percentile == 100 else 1 / (1 - percentile / 100)


def _line(
    axes: Axes,
    place: int,
    points: Sequence[tuple[float, Spread]],
    *,
    unit: float,
    label: str,
    marks: Sequence[int] | None = None,
) -> None:
    x, spreads = zip(*points, strict=True)
    colour = _COLOURS[place % len(_COLOURS)]
    least, most = [one.least / unit for one in spreads], [one.most / unit for one in spreads]
    axes.fill_between(x, least, most, color=colour, alpha=0.18, linewidth=0)
    axes.plot(
        x,
        [one.median / unit for one in spreads],
        color=colour,
        marker=_MARKERS[place % len(_MARKERS)],
        markevery=marks,
        markersize=5.5,
        linewidth=1.8,
        label=label,
    )


def _legend(axes: Axes, title: str) -> None:
    """The title and the legend, above the panel where they hide no line."""
    axes.legend(title=title, alignment="left", loc="lower left", bbox_to_anchor=(-0.01, 1.0), borderpad=0.2, ncols=4)


def _plain_numbers(axes: Axes) -> None:
    """Labels such as 10 and 0.5 on a log scale, instead of powers of ten."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:,g}"))
    axes.yaxis.set_minor_formatter(
        FuncFormatter(lambda value, _place: f"{value:,g}" if f"{value:.0e}"[0] in "25" else "")
    )
    axes.tick_params(axis="y", which="minor", labelsize=9)
