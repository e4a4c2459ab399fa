"""The types that a column of row values may have."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

__all__ = ["ROW_TYPES", "RowType"]

# A union of literals, which stubtest can compare with what is there at run time.
RowType: TypeAlias = (
    Literal["bool"]
    | Literal["int64"]
    | Literal["uint64"]
    | Literal["float64"]
    | Literal["str"]
    | Literal["bytes"]
    | Literal["timestamp"]
    | Literal["raw"]
    | Literal["null"]
)

ROW_TYPES: Final[tuple[RowType, ...]] = (
    "bool", "int64", "uint64", "float64", "str", "bytes", "timestamp", "raw", "null",
)  # fmt: skip
"""All of them, in the order of ``nodedb_row_type`` in nodedb_row_values.h."""
