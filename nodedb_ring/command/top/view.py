"""What ``nodedb-ring top`` draws on a terminal: one line per core, from the latest sample and earlier ones."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from ...core.backpressure import PressureState
from .sparkline import sparkline
from .text import capture_line, owners, problems
from .watch import AnyRing, BusSample, CorruptRing, RingSample

__all__ = ["View", "compact"]

_COLOURS: Final = {PressureState.NORMAL: "green", PressureState.THROTTLED: "yellow", PressureState.SUSPENDED: "red"}
_WRONG: Final = "bold red"
_HEADING: Final = "dim"
_LONGEST_HISTORY: Final = 400  # samples: more than a terminal has columns
_WIDE: Final = 100  # columns; from here on the headings are whole words
_HEADINGS: Final = (
    ("core", "pressure", "used", "", "in/s", "out/s", "lag", "drops", "/s", "prod.", "cons.", "in/s"),
    (
        *("core", "pressure", "utilization", "", "in/s", "out/s", "lag"),
        *("dropped", "dropped/s", "producer", "consumer", "in/s until now"),
    ),
)
# The column of the bar, which shares the width that others leave with the last column's sparkline; and the least width
# of each column, in characters.
_BAR: Final = 2
_LEAST_WIDTHS: Final = (4, 9, 5, 4, 5, 5, 5, 5, 5, 4, 4, 8)

_Cell: TypeAlias = tuple[str, str]
"""Text and its style."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Line:
    """One line of the table: its text cells, and the values for the bar and the sparkline."""

    cells: Sequence[_Cell]
    used: int = 0  # percent
    colour: str = ""
    history: Sequence[float] = ()


