"""``python -m benchmarks.core``: what the calls of one process cost.

Every answer is checked before it is timed; a wrong one ends the run. Figures of one thread are the best of several
short rounds. Ratios of two threads are medians over rounds in which both sides of the comparison ran in turn.
"""

from __future__ import annotations

from typing import Final

from .batch_sizes import batch_sizes
from .batches import batches
from .machine import core_pair
from .memory import memory
from .native import one_thread, two_threads
from .native_build import native_loops
from .python_calls import python_calls
from .small_batches import small_batches
from .suite import Show, run_suite
from .thread_pair import thread_pair

__all__ = ["main"]

_PARTS: Final = ("calls", "batches", "sizes", "threads", "memory", "native")


def main(arguments: list[str] | None = None) -> int:
    """Runs the parts that were asked for: 0, or with ``--strict`` 1 if a goal was missed."""
    return run_suite("benchmarks.core", __doc__, _PARTS, _run, arguments)


def _run(wanted: set[str], quick: bool, show: Show) -> None:
    rounds = 3 if quick else 10
    loops = native_loops() if wanted & {"batches", "native"} else None
    if "calls" in wanted:
        show("Calls from Python, one thread", python_calls(rounds))
    if "batches" in wanted and loops is not None:
        show("Batches of events with 128-byte values, in turn on a default ring", batches(rounds, loops))
        show("Small batches, and the same events one by one", small_batches(rounds))
    if "sizes" in wanted:
        show("Sizes of batches: nanoseconds per event, the dearest over the cheapest", batch_sizes(rounds))
    if "threads" in wanted:
        show("Thread to thread in Python", thread_pair(rounds, 100_000 if quick else 400_000))
    if "memory" in wanted:
        show("Memory", memory(1_000_000 if quick else 10_000_000))
    if "native" in wanted and loops is not None:
        show("128-byte rows through the .pxd, one native thread", one_thread(rounds, loops))
        title = "128-byte rows through the .pxd, two native threads"
        if core_pair() is None:
            title += ": not measured, because this machine has one core"
        show(title, two_threads(3 if quick else 15, 320_000 if quick else 1_280_000, loops))


if __name__ == "__main__":
    raise SystemExit(main())
