from typing import final

__all__ = ["RowWriter"]

@final
class RowWriter: ...
