"""Two forked processes, one core each: they meet, measure the distance between the cores, and run one function each."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Final, Generic, TypeVar

from .machine import core_pair
from .measure import no_collection
from .native_build import TwoProcesses

__all__ = ["Outcome", "PingPong", "is_near", "run_pair"]

_First = TypeVar("_First")
_Second = TypeVar("_Second")

_PATIENCE_S: Final = 120
"""Far more than any pair takes: only a hang takes longer."""

_TRIPS: Final = 1000
_NEAR_NS: Final = 250.0


class PingPong:
    """A page on which the two processes of a pair meet; made before the fork."""

    def __init__(self, native: TwoProcesses) -> None:
        self.native = native
        self.page = mmap.mmap(-1, mmap.PAGESIZE)

    def meet(self) -> None:
        """Returns when both processes have called it."""
        self.native.meet(self.page)

    def ping(self) -> float:
        """Nanoseconds for a cache line to the other core and back."""
        self.native.meet(self.page)
        took = self.native.ping(self.page, _TRIPS)
        self.native.meet(self.page)
        return took

    def pong(self) -> None:
        """The other side of ``ping``."""
        self.native.meet(self.page)
        self.native.pong(self.page, _TRIPS)
        self.native.meet(self.page)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[_First, _Second]):
    """What the two processes returned."""

    first: _First
    second: _Second


def is_near(line_ns: float) -> bool:
    """Whether the two cores were close together, judged by the time of a cache line."""
    return line_ns < _NEAR_NS


def run_pair(first: Callable[[], _First], second: Callable[[], _Second]) -> Outcome[_First, _Second]:
    """Forks both, each pinned to its own core if there are two; raises an exception of either here.

    What they return must pickle. Both are gone when this returns, however it does.
    """
    context = multiprocessing.get_context("fork")
    cores = core_pair()
    ends: list[Connection[Any, Any]] = []
    children: list[BaseProcess] = []
    try:
        for place, function in enumerate((first, second)):
            ours, theirs = context.Pipe(duplex=False)
            started = context.Process(target=_child, args=(function, None if cores is None else cores[place], theirs))
            started.start()
            theirs.close()
            ends.append(ours)
            children.append(started)
        results = _results(ends)
    finally:
        for child in children:
            child.join(1)
            if child.is_alive():
                child.kill()
                child.join()
        for end in ends:
            end.close()
    return Outcome(*results)


def _results(ends: list[Connection[Any, Any]]) -> list[Any]:
    results: dict[int, Any] = {}
    while len(results) < len(ends):
        ready = wait([end for place, end in enumerate(ends) if place not in results], _PATIENCE_S)
        if not ready:
            raise TimeoutError(f"a process of the pair was not done within {_PATIENCE_S} s")
        for place, end in enumerate(ends):
            if end not in ready:
                continue
            try:
                error, trace, result = pickle.loads(end.recv_bytes())
            except EOFError:
                raise RuntimeError("a process of the pair died without a message") from None
            if error is not None:
                error.add_note(f"in a process of the pair:\n{trace}")
                raise error
            results[place] = result
    return [results[place] for place in range(len(ends))]


def _child(function: Callable[[], object], core: int | None, end: Connection[Any, Any]) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})
    error: BaseException | None = None
    trace, result = "", None
    try:
        with no_collection():
            result = function()
    except BaseException as caught:
        error, trace = caught, traceback.format_exc()
    try:
        message = pickle.dumps((error, trace, result))
    except Exception:
        # An exception of a library's own may have no name that the other process could import.
        message = pickle.dumps((RuntimeError(repr(error)), trace, None))
    end.send_bytes(message)
    end.close()
