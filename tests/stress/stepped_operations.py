"""The calls to die in, and how the ring is before each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final, Literal

from .stepped_ends import Ends

BY_BYTES: Final = (16, 128)
"""Slots and bytes of arena of a ring that runs out of bytes first: what may be written over is written over."""

BY_SLOTS: Final = (8, 1024)
"""Of one that runs out of slots."""


@dataclasses.dataclass(frozen=True)
class Operation:
    """A call to die in, and how the ring is before it."""

    name: str
    prepare: Callable[[Ends], object]
    act: Callable[[Ends], object] | None
    claims: Literal["producer", "consumer"] | None = None
    """Not the one who prepared the ring dies, but one who claims this end after its death."""
    geometry: tuple[int, int] = BY_BYTES


def _roll(ends: Ends, events: int) -> None:
    """Moves the ring on, so that its ends lie somewhere in its middle; it is never empty, so the arena moves too."""
    assert ends.emit()
    for _ in range(events):
        assert ends.emit()
        assert ends.drain(1) == 1


def _empty(roll: int) -> Callable[[Ends], None]:
    """Nothing is outstanding."""

    def prepare(ends: Ends) -> None:
        _roll(ends, roll)
        assert ends.drain(9) == 1

    return prepare


def _lagging(ends: Ends) -> None:
    """Nothing is outstanding, the next batch starts a lap, and its end is more than a lap past the consumer's mark."""
    size = ends.events.size
    while True:
        assert ends.emit_batch(2) == 2
        assert ends.drain(2) == 2
        following = ends.sequence
        if size(following - 2) + size(following - 1) < size(following) + size(following + 1):
            return


def _waiting(roll: int, count: int) -> Callable[[Ends], None]:
    """So many events wait."""

    def prepare(ends: Ends) -> None:
        _roll(ends, roll)
        assert ends.emit_batch(count - 1) == count - 1

    return prepare


def _full(roll: int) -> Callable[[Ends], None]:
    """No event gets in."""

    def prepare(ends: Ends) -> None:
        _roll(ends, roll)
        while ends.emit():
            pass

    return prepare


def _leased(roll: int, *leases: int, released: tuple[int, ...] = (), then: int = 0) -> Callable[[Ends], None]:
    """Events are held by leases of so many each, some of which have ended; others wait."""

    def prepare(ends: Ends) -> None:
        _waiting(roll, sum(leases))(ends)
        for count in leases:
            assert ends.lease(count) == count
        for number in released:
            ends.release(number)
        if then:
            assert ends.emit_batch(then) == then

    return prepare


def _taken(roll: int, runs: int) -> Callable[[Ends], None]:
    """Events are held one by one by native code."""

    def prepare(ends: Ends) -> None:
        _waiting(roll, runs)(ends)
        for _ in range(runs):
            ends.take(1)

    return prepare


OPERATIONS: Final = [
    # What native code calls, and claims: the shortest first.
    Operation("ring_push", _waiting(3, 2), Ends.push),
    Operation("ring_push_rows", _waiting(1, 1), lambda ends: ends.push_rows(3)),
    Operation("ring_pop", _waiting(2, 2), Ends.pop),
    Operation("ring_take", _waiting(6, 3), lambda ends: ends.take(2, stops=True)),
    Operation("ring_release", _taken(2, 3), lambda ends: ends.give_back(2)),
    Operation("ring_release of the oldest", _taken(4, 4), lambda ends: ends.give_back(1)),
    Operation("claim of the producer", _leased(2, 1, 1, 1, released=(2,), then=2), None, "producer"),
    Operation("claim of the consumer", _leased(2, 2, 1, 2, released=(2,), then=2), None, "consumer"),
    # What Python calls.
    Operation("emit", _waiting(3, 2), Ends.emit),
    Operation("emit into an empty ring", _empty(5), Ends.emit),
    Operation("emit behind leases", _leased(1, 1, 1, 1, released=(2,)), Ends.emit),
    Operation("emit without a byte free", _full(6), Ends.emit),
    Operation("emit without a slot free", _full(6), Ends.emit, geometry=BY_SLOTS),
    # One of these goes round the end of the arena.
    *[Operation(f"emit, the arena moved by {roll}", _waiting(roll, 2), Ends.emit) for roll in range(6, 12)],
    Operation("emit_batch", _waiting(6, 1), lambda ends: ends.emit_batch(3)),
    Operation("emit_batch of one", _waiting(6, 1), lambda ends: ends.emit_batch(1)),
    Operation("emit_batch at the start of a lap", _lagging, lambda ends: ends.emit_batch(2)),
    Operation("emit_batch, some dropped", _waiting(2, 5), lambda ends: ends.emit_batch(6), geometry=BY_SLOTS),
    Operation("emit_batch round the arena", _waiting(9, 1), lambda ends: ends.emit_batch(4)),
    Operation("emit_batch, scattered", _waiting(8, 1), lambda ends: ends.emit_scattered(4)),
    Operation("reserve", _waiting(4, 1), lambda ends: ends.reserve(2)),
    Operation("lease", _leased(2, 1, 1, then=2), lambda ends: ends.lease(2)),
    Operation("release in order", _leased(3, 1, 2, then=1), lambda ends: ends.release(1)),
    Operation("release out of order", _leased(5, 1, 2, then=1), lambda ends: ends.release(2)),
    Operation("release the first last", _leased(6, 1, 1, 1, released=(3, 2), then=1), lambda ends: ends.release(1)),
    Operation("release, all held", _leased(1, 2, 3, 1), lambda ends: ends.release(2)),
    Operation("drain", _waiting(6, 4), lambda ends: ends.drain(3)),
    Operation("drain all", _waiting(8, 4), lambda ends: ends.drain(5)),
    Operation("drain in runs", _leased(5, 1, 1, 1, released=(2, 3), then=3), lambda ends: ends.drain(4)),
    Operation("try_recv", _waiting(3, 3), Ends.try_recv),
    Operation("close of both", _leased(3, 1, 1, released=(2,), then=2), lambda ends: ends.call(ends.close)),
]
