from ...batch.rows.row_types import RowType

__all__ = ["row_type"]

def row_type(oid: int) -> RowType: ...
