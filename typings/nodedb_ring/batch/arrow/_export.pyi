from .._row_block import RowBlock
from ._schema import Selection

__all__ = ["drop_released", "export_array"]

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
