from typing import final

from ..ends._producer import EventProducer

__all__ = ["CommitEmitter"]

@final
class CommitEmitter:
    def __init__(self, producer: EventProducer) -> None: ...
