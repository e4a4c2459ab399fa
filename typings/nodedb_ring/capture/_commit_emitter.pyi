from typing import Self, final

from ..ends._producer import EventProducer

__all__ = ["CommitEmitter"]

@final
class CommitEmitter:
    def __new__(cls, producer: EventProducer) -> Self: ...
