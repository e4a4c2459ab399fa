from collections.abc import Iterable
from typing import Any

from nodedb_ring.batch._row_block import RowBlock

__all__ = ["join_stored", "take_rows"]

def take_rows(cursor: Iterable[tuple[Any, ...]], events: int, size: int) -> list[tuple[Any, ...]]: ...
def join_stored(core_id: int, rows: list[tuple[Any, ...]]) -> tuple[RowBlock | None, int]: ...
