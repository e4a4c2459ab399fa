"""``Projection`` and ``PlainStream``: batches as libraries that read Arrow are to see them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, final

from .arrow._export import export_array
from .arrow._export_stream import export_stream
from .arrow._schema import EVERY_COLUMN_PLAIN, Selection, export_schema

if TYPE_CHECKING:
    from ._row_block import RowBlock

__all__ = ["PlainStream", "Projection"]


@final
class Projection:
    """Some columns of an ``EventBatch``, to be read through Arrow's capsules.

    ``EventBatch.select`` makes it, and ``EventBatch.plain`` makes one of all columns.

    Only these columns are made when an importer asks; of strings and values that are not asked for no byte is read.
    Without a column of strings or values, or where they are plain, the export holds nothing of the batch: should that
    be of a lease, it may end.

    Thread safety
    -------------
    Immutable, and readable as long as its batch.
    """

    __slots__ = ("_block", "_is_plain", "_selection")

    def __init__(self, block: RowBlock, columns: tuple[str, ...], *, plain: bool = False) -> None:
        self._block = block
        self._is_plain = plain
        self._selection = Selection(columns, plain=plain)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names, in their order."""
        return self._selection.names

    def plain(self) -> Projection:
        """The same columns for Arrow importers that know no view types, as ``EventBatch.plain`` has them."""
        return Projection(self._block, self.columns, plain=True)

    def __arrow_c_schema__(self) -> object:
        """The schema: the capsule of an ``ArrowSchema``."""
        return export_schema(self._selection)

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        """The columns, as ``EventBatch`` exports them: the capsules of an ``ArrowSchema`` and of an ``ArrowArray``."""
        return export_array(self._block, self._selection, requested_schema)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The same as a stream, as ``EventBatch`` has it: the capsule of an ``ArrowArrayStream``."""
        parts = iter([self])
        return export_stream(lambda: next(parts, None), self._selection, requested_schema)

    def __len__(self) -> int:
        return self._block.count

    def __repr__(self) -> str:
        return f"Projection({', '.join(self.columns)} of {len(self)} events{', plain' if self._is_plain else ''})"


@final
class PlainStream:
    """The stream of a consumer or a follower, for Arrow importers without view types.

    ``EventConsumer.plain`` and ``Follower.plain`` make it. It is another sight of that end: what is read through it is
    taken from there.

    Thread safety
    -------------
    That of the consumer's or the follower's own stream.
    """

    __slots__ = ("_export", "_name")

    def __init__(self, name: str, export: Callable[[Selection, object | None], object]) -> None:
        self._name = name
        self._export = export

    def __arrow_c_schema__(self) -> object:
        """The schema of every batch: the capsule of an ``ArrowSchema``."""
        return export_schema(EVERY_COLUMN_PLAIN)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """All that comes, with strings and names as utf8 and values as binary: the capsule of an ``ArrowArrayStream``.

        For the rest it is as ``__arrow_c_stream__`` of the consumer or the follower says, and raises the same.
        """
        return self._export(EVERY_COLUMN_PLAIN, requested_schema)

    def __repr__(self) -> str:
        return f"PlainStream({self._name})"
