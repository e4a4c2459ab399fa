"""Which rows a list or an array stands for, where it is an index."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .columns import plain_array

__all__ = ["chosen_rows"]


def chosen_rows(key: list[Any] | npt.NDArray[Any], count: int, what: str) -> npt.NDArray[np.int64]:
    """The numbers of the rows that a mask or integers name, in [0, count): an array of shape (k,).

    As with NumPy, a negative integer counts from the end, and one may stand there more than once.

    Raises
    ------
    TypeError
        It is neither.
    IndexError
        A mask of another length, or a number that no row has.
    """
    # An empty list NumPy takes for one of floats. It is taken for a mask, which may not have lost its rows unnoticed.
    index = np.asarray(key, None if len(key) else np.bool_) if isinstance(key, list) else plain_array("mask", key)
    if index.ndim != 1 or index.dtype.kind not in "biu":
        raise TypeError(f"index of {index.dtype}, shape {index.shape}: must be an int, a slice, a mask or integers")
    if index.dtype == np.bool_:
        if len(index) != count:
            raise IndexError(f"mask of {len(index)} for {what} of {count}")
        return np.flatnonzero(index).astype(np.int64, copy=False)
    stray = index >= count
    if index.dtype.kind == "i":
        stray |= index < -count
    if stray.any():
        raise IndexError(f"event {index[stray][0]} of {what} of {count}")
    numbers = index.astype(np.int64)
    numbers[numbers < 0] += count
    return numbers
