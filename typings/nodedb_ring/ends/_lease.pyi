from types import TracebackType
from typing import Self, final

from .._ring import EventRing
from ..batch._event_batch import EventBatch
from ..batch._row_block import RowBlock

__all__ = ["Lease"]

@final
class LeasedArena:
    def __new__(cls, ring: EventRing) -> Self: ...

@final
class LeasedBlock(RowBlock): ...

@final
class Lease:
    def __new__(cls, block: LeasedBlock, batch: EventBatch) -> Self: ...
    def __enter__(self) -> EventBatch: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    def release(self) -> None: ...
    @property
    def batch(self) -> EventBatch: ...
