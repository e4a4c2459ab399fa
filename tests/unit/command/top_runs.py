"""Runs of ``nodedb-ring top``: in this process on a clock of the test, and in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from nodedb_ring import EventBus, EventProducer
from nodedb_ring.command.top.command import run_top
from tests.unit.builders import events

SECONDS = 50
TOP = ["-m", "nodedb_ring", "top"]


class Time:
    """A clock that only passes when somebody pauses, for the time that he does; meanwhile something is done."""

    def __init__(self, *meanwhile: Callable[[], object]) -> None:
        self.now = 0.0
        self._meanwhile = list(meanwhile)

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds
        if self._meanwhile:
            self._meanwhile.pop(0)()


def run(bus: EventBus, time: Time, **options: Any) -> int:
    given: dict[str, Any] = {"interval": 2.0, "count": None, "once": False, "json": False}
    return run_top(bus.name, bus.directory, clock=time, pause=time.pause, **(given | options))


def top(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, with pipes for a terminal."""
    return subprocess.run(
        [sys.executable, *TOP, *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env=os.environ | environment,
    )


def emitting(producer: EventProducer, first: int, last: int) -> Callable[[], object]:
    return lambda: [producer.emit(each) for each in events(first, last)]


def corrupt(bus: EventBus) -> None:
    """Overwrites the published position of core 0."""
    with bus.path.open("r+b") as file:
        file.seek(4096 + 128)
        file.write((2**40).to_bytes(8, "little"))
