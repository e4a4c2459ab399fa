"""What the model of a ring keeps: the arena, the leases that are out, and the account of every attempt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from nodedb_ring import EventBatch, Lease, PressureState, WriteEvent
from nodedb_ring.batch.schema import STRING_FIELDS, VALUE_FIELDS

VARIABLE = STRING_FIELDS + VALUE_FIELDS
NORMAL, THROTTLED, SUSPENDED = PressureState


def payload_size(event: WriteEvent) -> int:
    total = 0
    for name in VARIABLE:
        value: str | bytes | None = getattr(event, name)
        total += len(value.encode() if isinstance(value, str) else value or b"")
    return total


def next_pressure(state: PressureState, percent: int) -> PressureState:
    """SPEC.md's sentence, state by state."""
    if percent >= 95:
        return SUSPENDED
    if state is NORMAL:
        return THROTTLED if percent >= 85 else NORMAL
    if state is SUSPENDED and percent >= 85:
        return SUSPENDED
    return THROTTLED if percent >= 75 else NORMAL


class Span(NamedTuple):
    """Bytes of the arena that one event pins, as distances from the beginning of the present lap."""

    start: int
    end: int


class Arena(NamedTuple):
    """One way in which the arena may stand. Distances are from the beginning of the present lap; before it < 0."""

    head: int
    tail: int
    spans: tuple[Span, ...]  # of the outstanding events, in order of publication
    taken: int = 0  # where the last event that was taken ends, released or not

    def next_lap(self, size: int) -> Arena:
        moved = tuple(Span(start - size, end - size) for start, end in self.spans)
        return Arena(0, self.tail - size, moved, self.taken - size)

    def places(self, size: int, need: int) -> list[Arena]:
        """The arenas with the head where `need` bytes may go; none where there is no room."""
        if not self.spans:
            # Nothing is outstanding: at the beginning, or behind the last one where there is room.
            again = Arena(0, 0, ())
            return [again, self._replace(spans=())] if self.head + need <= size else [again]
        if self.head + need <= (size if self.tail >= 0 else size + self.tail):
            return [self]
        if self.tail >= 0 and need <= self.tail:
            return [self.next_lap(size)]
        return []

    def publish(self, spans: list[Span]) -> Arena:
        head = max([self.head, *(span.end for span in spans)])
        tail = self.tail if self.spans else min(self.tail, self.head)
        return self._replace(head=head, tail=tail, spans=self.spans + tuple(spans))

    def tails(self, without: set[int], oldest_is_leased: bool) -> list[Arena]:
        """The arenas after some events went back: the tail rests at the last one's end, or is at the next's start."""
        left = tuple(span for i, span in enumerate(self.spans) if i not in without)
        if not left:
            return [self._replace(tail=tail, spans=()) for tail in {self.head, self.tail}]
        tails = {left[0].start}
        if not oldest_is_leased:
            tails.add(max(self.tail, self.taken))
        return [self._replace(tail=tail, spans=left) for tail in tails]

    def in_use(self) -> int:
        return self.head - self.tail if self.spans else 0


@dataclass
class Held:
    """A lease that is out."""

    events: list[WriteEvent]
    rows: list[int]
    positions: list[int]
    lease: Lease | None
    kept: np.ndarray[Any, Any] | EventBatch | None = None
    kept_bytes: bytes = b""


@dataclass
class Account:
    attempts: int = 0
    emitted: int = 0
    full: int = 0
    disconnected: int = 0
    first_dropped: int | None = None
    last_dropped: int | None = None
    highest: int | None = None
    slots_high: int = 0
    bytes_high: int = 0
    bytes_most: int = 0
    batches: int = 0
    entered: dict[PressureState, int] = field(default_factory=lambda: dict.fromkeys(PressureState, 0))
