"""What ``nodedb-ring top`` draws on a terminal: a line a core, of the latest sample and of those before it."""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..backpressure import PressureState
from .sparkline import sparkline
from .text import owners, standing
from .watch import AnyRing, BusSample, CorruptRing, RingSample

__all__ = ["View", "compact"]

_COLOURS: Final = {PressureState.NORMAL: "green", PressureState.THROTTLED: "yellow", PressureState.SUSPENDED: "red"}
_WRONG: Final = "bold red"
_LONGEST_HISTORY: Final = 400  # samples: as wide as a terminal may be
_WIDE: Final = 100  # columns, from which on the headings are whole words


class View:
    """A renderable of rich: give it each sample.

    Where the terminal has too few lines for all cores, the corrupt and then the fullest ones are shown, in order.
    """

    def __init__(self, first: BusSample) -> None:
        self._sample = first
        self._history: list[collections.deque[float]] = []
        self.add(first)

    def add(self, sample: BusSample) -> None:
        """Shows this one from now on."""
        if not self._history or sample.incarnation != self._sample.incarnation:
            self._history = [collections.deque(maxlen=_LONGEST_HISTORY) for _ in sample.rings]
        self._sample = sample
        for history, ring in zip(self._history, sample.rings, strict=True):
            if isinstance(ring, RingSample) and ring.rates is not None:
                history.append(ring.rates.emitted)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The title, the table, and what is wrong."""
        sample = self._sample
        bus = sample.bus
        cores = "1 core" if bus.num_cores == 1 else f"{bus.num_cores} cores"
        over = "" if sample.seconds is None else f", the last {sample.seconds:.1f} s"
        yield Text.assemble((bus.name, "bold"), f"  {cores} of {bus.capacity:,} slots{over}")
        notes = [Text(note, style=_WRONG) for note in standing(sample)]
        # Besides the cores: title, headings, the line of all, and the line of how many there is no room for.
        taken = 4 + sum(len(note.wrap(console, options.max_width)) for note in notes)
        shown = _foremost(sample.rings, max(options.size.height - taken, 1))
        yield self._table(shown, wide=options.max_width >= _WIDE)
        if len(shown) < len(sample.rings):
            yield Text(f"the fullest {len(shown)} of {cores}; a higher terminal shows more", style="dim")
        yield from notes

    def _table(self, shown: Iterable[AnyRing], *, wide: bool) -> Table:
        table = Table(box=None, expand=True, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
        table.add_column("core", justify="right")
        table.add_column("pressure", no_wrap=True)
        table.add_column("utilization" if wide else "used", ratio=1, min_width=5)
        table.add_column("", justify="right", min_width=4)
        for heading in ("in/s", "out/s", "lag"):
            table.add_column(heading, justify="right", min_width=5, no_wrap=True)
        table.add_column("dropped" if wide else "drops", justify="right", min_width=5, no_wrap=True)
        table.add_column("dropped/s" if wide else "/s", justify="right", min_width=5, no_wrap=True)
        table.add_column("producer" if wide else "prod.", justify="right", no_wrap=True)
        table.add_column("consumer" if wide else "cons.", justify="right", no_wrap=True)
        table.add_column("in/s until now" if wide else "in/s", justify="right", ratio=2, min_width=8, no_wrap=True)
        for ring in shown:
            if isinstance(ring, CorruptRing):
                table.add_row(str(ring.core_id), Text("CORRUPT", style=_WRONG))
            else:
                self._add(table, ring)
        if len(self._sample.rings) > 1:
            self._add_all(table)
        return table

    def _add(self, table: Table, ring: RingSample) -> None:
        stats, rates = ring.stats, ring.rates
        colour = _COLOURS[stats.pressure_state]
        dropped = None if rates is None else rates.dropped
        table.add_row(
            str(ring.core_id),
            Text(str(stats.pressure_state), style=colour),
            ProgressBar(100, stats.utilization, complete_style=colour, finished_style=colour),
            f"{stats.utilization}%",
            _shown(None if rates is None else rates.emitted),
            _shown(None if rates is None else rates.received),
            compact(ring.lag),
            compact(stats.producer.dropped),
            Text(_shown(dropped), style=_WRONG if dropped else ""),
            *(Text(owner, style=_WRONG if owner == "gone" else "") for owner in owners(ring)),
            _Sparkline(self._history[ring.core_id]),
        )

    def _add_all(self, table: Table) -> None:
        """The line of what all sound rings come to."""
        sound = [ring for ring in self._sample.rings if isinstance(ring, RingSample)]
        rates = [ring.rates for ring in sound if ring.rates is not None]
        table.add_row(
            "all",
            "",
            "",
            "",
            _shown(sum(rate.emitted for rate in rates) if rates else None),
            _shown(sum(rate.received for rate in rates) if rates else None),
            compact(sum(ring.lag for ring in sound)),
            compact(sum(ring.stats.producer.dropped for ring in sound)),
            _shown(sum(rate.dropped for rate in rates) if rates else None),
            style="bold",
        )


class _Sparkline:
    """As much of a history as there is room for, its latest end."""

    def __init__(self, values: Iterable[float]) -> None:
        self._values = list(values)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        latest = self._values[-options.max_width :]
        yield Text(sparkline(latest, ascii_only=options.ascii_only), style="cyan", justify="right", no_wrap=True)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, options.max_width)


def _foremost(rings: tuple[AnyRing, ...], most: int) -> list[AnyRing]:
    """The rings, by core, of which at most so many are to be shown: those that most want to be looked at."""

    def urgency(ring: AnyRing) -> tuple[int, int]:
        return (101, 0) if isinstance(ring, CorruptRing) else (ring.stats.utilization, -ring.core_id)

    return sorted(sorted(rings, key=urgency, reverse=True)[:most], key=lambda ring: ring.core_id)


def _shown(rate: float | None) -> str:
    return "-" if rate is None else compact(rate)


def compact(number: float) -> str:
    """A count or a rate in at most five characters: ``0``, ``0.4``, ``987``, ``1.23k``, ``45.6M``.

    Three digits of it; below ten one decimal, unless it is whole.
    """
    if number < 9.95 and number != int(number):
        return f"{number:.1f}" if number >= 0.05 else "<0.1"
    units, unit = iter("kMGTPEZY"), ""
    # From where on it would be shown as 1000.
    while number >= 999.5:
        number /= 1000
        unit = next(units)
    return f"{number:.3g}{unit}" if unit else f"{number:.0f}"
