"""The compiled calls between two stops as the tests see them, and how they are built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, ParamSpec, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt

from nodedb_ring import EventRing

from .compiling import compiled

SOURCE: Final = Path(__file__).with_suffix(".pyx")

P = ParamSpec("P")
T = TypeVar("T")
Bytes = npt.NDArray[np.uint8]


class NativeRun(Protocol):
    """A run of events that native code has taken."""

    def take(self, most: int, stops: bool) -> int: ...

    def release(self) -> None: ...

    def read(self, rows: Bytes) -> None: ...


class Stepping(Protocol):
    """``stepping.pyx``."""

    def between_stops(self, call: Callable[P, T], *arguments: P.args, **names: P.kwargs) -> T: ...

    def push(self, ring: EventRing, rows: Bytes, payload: Bytes) -> bool: ...

    def push_rows(self, ring: EventRing, rows: Bytes, payload: Bytes) -> int: ...

    def pop(self, ring: EventRing, row: Bytes, payload: Bytes) -> int: ...

    def producer_gone(self, ring: EventRing) -> bool: ...

    def Run(self, ring: EventRing) -> NativeRun: ...


def build(into: Path) -> Stepping:
    """Compiles the module into a directory and imports it."""
    return cast("Stepping", compiled(SOURCE, into, "-O1", "-g0"))
