"""Small runs of the benchmark command, and what they must leave: whole results, and nothing else."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nodedb_ring import EventBus, __version__
from nodedb_ring.command.bench.machine import Machine
from nodedb_ring.command.bench.plot import DOTS_PER_INCH, SIZE_INCHES
from nodedb_ring.command.bench.results import PERCENTILES, Results, Spread
from nodedb_ring.command.bench.settings import WAITS, Settings
from nodedb_ring.command.bench.throughput import Throughput

WATCHDOG = 60  # seconds; only a hang takes so long
COMMAND = [sys.executable, "-m", "nodedb_ring", "bench"]
SMALL = ["--quick", "--capacities=64,100", "--batch-sizes=1,16,128", "--value-bytes=20", "--seconds=0.3"]


def small(**changes: Any) -> Settings:
    settings = Settings.of(quick=True, capacities=[64, 128], batch_sizes=[1, 16, 128], value_bytes=20, seconds=0.3)
    return dataclasses.replace(settings, **changes)


def nothing_is_left() -> None:
    assert [name for name in EventBus.list() if name.startswith(f"bench-{os.getpid()}-")] == []
    assert multiprocessing.active_children() == []


def is_complete(document: dict[str, Any]) -> None:
    """Whether it is as docs/benchmarks.md says, and its figures agree with one another."""
    fields = {field.name for field in dataclasses.fields(Results)}
    assert set(document) == fields
    assert (document["schema"], document["nodedb_ring"]) == (1, __version__)
    assert set(document["machine"]) == {field.name for field in dataclasses.fields(Machine)}
    assert document["machine"]["cpus"] == len(os.sched_getaffinity(0))
    settings = document["settings"]
    assert set(settings) == {field.name for field in dataclasses.fields(Settings)}
    assert [(one["capacity"], one["batch_size"]) for one in document["throughput"]] == [
        (capacity, size) for capacity in settings["capacities"] for size in settings["batch_sizes"] if size <= capacity
    ]
    for one in document["throughput"]:
        rounds = one["rounds"]
        assert len(rounds) == settings["rounds"]
        assert len(set(rounds)) == len(rounds)  # measured again each time
        assert min(rounds) > 0
        assert one["events_per_second"] == dataclasses.asdict(Spread.of(rounds))
    assert [(one["wait"], one["spin_seconds"]) for one in document["latency"]] == list(WAITS.items())
    for one in document["latency"]:
        assert one["capacity"] == settings["capacities"][-1]
        assert one["events_per_round"] == round(settings["seconds_latency"] * document["latency_rate"])
        assert [point["percentile"] for point in one["percentiles"]] == list(PERCENTILES)
        for name in ("median", "least", "most"):
            figures = [point["nanoseconds"][name] for point in one["percentiles"]]
            assert figures == sorted(figures)
            assert figures[0] > 0
    written = json.dumps(document)
    for secret in (os.uname().nodename, str(Path.home()), str(Path.cwd())):
        assert secret not in written


def is_png(data: bytes) -> bool:
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    size = struct.unpack(">II", data[16:24])
    return size == tuple(round(inches * DOTS_PER_INCH) for inches in SIZE_INCHES)


def transfer(kind: Callable[..., Throughput] = Throughput, batch_size: int = 16) -> Throughput:
    return kind(capacity=64, batch_size=batch_size, value_bytes=20, seconds=0.02)
