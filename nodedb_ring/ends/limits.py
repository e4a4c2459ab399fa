"""Checks of time-outs and of counts of events: one function of each, for every call that takes one."""

from __future__ import annotations

import math
import operator
from typing import Final

from ..errors import ArgumentError

__all__ = ["LONGEST_SECONDS", "MOST_EVENTS", "event_count", "limit_seconds"]

LONGEST_SECONDS: Final = 1e9
"""Time-outs from here on, 31 years, mean no limit: clocks, locks and event loops cannot count further."""
MOST_EVENTS: Final = 2**63 - 1


def limit_seconds(timeout: float | None, name: str = "timeout") -> float | None:
    """A time-out as its caller gave it, in seconds; None where it sets no limit: None, infinity, 31 years or more.

    Raises
    ------
    ArgumentError
        It is negative, or NaN.
    TypeError
        It is not a number.
    """
    if timeout is None:
        return None
    try:
        is_nan = math.isnan(timeout)
    except TypeError:
        raise TypeError(
            f"{name} {timeout!r}: must be a number of seconds, or None for no limit, not {type(timeout).__name__}"
        ) from None
    except OverflowError:
        # An integer beyond every float, on either side.
        is_nan = False
    if is_nan or timeout < 0:
        raise ArgumentError(f"{name} {timeout}: must be 0 or more seconds, or None for no limit")
    return float(timeout) if timeout < LONGEST_SECONDS else None


def event_count(value: int, name: str = "max_events") -> int:
    """The most events that a call may return.

    Raises
    ------
    ArgumentError
        It is below 1, or does not fit 63 bits.
    TypeError
        It is not an integer.
    """
    count = operator.index(value)
    if not 1 <= count <= MOST_EVENTS:
        raise ArgumentError(f"{name} {value}: must be from 1 to {MOST_EVENTS}")
    return count
