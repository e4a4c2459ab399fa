from typing import NoReturn, Self, final

from ._consumer import EventConsumer
from ._producer import EventProducer

__all__ = ["addresses", "end_bytes"]

@final
class _Handle:
    def __new__(cls, end: EventProducer | EventConsumer) -> Self: ...
    def __reduce__(self) -> NoReturn: ...

def end_bytes(end: EventProducer | EventConsumer) -> memoryview: ...
def addresses() -> tuple[int, int, int]: ...
