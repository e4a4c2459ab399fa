"""``Projection``: some columns of a batch, for libraries that read Arrow."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from ._arrow import Selection, export_array, export_schema, export_stream

if TYPE_CHECKING:
    from ._batch import RowBlock

__all__ = ["Projection"]


@final
class Projection:
    """Some columns of an ``EventBatch``, to be read through Arrow's capsules: ``EventBatch.select`` makes it.

    Only these columns are made when an importer asks; of strings and values that are not asked for no byte is read.
    Without a column of strings or values the export holds nothing of the batch: should that be of a lease, it may end.

    Thread safety
    -------------
    Immutable, and readable as long as its batch.
    """

    __slots__ = ("_block", "_columns", "_selection")

    def __init__(self, block: RowBlock, columns: tuple[str, ...]) -> None:
        self._block = block
        self._columns = columns
        self._selection = Selection(columns)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names, in their order."""
        return self._columns

    def __arrow_c_schema__(self) -> object:
        """The schema: the capsule of an ``ArrowSchema``."""
        return export_schema(self._selection)

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        """The columns, as ``EventBatch`` exports them: the capsules of an ``ArrowSchema`` and of an ``ArrowArray``."""
        return export_array(self._block, self._selection)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The same as a stream of one array: the capsule of an ``ArrowArrayStream``."""
        parts = iter([self])
        return export_stream(lambda: next(parts, None), self._selection)

    def __len__(self) -> int:
        return self._block.count

    def __repr__(self) -> str:
        return f"Projection({', '.join(self._columns)} of {len(self)} events)"