class View:
    """A renderable of rich: give it each sample.

    If the terminal has too few lines for all cores, it shows the corrupt and then the fullest ones, in order. It does
    its own layout, because a table of rich measures every cell and takes seven times as long.
    """

    def __init__(self, first: BusSample) -> None:
        self._sample = first
        self._history: list[collections.deque[float]] = []
        self.add(first)

    def add(self, sample: BusSample) -> None:
        """Shows this sample from now on."""
        if not self._history or sample.incarnation != self._sample.incarnation:
            self._history = [collections.deque(maxlen=_LONGEST_HISTORY) for _ in sample.rings]
        self._sample = sample
        for history, ring in zip(self._history, sample.rings, strict=True):
            if isinstance(ring, RingSample) and ring.rates is not None:
                history.append(ring.rates.emitted)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The title, the table and the problems."""
        sample = self._sample
        bus = sample.bus
        cores = "1 core" if bus.num_cores == 1 else f"{bus.num_cores} cores"
        over = "" if sample.seconds is None else f", the last {sample.seconds:.1f} s"
        yield _fitting(Text.assemble((bus.name, "bold"), f"  {cores} of {bus.capacity:,} slots{over}"))
        notes = [
            *(
                Text(capture_line(each), style=_WRONG if each.has_gone or not each.status.connected else "")
                for each in sample.captures
            ),
            *(Text(note, style=_WRONG) for note in problems(sample)),
        ]
        # Lines besides the cores: title, headings, the totals, and the note about cores that are not shown.
        taken = 4 + sum(len(note.wrap(console, options.max_width)) for note in notes)
        shown = _most_urgent(sample.rings, max(options.size.height - taken, 1))
        lines = [self._line(ring) for ring in shown]
        if len(sample.rings) > 1:
            lines.append(_totals_line(sample))
        yield from _table(lines, options.max_width, ascii_only=options.ascii_only)
        if len(shown) < len(sample.rings):
            yield Text(f"the fullest {len(shown)} of {cores}; a taller terminal shows more", style=_HEADING)
        yield from notes

    def _line(self, ring: AnyRing) -> _Line:
        if isinstance(ring, CorruptRing):
            return _Line([(str(ring.core_id), ""), ("CORRUPT", _WRONG), *8 * [("", "")]])
        stats, rates = ring.stats, ring.rates
        colour = _COLOURS[stats.pressure_state]
        dropped = None if rates is None else rates.dropped
        return _Line(
            [
                (str(ring.core_id), ""),
                (str(stats.pressure_state), colour),
                (f"{stats.utilization}%", ""),
                (_shown(None if rates is None else rates.emitted), ""),
                (_shown(None if rates is None else rates.received), ""),
                (compact(ring.stats.lag), ""),
                (compact(stats.producer.dropped), ""),
                (_shown(dropped), _WRONG if dropped else ""),
                *((owner, _WRONG if owner == "gone" else "") for owner in owners(ring)),
            ],
            used=stats.utilization,
            colour=colour,
            history=self._history[ring.core_id],
        )


def _totals_line(sample: BusSample) -> _Line:
    """The totals of all rings that are not corrupt."""
    sound = [ring for ring in sample.rings if isinstance(ring, RingSample)]
    rates = [ring.rates for ring in sound if ring.rates is not None]
    totals = (
        *("all", "", ""),
        _shown(sum(rate.emitted for rate in rates) if rates else None),
        _shown(sum(rate.received for rate in rates) if rates else None),
        compact(sum(ring.stats.lag for ring in sound)),
        compact(sum(ring.stats.producer.dropped for ring in sound)),
        _shown(sum(rate.dropped for rate in rates) if rates else None),
        *("", ""),
    )
    return _Line([(total, "bold") for total in totals])


def _table(lines: Sequence[_Line], width: int, *, ascii_only: bool) -> Iterator[Text]:
    """Headings and lines. Words and bars are aligned left, numbers right."""
    headings = _HEADINGS[width >= _WIDE]
    rows = [list(line.cells) for line in lines]
    for row in rows:
        row.insert(_BAR, ("", ""))
        row.append(("", ""))
    widths = [
        max(least, len(heading), *(len(row[place][0]) for row in rows))
        for place, (least, heading) in enumerate(zip(_LEAST_WIDTHS, headings, strict=True))
    ]
    # One space between two columns.
    room = width - sum(widths[:_BAR]) - sum(widths[_BAR + 1 : -1]) - len(widths) + 1
    widths[_BAR] = max(room // 3, _LEAST_WIDTHS[_BAR])
    widths[-1] = max(room - widths[_BAR], _LEAST_WIDTHS[-1])
    yield _joined(
        [
            [(_placed(heading[:wide], place, wide), _HEADING)]
            for place, (heading, wide) in enumerate(zip(headings, widths, strict=True))
        ]
    )
    for line, row in zip(lines, rows, strict=True):
        parts = [
            [(_placed(text, place, wide), style)]
            for place, ((text, style), wide) in enumerate(zip(row, widths, strict=True))
        ]
        if line.colour:
            parts[_BAR] = _bar(line.used, widths[_BAR], line.colour, ascii_only=ascii_only)
            latest = list(line.history)[-widths[-1] :]
            parts[-1] = [(sparkline(latest, ascii_only=ascii_only).rjust(widths[-1]), "cyan")]
        yield _joined(parts)


def _placed(text: str, place: int, width: int) -> str:
    return text.ljust(width) if 0 < place <= _BAR else text.rjust(width)


def _bar(percent: int, width: int, colour: str, *, ascii_only: bool) -> list[_Cell]:
    """A heavy line for the used part, to half a column, and a light one for the rest."""
    # A ring that holds any event is not shown as empty.
    whole, half = divmod(max(round(percent * width / 50), min(percent, 1)), 2)
    heavy, light = ("#", "-") if ascii_only else ("━", "─")
    full = heavy * whole + (("+" if ascii_only else "╾") if half else "")
    return [(full, colour), (light * (width - len(full)), _HEADING)]


def _joined(parts: Sequence[Sequence[_Cell]]) -> Text:
    line = Text()
    for place, part in enumerate(parts):
        if place:
            line.append(" ")
        for text, style in part:
            line.append(text, style or None)
    return _fitting(line)


def _fitting(line: Text) -> Text:
    """The line, cut to the width of the terminal."""
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _most_urgent(rings: tuple[AnyRing, ...], most: int) -> list[AnyRing]:
    """At most this many rings, by core: the most urgent ones."""

    def urgency(ring: AnyRing) -> tuple[int, int]:
        return (101, 0) if isinstance(ring, CorruptRing) else (ring.stats.utilization, -ring.core_id)

    return sorted(sorted(rings, key=urgency, reverse=True)[:most], key=lambda ring: ring.core_id)


def _shown(rate: float | None) -> str:
    return "-" if rate is None else compact(rate)


def compact(number: float) -> str:
    """A count or a rate in at most five characters: ``0``, ``0.4``, ``987``, ``1.23k``, ``45.6M``.

    It shows three digits; below ten, one decimal unless the number is whole.
    """
    if number < 9.95 and number != int(number):
        return f"{number:.1f}" if number >= 0.05 else "<0.1"
    units, unit = iter("kMGTPEZY"), ""
    # From here on three digits would show 1000.
    while number >= 999.5:
        number /= 1000
        unit = next(units)
    return f"{number:.3g}{unit}" if unit else f"{number:.0f}"
