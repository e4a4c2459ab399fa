"""A row of numbers as a row of bars, one character each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

__all__ = ["sparkline"]

_BARS: Final = "▁▂▃▄▅▆▇█"
# Levels for a terminal without Unicode: neither letters nor digits, so that they are not mistaken for text.
_ASCII: Final = "_.-:=+*#"


def sparkline(values: Sequence[float], *, ascii_only: bool = False) -> str:
    """One bar for each value: the highest for the largest value, the lowest only for 0, so that small values show.

    Parameters
    ----------
    values : sequence of float, at least 0
    ascii_only : bool, default False
        Draw with ASCII characters.
    """
    bars = _ASCII if ascii_only else _BARS
    highest = max(values, default=0.0)
    return "".join(bars[math.ceil(value / highest * (len(bars) - 1))] if value else bars[0] for value in values)
