from collections.abc import Callable

from ._batch import RowBlock
from .batch import EventBatch

__all__ = ["export_array", "export_schema", "export_stream"]

def export_schema() -> object: ...
def export_array(block: RowBlock, window_shift: int = 28, *, portable: bool = False) -> tuple[object, object]: ...
def export_stream(next_batch: Callable[[], EventBatch | None]) -> object: ...
