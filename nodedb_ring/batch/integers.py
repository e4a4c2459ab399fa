"""What counts as an integer where one is passed, in an event and in each row of a column; what as masked or missing."""

from __future__ import annotations

import operator
from typing import Any, SupportsIndex, TypeGuard, cast

import numpy as np

__all__ = ["as_int", "is_masked_array", "is_missing"]


def as_int(value: object) -> int:
    """The int that a value is: an int, a NumPy integer, or what else has ``__index__``.

    Raises
    ------
    TypeError
        It is none. A bool is a truth value, a float may have lost what did not fit it, a masked element has no value.
    """
    if isinstance(value, bool):
        raise TypeError("a bool")
    if is_masked_array(value) and np.ma.is_masked(value):
        raise TypeError("masked")
    return operator.index(cast(SupportsIndex, value))


def is_masked_array(value: object) -> TypeGuard[np.ma.MaskedArray[Any, Any]]:
    """Whether it is one of NumPy's, masked anywhere or not.

    NumPy imports ``numpy.ma`` when it is first named, which takes time and files: not for a plain array.
    """
    return isinstance(value, np.ndarray) and type(value) is not np.ndarray and isinstance(value, np.ma.MaskedArray)


def is_missing(item: Any) -> bool:
    """Whether there is no value: None, NaT, a masked element, or what pandas has for one. NaN is a number."""
    if item is None:
        return True
    if isinstance(item, np.datetime64):
        return bool(np.isnat(item))
    if is_masked_array(item):
        return item.ndim == 0 and bool(np.ma.is_masked(item))
    kind = type(item)
    return kind.__name__ in ("NAType", "NaTType") and kind.__module__.partition(".")[0] == "pandas"
