from collections.abc import Collection
from typing import final

__all__ = ["Table"]

@final
class Table:
    name: str
    columns: tuple[str, ...]
    def __init__(
        self,
        name: str,
        columns: tuple[str, ...],
        *,
        real: Collection[int],
        key: tuple[int, ...] = (),
        is_text_key: bool = False,
    ) -> None: ...
