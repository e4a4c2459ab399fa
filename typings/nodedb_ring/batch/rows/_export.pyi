from typing import final

from .._row_block import RowBlock
from ..arrow._schema import Selection
from ._decode import RowColumns

__all__ = ["RowExport"]

@final
class RowExport:
    def __new__(
        cls,
        columns: RowColumns,
        block: RowBlock,
        numbers: tuple[int, ...],
        start: int,
        stop: int,
        *,
        plain: bool = False,
        events: Selection | None = None,
        requested_schema: object | None = None,
        longest: int = 0x7FFFFFFF,
    ) -> RowExport: ...
    def schema(self) -> object: ...
    def array(self) -> tuple[object, object]: ...
    def stream(self) -> object: ...
