"""Whether every size of batch costs the same per event: copies of some sizes are far slower on some processors.

A library cannot choose how libc copies; ``nodedb_copy.h`` says what ours does about it. libc reads the tunable that
shows the effect when a process starts, so that each variant is measured in a process of its own, which this module is
when it is run: it prints nanoseconds per event as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Final

import numpy as np

from nodedb_ring import EventBatch

from .measure import check, no_collection
from .sample import new_ring, ready_events
from .table import Row

__all__ = ["batch_sizes"]

_SIZES: Final = (64, 128, 256, 512, 768, 1024, 2048, 3072, 4096, 8192, 16384, 32768, 65536)
_COMPARED: Final = (256, 8192)
"""The sizes that are compared: below them are calls, above them is memory."""

_MOST: Final = 1.4
_EVENTS: Final = 65536
_WAYS: Final = ("emit_batch", "drain", "memcpy of the same bytes")
_VARIANTS: Final = {
    "as libc copies here": "",
    "libc told to use rep movsb from 2 KiB on": "glibc.cpu.x86_rep_movsb_threshold=2048",
    "libc told never to": "glibc.cpu.x86_rep_movsb_threshold=1000000000",
}


def batch_sizes(rounds: int) -> list[Row]:
    """The dearest size over the cheapest, per event, of each way and variant."""
    rows: list[Row] = []
    for variant, tunable in _VARIANTS.items():
        settings = os.environ | {"GLIBC_TUNABLES": tunable} if tunable else os.environ
        command = [sys.executable, "-m", "benchmarks.batch_sizes", str(rounds)]
        done = subprocess.run(command, env=settings, check=True, capture_output=True, text=True)
        costs: dict[str, dict[str, float]] = json.loads(done.stdout)
        for way in _WAYS:
            compared = {size: ns for size, ns in costs[way].items() if _COMPARED[0] <= int(size) <= _COMPARED[1]}
            what = f"{way}, {_COMPARED[0]} to {_COMPARED[1]} events, {variant}"
            beside = ", ".join(f"{size}: {ns:.1f}" for size, ns in costs[way].items()) + " ns"
            # Only ours has a goal: the bare copy shows what there is to avoid.
            goal = _MOST if way != _WAYS[2] else None
            value = max(compared.values()) / min(compared.values())
            rows.append(Row(group="sizes", what=what, value=value, unit="x", goal=goal, beside=beside))
    return rows


def _costs(rounds: int) -> dict[str, dict[int, float]]:
    """Nanoseconds per event, the best of the rounds, in which all sizes take turns."""
    events = ready_events(_EVENTS)
    whole = EventBatch.from_events(events)
    batches = {size: EventBatch.concat([whole[:size]]) for size in _SIZES}
    bytes_of = {size: np.concatenate([batch.records.view(np.uint8), batch.payload]) for size, batch in batches.items()}
    outs = {size: np.empty_like(source) for size, source in bytes_of.items()}
    # As many rows as the largest batch, and so every size goes through the same memory.
    producer, consumer = new_ring(_EVENTS)
    best: dict[str, dict[int, float]] = {way: dict.fromkeys(_SIZES, float("inf")) for way in _WAYS}
    for size, batch in batches.items():
        check("events enqueued", producer.emit_batch(batch), size)
        check("the events drained", list(consumer.drain(size)), events[:size])
    clock = time.perf_counter_ns
    for _ in range(rounds):
        for size in _SIZES:
            batch, source, out = batches[size], bytes_of[size], outs[size]
            turns = max(4, _EVENTS // size)
            emit_ns = drain_ns = 0
            with no_collection():
                for _ in range(turns):
                    start = clock()
                    producer.emit_batch(batch)
                    between = clock()
                    consumer.drain(size)
                    end = clock()
                    emit_ns += between - start
                    drain_ns += end - between
                start = clock()
                for _ in range(turns):
                    np.copyto(out, source)
                copy_ns = clock() - start
            for way, took in zip(_WAYS, (emit_ns, drain_ns, copy_ns), strict=True):
                best[way][size] = min(best[way][size], took / (turns * size))
    check("events dropped", producer.stats().dropped, 0)
    return best


if __name__ == "__main__":
    json.dump(_costs(int(sys.argv[1])), sys.stdout)
