from collections.abc import Callable
from typing import final

from ._batch import RowBlock
from .batch import EventBatch
from .projection import Projection

__all__ = ["Selection", "drop_released", "export_array", "export_schema", "export_stream"]

@final
class Selection:
    def __new__(cls, names: tuple[str, ...]) -> Selection: ...

def export_schema(selection: Selection = ...) -> object: ...
def drop_released() -> None: ...
def export_array(
    block: RowBlock, selection: Selection = ..., window_shift: int = 28, *, portable: bool = False
) -> tuple[object, object]: ...
def export_stream(next_batch: Callable[[], EventBatch | Projection | None], selection: Selection = ...) -> object: ...
