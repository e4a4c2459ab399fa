"""Runs threads against each other and ends them when nothing moves any more.

There is no maximum time: a slow machine is not a hang. What is watched is progress.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

PATIENCE: Final = float(os.environ.get("STRESS_PATIENCE", "10"))
"""Seconds without any progress after which a run counts as stuck."""


class StuckError(Exception):
    """Nothing moved, and threads had not ended."""


def run(*bodies: Callable[[], T], progress: Callable[[], object], stop: Callable[[], object]) -> list[T]:
    """Runs each body in a thread of its own and returns what they return, or raises what the first of them raised.

    When `progress` returns the same for PATIENCE seconds, `stop` is called, which must end the threads.
    """
    results: dict[int, T] = {}
    errors: list[BaseException] = []

    def guarded(number: int, body: Callable[[], T]) -> None:
        try:
            results[number] = body()
        except BaseException as error:
            errors.append(error)
            stop()

    threads = [threading.Thread(target=guarded, args=item, daemon=True) for item in enumerate(bodies)]
    for thread in threads:
        thread.start()
    stuck = ""
    last, since = progress(), time.monotonic()
    while any(thread.is_alive() for thread in threads):
        for thread in threads:
            thread.join(0.02)
        now = progress()
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > PATIENCE:
            if stuck:
                raise StuckError(f"{stuck}, and did not end when stopped")
            names = [body for body, thread in zip(bodies, threads, strict=True) if thread.is_alive()]
            stuck = f"no progress in {PATIENCE} s at {last}; still running: {names}"
            since = time.monotonic()
            stop()
    if errors:
        raise errors[0]
    if stuck:
        raise StuckError(stuck)
    return [results[number] for number in range(len(bodies))]
