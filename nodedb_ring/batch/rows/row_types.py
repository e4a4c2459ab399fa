"""The types that a column of row values may have."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

__all__ = ["ROW_TYPES", "RowType"]

RowType: TypeAlias = Literal["bool", "int64", "uint64", "float64", "str", "bytes", "timestamp", "raw", "null"]

ROW_TYPES: Final[tuple[RowType, ...]] = get_args(RowType)
"""All of them, in the order of ``nodedb_row_type`` in nodedb_row_values.h."""
