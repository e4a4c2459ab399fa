"""``EncodedRows``: row values as ``encode_rows`` makes them, one after another."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["EncodedRows"]


class EncodedRows(NamedTuple):
    """Row values: row i is ``data[offsets[i]:offsets[i + 1]]``, a MessagePack map.

    A row that is not there has no bytes, which no map has. ``EventBatch.from_columns`` takes it for None, if it is given
    these rows as they are; of a plain pair of the same two arrays it makes ``b""``.

    Parameters
    ----------
    data : array of uint8, shape (m,)
    offsets : array of int64, shape (n + 1,)
    """

    data: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
