"""Signals at every bytecode of a call: what it interrupts, and what their handlers may call meanwhile."""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Final, Protocol, cast

import pytest

from nodedb_ring.errors import RingError
from tests.stress.compiling import compiled
from tests.unit.runners import until_asleep
from tests.unit.watchdog import start_round

__all__ = ["Interrupts", "handled", "interrupted_at_each", "interrupts", "send_in_a_row"]

SOURCE: Final = Path(__file__).with_name("interrupts.pyx")


class Interrupts(Protocol):
    """``interrupts.pyx``."""

    def call_interrupted(self, call: Callable[[], object], at: int, number: int) -> bool: ...


@pytest.fixture(scope="session")
def interrupts(tmp_path_factory: pytest.TempPathFactory) -> Interrupts:
    """Compiled once a run."""
    return _Rounds(cast("Interrupts", compiled(SOURCE, tmp_path_factory.mktemp("interrupts"))))


class _Rounds:
    """Each call has the watchdog's seconds to itself: how many calls there are is up to the bytecodes."""

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts

    def call_interrupted(self, call: Callable[[], object], at: int, number: int) -> bool:
        start_round()
        return self._interrupts.call_interrupted(call, at, number)


def interrupted_at_each(
    interrupts: Interrupts, begin: Callable[[], Callable[[], object]], number: int = signal.SIGINT
) -> Iterator[int]:
    """Calls what `begin` returns, again and again, with a signal one bytecode later each time.

    Yields the bytecode after each call, to check what it left; ends with the call that is over before the signal
    comes. What the handler raises is swallowed, and what `begin` does is not interrupted.
    """
    for at in itertools.count():
        call = begin()
        came = True
        with contextlib.suppress(KeyboardInterrupt):
            came = interrupts.call_interrupted(call, at, number)
        if not came:
            return
        yield at


@contextlib.contextmanager
def handled(work: Callable[[], object], number: int = signal.SIGTERM) -> Generator[list[RingError | None]]:
    """Within the block a signal does this work. What it raised of ours, or None, is added to the list each time."""
    done: list[RingError | None] = []

    def handle(*_: object) -> None:
        try:
            work()
        except RingError as error:
            done.append(error)
        else:
            done.append(None)

    before = signal.signal(number, handle)
    try:
        yield done
    finally:
        signal.signal(number, before)


def send_in_a_row(signals: int, waited: int, done: list[RingError | None], release: Callable[[], object]) -> None:
    """Sends the main thread so many signals, each once it sleeps, and then releases what it waits for; for a thread.

    The handlers of the first `waited` wait in their turn. Those of the others are in `done` before the next is sent.
    """
    main = threading.main_thread()
    for sent in range(signals):
        until_asleep(main.native_id or 0)
        signal.pthread_kill(main.ident or 0, signal.SIGTERM)
        while len(done) <= sent - waited:
            until_asleep(main.native_id or 0)
    until_asleep(main.native_id or 0)
    release()
