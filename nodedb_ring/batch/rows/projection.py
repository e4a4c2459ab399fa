"""``RowProjection``: rows as libraries that read Arrow are to see them."""

# Rows and what shows them are of one package.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from typing import TYPE_CHECKING, final

from ..arrow._schema import Selection
from ._export import RowExport

if TYPE_CHECKING:
    from .rows import Rows

__all__ = ["RowProjection"]


@final
class RowProjection:
    """Rows to be read through Arrow's capsules, with columns of their events in front, or without view types.

    ``Rows.with_events`` and ``Rows.plain`` make it.

    Thread safety
    -------------
    Immutable, and readable as long as its rows.
    """

    __slots__ = ("_events", "_is_plain", "_rows")

    def __init__(self, rows: Rows, events: tuple[str, ...], *, plain: bool = False) -> None:
        self._rows = rows
        self._is_plain = plain
        self._events = Selection(events, plain=plain) if events else None

    @property
    def columns(self) -> tuple[str, ...]:
        """The names, in their order."""
        return (() if self._events is None else self._events.names) + tuple(self._rows.schema)

    def plain(self) -> RowProjection:
        """The same columns for Arrow importers that know no view types, as ``Rows.plain`` has them."""
        return RowProjection(self._rows, () if self._events is None else self._events.names, plain=True)

    def __arrow_c_schema__(self) -> object:
        """The schema: the capsule of an ``ArrowSchema``."""
        return self._export().schema()

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        """The columns, as ``Rows`` exports them: the capsules of an ``ArrowSchema`` and of an ``ArrowArray``."""
        return self._export(requested_schema).array()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The same as a stream, as ``Rows`` has it: the capsule of an ``ArrowArrayStream``."""
        return self._export(requested_schema).stream()

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"RowProjection({', '.join(self.columns)} of {len(self)} rows{', plain' if self._is_plain else ''})"

    def _export(self, requested_schema: object | None = None) -> RowExport:
        return self._rows._export(requested_schema, events=self._events, plain=self._is_plain)
