from ._row_block import RowBlock

__all__ = ["split"]

def split(block: RowBlock, field: int) -> dict[str, RowBlock]: ...
