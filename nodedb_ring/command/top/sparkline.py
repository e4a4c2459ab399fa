"""A row of numbers as a row of bars, a character each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

__all__ = ["sparkline"]

_BARS: Final = "▁▂▃▄▅▆▇█"
# For a terminal that has no more; none of them is a letter or a digit, which would be read.
_ASCII: Final = "_.-:=+*#"


def sparkline(values: Sequence[float], *, ascii_only: bool = False) -> str:
    """A bar for each value: the highest for the largest of them, the lowest for 0 alone, so that little is not nothing.

    Parameters
    ----------
    values : sequence of float, at least 0
    ascii_only : bool, default False
        Draw with ASCII characters.
    """
    bars = _ASCII if ascii_only else _BARS
    highest = max(values, default=0.0)
    return "".join(bars[math.ceil(value / highest * (len(bars) - 1))] if value else bars[0] for value in values)
