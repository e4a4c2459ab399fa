import numpy as np
import numpy.typing as npt

from ._row_block import RowBlock

__all__ = ["checked_copy"]

def checked_copy(records: npt.NDArray[np.uint8], payload: npt.NDArray[np.uint8]) -> RowBlock: ...
