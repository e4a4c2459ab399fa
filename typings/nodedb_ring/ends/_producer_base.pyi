from typing import Self

from typing_extensions import disjoint_base

from .._ring import EventRing

__all__ = ["ProducerBase"]

@disjoint_base
class ProducerBase:
    def __new__(cls, ring: EventRing) -> Self: ...
    @property
    def ring(self) -> EventRing: ...
    def _fields(self) -> dict[str, int]: ...
