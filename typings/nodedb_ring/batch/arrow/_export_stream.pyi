from collections.abc import Callable
from typing import final

from .._event_batch import EventBatch
from ..projection import Projection
from ._schema import Selection

__all__ = ["StreamClaim", "export_stream"]

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
