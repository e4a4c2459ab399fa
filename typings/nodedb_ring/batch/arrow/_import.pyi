from .._row_block import RowBlock

__all__ = ["import_block"]

def import_block(source: object) -> RowBlock: ...
