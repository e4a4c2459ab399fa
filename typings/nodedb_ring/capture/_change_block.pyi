from typing import final

from ..batch._row_block import RowBlock

__all__ = ["ChangeBlock"]

@final
class ChangeBlock(RowBlock): ...
