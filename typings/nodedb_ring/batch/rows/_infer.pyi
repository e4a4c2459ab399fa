from .._row_block import RowBlock

__all__ = ["infer_columns"]

def infer_columns(block: RowBlock, field: int, goes_on: bool) -> list[tuple[str, str]]: ...
