"""The compiled traffic as the tests see it, and how it is built."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol, cast

from nodedb_ring import EventRing

from .compiling import compiled

SOURCE: Final = Path(__file__).parent / "native_traffic.pyx"


class StopFlag(Protocol):
    """Ends the loops of both ends."""

    def set(self) -> None: ...


class TurnsCounter(Protocol):
    """Takes the two threads of a close race through their rounds."""


class NativeTraffic(Protocol):
    """``native_traffic.pyx``."""

    MIXED: int
    PUSH: int
    ROWS: int
    SCATTERED: int
    RESERVE: int
    POP: int
    PEEK: int
    TAKE: int
    LEASE: int
    COPY: int

    def Stop(self) -> StopFlag: ...

    def produce(
        self, ring: EventRing, stop: StopFlag, enqueued: bytearray, *, first: int, how: int, most: int, seed: int,
        insists: bool, in_step: bool = False, jitter: int = 300, closes: bool = True, spins: int = -1,
    ) -> int: ...  # fmt: skip

    def consume(
        self, ring: EventRing, stop: StopFlag, received: bytearray, *, first: int, how: int, most: int, seed: int,
        spins: int = -1,
    ) -> tuple[int, int]: ...  # fmt: skip

    def Turns(self) -> TurnsCounter: ...

    def close_after_one(self, ring: EventRing, stop: StopFlag, turns: TurnsCounter, rounds: int, seed: int) -> int: ...

    def look_for_the_last(self, ring: EventRing, stop: StopFlag, turns: TurnsCounter, rounds: int) -> int: ...

    def waits_see_what_came_before(self, ring: EventRing) -> tuple[bool, bool]: ...

    def room_waits_see_what_came_before(self, ring: EventRing) -> bool: ...

    def sleep_until_room(self, ring: EventRing, slots: int, payload: int, gather: int) -> bool: ...

    def sleep(self, ring: EventRing) -> bool: ...

    def start_at(self, ring: EventRing, position: int, arena_position: int) -> None: ...

    def progress(self, ring: EventRing) -> tuple[int, int]: ...

    def close_both(self, ring: EventRing) -> None: ...


def build(into: Path) -> NativeTraffic:
    """Compiles the module into a directory, as any Cython package that uses this one would, and imports it."""
    return cast("NativeTraffic", compiled(SOURCE, into))
