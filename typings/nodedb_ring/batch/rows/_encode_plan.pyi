from typing import final

__all__ = ["EncodePlan"]

@final
class EncodePlan:
    @property
    def names(self) -> list[str]: ...
