from collections.abc import Callable
from typing import final

from .._row_block import RowBlock
from ..event_batch import EventBatch
from ..projection import Projection
from ._schema import Selection

__all__ = ["StreamClaim", "drop_released", "export_array", "export_stream"]

def drop_released() -> None: ...
def export_array(
    block: RowBlock,
    selection: Selection = ...,
    requested_schema: object | None = None,
    *,
    window_shift: int = 28,
    portable: bool = False,
    longest: int = 0x7FFFFFFF,
) -> tuple[object, object]: ...

@final
class StreamClaim: ...

def export_stream(
    next_batch: Callable[[], EventBatch | Projection | None],
    selection: Selection = ...,
    requested_schema: object | None = None,
    *,
    claim: StreamClaim | None = None,
    owner: str = "",
    is_over: Callable[[], bool] | None = None,
    longest: int = 0x7FFFFFFF,
) -> object: ...
