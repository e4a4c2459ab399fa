"""``python -m benchmarks.watching``: the cost of ``nodedb-ring top``, to itself and to the watched processes.

The watched thread emits and drains as fast as it can. Meanwhile another process takes samples without a pause, about a
thousand times as often as the command may: in one round of that bus, in the next round of another bus, so that both
run under the same load. The best round of each counts.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import secrets
import statistics
import time
from collections.abc import Generator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from rich.console import Console

from nodedb_ring import EventBus, WriteEvent, WriteOp
from nodedb_ring.command.top.view import View
from nodedb_ring.command.top.watch import RingSample, Watch

from .measure import best, check, no_collection
from .suite import Show, run_suite
from .table import Row

__all__ = ["main"]

_PARTS: Final = ("top",)
_CORES: Final = 16
_SAMPLES: Final = 200
_EVENTS: Final = 256 * 1024
_BATCH: Final = 64


def main(arguments: list[str] | None = None) -> int:
    """Runs the parts that were asked for: 0, or with ``--strict`` 1 if a goal was missed."""
    return run_suite("benchmarks.watching", __doc__, _PARTS, _run, arguments)


def _run(wanted: set[str], quick: bool, show: Show) -> None:
    if "top" in wanted:
        with _bus(_CORES) as many, _bus(1) as one, _bus(1) as other:
            show("nodedb-ring top", [sampling(many), drawing(many), watched(one, other, rounds=5 if quick else 25)])


@contextmanager
def _bus(num_cores: int) -> Generator[EventBus, None, None]:
    with EventBus.create(f"benchmark-{os.getpid()}-{secrets.token_hex(4)}", num_cores, 1024) as bus:
        try:
            yield bus
        finally:
            bus.unlink()


def sampling(bus: EventBus) -> Row:
    """The best round of sampling all cores, with all ends claimed."""
    with Watch(bus.name, bus.directory) as watch:
        producers = [bus.producer(core_id) for core_id in range(bus.num_cores)]
        consumers = [bus.consumer(core_id) for core_id in range(bus.num_cores)]
        for core_id, producer in enumerate(producers):
            for event in _events(core_id + 1):
                producer.emit(event)
        rings = watch.sample().rings
        lags = [ring.stats.lag for ring in rings if isinstance(ring, RingSample)]
        check("lags", lags, list(range(1, bus.num_cores + 1)))

        def once() -> float:
            start = time.perf_counter()
            for _ in range(_SAMPLES):
                watch.sample()
            return (time.perf_counter() - start) / _SAMPLES

        took = best(15, once)
        for consumer in consumers:
            consumer.drain()
            consumer.close()
        for producer in producers:
            producer.close()
    return Row(
        group="watching",
        what=f"a sample of {bus.num_cores} cores, per core",
        value=took / bus.num_cores * 1e6,
        unit="µs",
        beside=f"{took * 1e3:.2f} ms per sample: {took / 0.1:.2%} of one core at --interval 0.1, {took:.3%} at 1",
    )


def drawing(bus: EventBus) -> Row:
    """The best round of drawing all cores for a terminal."""
    with Watch(bus.name, bus.directory) as watch:
        view = View(watch.sample())
        for _ in range(100):
            view.add(watch.sample())

    def once() -> float:
        file = io.StringIO()
        console = Console(file=file, force_terminal=True, width=120, height=50)
        start = time.perf_counter()
        console.print(view)
        took = time.perf_counter() - start
        check("lines", file.getvalue().count("NORMAL"), bus.num_cores)
        return took

    took = best(15, once)
    return Row(
        group="watching",
        what=f"drawing {bus.num_cores} cores, 120 columns wide",
        value=took * 1e3,
        unit="ms",
        beside=f"{took / 0.1:.1%} of one core at --interval 0.1, {took:.2%} at 1",
    )


def watched(bus: EventBus, other: EventBus, *, rounds: int) -> Row:
    """Emitting and draining while another process samples this bus, and while it samples another one."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_sample_on, args=([bus.name, other.name], bus.directory, theirs), daemon=True)
    process.start()
    took: list[list[float]] = [[], []]
    samples: list[float] = []
    for _ in range(rounds):
        for which in range(2):
            ours.send(which)
            check("the watcher", ours.recv(), which)
            took[which].append(_emit_and_drain(bus))
            ours.send(None)
            rate = ours.recv()
            if which == 0:
                samples.append(rate)
    ours.close()
    process.join()
    check("the watcher's end", process.exitcode, 0)
    here, elsewhere = map(min, took)
    return Row(
        group="watching",
        what="emit and drain, sampled without a pause, ratio to unwatched",
        value=here / elsewhere,
        unit="",
        beside=f"{here * 1e9:.0f} ns per event with {statistics.median(samples):,.0f} samples/s;"
        f" {elsewhere * 1e9:.0f} ns without",
    )


def _emit_and_drain(bus: EventBus) -> float:
    """Seconds per event of core 0: emitted one by one and drained 64 at a time, by one thread."""
    with bus.producer(0) as producer, bus.consumer(0) as consumer, no_collection():
        before = consumer.stats().received
        batch = _events(_BATCH)
        start = time.perf_counter()
        for _ in range(_EVENTS // _BATCH):
            for event in batch:
                producer.emit(event)
            consumer.drain()
        took = time.perf_counter() - start
        check("received", consumer.stats().received - before, _EVENTS)
    return took / _EVENTS


def _events(count: int) -> list[WriteEvent]:
    return [
        WriteEvent(sequence=number, collection="flights", op=WriteOp.INSERT, row_id="UA1545", lsn=number)
        for number in range(1, count + 1)
    ]


def _sample_on(names: list[str], directory: Path, pipe: Connection) -> None:
    """Samples the bus whose number it receives until it is asked to stop; then sends the samples per second."""
    watches = [Watch(name, directory) for name in names]
    while True:
        try:
            which = pipe.recv()
        except EOFError:
            break
        pipe.send(which)
        count, start = 0, time.perf_counter()
        while not pipe.poll():
            watches[which].sample()
            count += 1
        pipe.recv()
        pipe.send(count / (time.perf_counter() - start))
    for watch in watches:
        watch.close()


if __name__ == "__main__":
    raise SystemExit(main())
