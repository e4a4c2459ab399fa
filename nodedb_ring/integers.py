"""What counts as an integer where one is passed: in an event, and in every row of a column."""

from __future__ import annotations

import operator
from typing import SupportsIndex, cast

import numpy as np

__all__ = ["as_int"]


def as_int(value: object) -> int:
    """The int that a value is: an int, a NumPy integer, or what else has ``__index__``.

    Raises
    ------
    TypeError
        It is none. A bool is a truth value, a float may have lost what did not fit it, a masked element has no value.
    """
    if isinstance(value, bool):
        raise TypeError("a bool")
    if isinstance(value, np.ndarray) and np.ma.is_masked(value):
        raise TypeError("masked")
    return operator.index(cast(SupportsIndex, value))
