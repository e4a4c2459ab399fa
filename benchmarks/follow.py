"""``python -m benchmarks.follow``: what ``follow`` costs, compared with plain ``drain`` if no event is missing.

And how fast it replays a log of small stored batches, compared with one of large ones. The answer is checked before it
is timed; a wrong one ends the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from nodedb_ring import EventBatch, WriteOp, create_event_bus, follow
from nodedb_ring.log.sqlite import SqliteEventLog

from .measure import check, no_collection
from .suite import Show, run_suite
from .table import Row

__all__ = ["main"]

_PARTS: Final = ("follow", "replay")
_BATCH: Final = 1024
_BATCHES: Final = 60


def main(arguments: list[str] | None = None) -> int:
    """Runs the parts that were asked for: 0, or with ``--strict`` 1 if a goal was missed."""
    return run_suite("benchmarks.follow", __doc__, _PARTS, _run, arguments)


def _run(wanted: set[str], quick: bool, show: Show) -> None:
    if "follow" in wanted:
        show("A log behind the ring", following(rounds=10 if quick else 40))
    if "replay" in wanted:
        show("A log that is replayed", replaying(rounds=3 if quick else 10))


def following(*, rounds: int) -> list[Row]:
    """Drains of 1024 events through a follower and without one, in turn; the best round of each counts."""
    (producer,), (consumer,) = create_event_bus(1)
    batches = [
        EventBatch.from_columns(
            sequence=np.arange(_BATCH) + 1 + number * _BATCH,
            lsn=number,
            op=WriteOp.INSERT,
            collection="flights",
            row_id="UA1545",
            new_value=b"v" * 128,
        )
        for number in range(_BATCHES)
    ]

    def fill() -> None:
        for batch in batches:
            check("enqueued", producer.emit_batch(batch), _BATCH)

    def timed(take: Callable[[], EventBatch]) -> float:
        fill()
        with no_collection():
            start = time.perf_counter()
            for _ in batches[1:]:
                take()
            last = take()
            took = time.perf_counter() - start
        check("the last batch", last.sequence.tolist(), batches[-1].sequence.tolist())
        return took

    least = {"drain": float("inf"), "follow": float("inf")}
    with TemporaryDirectory() as folder, SqliteEventLog(Path(folder, "log")) as log:
        for _ in range(rounds):
            least["drain"] = min(least["drain"], timed(consumer.drain))
            # Each round repeats the numbers of the one before, so it needs a new follower.
            with follow(consumer, log, group="benchmark", after=0) as follower:
                least["follow"] = min(least["follow"], timed(follower.next_batch))
                check("replayed", follower.stats().replayed, 0)
    drain, followed = (least[kind] / len(batches) for kind in ("drain", "follow"))
    return [
        Row(
            group="follow",
            what="follow of 1024 events, of a plain drain",
            value=followed / drain,
            unit="",
            goal=1.10,
            beside=f"{followed * 1e6:.1f} µs; drain {drain * 1e6:.1f} µs",
        )
    ]


def replaying(*, rounds: int) -> list[Row]:
    """Follows logs of the same events in stored batches of two sizes, in turn; the best round of each counts."""
    small, large = 8, 1024
    total = 160 * large
    events = EventBatch.from_columns(
        sequence=np.arange(total) + 1,
        lsn=1,
        op=WriteOp.INSERT,
        collection="flights",
        row_id="UA1545",
        new_value=b"v" * 128,
    )
    least = {small: float("inf"), large: float("inf")}
    with TemporaryDirectory() as folder:
        logs = {size: SqliteEventLog(Path(folder, str(size))) for size in least}
        for size, log in logs.items():
            for first in range(0, total, size):
                log.append(0, events[first : first + size])
        for number in range(rounds):
            for size, log in logs.items():
                with follow(None, log, core_id=0, group=f"{number}", max_events=16_384) as follower, no_collection():
                    start = time.perf_counter()
                    count = batches = 0
                    while count < total:
                        batch = follower.next_batch(0)
                        check("the first number", int(batch.sequence[0]), count + 1)
                        count += len(batch)
                        batches += 1
                    least[size] = min(least[size], time.perf_counter() - start)
                check("events and batches", (count, batches), (total, total // 16_384))
        for log in logs.values():
            log.close()
    return [
        Row(
            group="replay",
            what=f"replay of stored batches of {small} events",
            value=total / least[small] / 1e6,
            unit="M events/s",
            goal=1.0,
            at_least=True,
            beside=f"{least[small] / total * small * 1e6:.1f} µs a stored batch",
        ),
        Row(
            group="replay",
            what=f"the same, of the rate with {large}",
            value=least[large] / least[small],
            unit="",
            goal=0.5,
            at_least=True,
            beside=f"{total / least[large] / 1e6:.1f} M events/s with {large}",
        ),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
