from typing import Final, final

__all__ = ["EVERY_COLUMN", "EVERY_COLUMN_PLAIN", "Selection", "export_schema"]

EVERY_COLUMN: Final[Selection]
EVERY_COLUMN_PLAIN: Final[Selection]

@final
class Selection:
    def __new__(cls, names: tuple[str, ...], *, plain: bool = False) -> Selection: ...
    @property
    def names(self) -> tuple[str, ...]: ...

def export_schema(selection: Selection = ...) -> object: ...
