from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ._event import WriteEvent
from ._row_block import RowBlock

__all__ = ["block_of_events", "gather", "join_column", "pack"]

def pack(blocks: Sequence[RowBlock]) -> RowBlock: ...
def gather(block: RowBlock, chosen: npt.NDArray[np.int64]) -> RowBlock: ...
def block_of_events(events: list[WriteEvent]) -> RowBlock: ...
def join_column(
    values: list[str | bytes | None], is_text: bool, name: str, is_scalar: bool
) -> tuple[bytes, npt.NDArray[np.uint32]]: ...
