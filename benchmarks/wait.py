"""``python -m benchmarks.wait``: one reader for many cores: what ``wait`` and ``merge`` cost beside one ring alone.

Parked waits are timed between two processes: the event carries the time of its emit, and the reader, which sleeps at
once, takes the time when its call returns. Rounds of each kind take turns, and the medians are compared.
"""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import os
import random
import secrets
import statistics
import time
from collections.abc import Generator
from multiprocessing.connection import Connection
from typing import Final

from nodedb_ring import (
    EventBatch,
    EventBus,
    EventConsumer,
    EventProducer,
    WriteEvent,
    WriteOp,
    create_event_bus,
    merge,
    wait,
)
from nodedb_ring.fan_in import _wait_set

from .measure import best, check, no_collection
from .sample import ready_events
from .suite import Show, run_suite
from .table import Row

__all__ = ["main"]

_PARTS: Final = ("ready", "parked", "merge", "idle")
_RINGS: Final = 64
_MERGED: Final = 8
_BATCH: Final = 1024
_BATCHES: Final = 32
"""Batches in each ring before it is read."""
_TRIPS: Final = 200
_PARKED_S: Final = 0.0004
"""From the reader's word that it is about to wait to the emit: by then it sleeps."""
_KINDS: Final = ("drain", "gate", "futexes", "epoll")


def main(arguments: list[str] | None = None) -> int:
    """Runs the parts that were asked for: 0, or with ``--strict`` 1 if a goal was missed."""
    return run_suite("benchmarks.wait", __doc__, _PARTS, _run, arguments)


def _run(wanted: set[str], quick: bool, show: Show) -> None:
    rounds = 3 if quick else 15
    if "ready" in wanted:
        show("Something is there", [there_already(rounds)])
    if "parked" in wanted:
        show("Nothing is there yet", parked(rounds))
    if "merge" in wanted:
        show("All have something", merged(rounds))
    if "idle" in wanted:
        show("Nothing comes", idle(2.0 if quick else 10.0))


def there_already(rounds: int) -> Row:
    """A wait over rings of which one has an event."""
    producers, consumers = create_event_bus(_RINGS, 1024)
    producers[_RINGS // 2].emit(_event(1))
    check("what is ready", wait(consumers), [consumers[_RINGS // 2]])
    calls = 1000

    def once() -> float:
        start = time.perf_counter()
        for _ in range(calls):
            wait(consumers)
        return (time.perf_counter() - start) / calls

    alone = consumers[_RINGS // 2 : _RINGS // 2 + 1]

    def of_one() -> float:
        start = time.perf_counter()
        for _ in range(calls):
            wait(alone)
        return (time.perf_counter() - start) / calls

    many, one = best(rounds, once), best(rounds, of_one)
    return Row(
        group="wait",
        what=f"wait over {_RINGS} rings, one of which has an event",
        value=many * 1e6,
        unit="µs",
        goal=3.0,
        beside=f"over that ring alone {one * 1e6:.2f} µs",
    )


def parked(rounds: int) -> list[Row]:
    """How long after an emit in another process the call returns that slept until then."""
    latencies: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    with _bus(_RINGS, 1024) as bus:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_park, args=(bus, theirs), daemon=True)
        process.start()
        producers = [bus.producer(core_id) for core_id in range(_RINGS)]
        number = 0
        for turn in range(rounds * len(_KINDS)):
            kind = _KINDS[turn % len(_KINDS)]
            for _ in range(_TRIPS):
                number += 1
                # Of a drain, too: an event for a ring that was used long ago is slower than one for the last ring.
                core_id = random.randrange(_RINGS)
                ours.send((kind, core_id, number))
                ours.recv()
                time.sleep(_PARKED_S)
                check("emitted", producers[core_id].emit(_event(number)), True)
                latency = ours.recv()
                latencies[kind].append(latency)
        ours.send(None)
        process.join()
        check("the reader's end", process.exitcode, 0)
    alone = statistics.median(latencies["drain"])
    return [
        Row(
            group="wait",
            what=f"wake of a wait parked on {_RINGS} shared rings, {how}, ratio to drain(timeout)",
            value=statistics.median(latencies[kind]) / alone,
            unit="",
            goal=1.2 if kind == "gate" else None,
            beside=f"{statistics.median(latencies[kind]) / 1e3:.1f} µs; one drain(timeout) {alone / 1e3:.1f} µs",
        )
        for kind, how in (("gate", "in one futex"), ("futexes", "in futex_waitv"), ("epoll", "in one epoll"))
    ]


def _park(bus: EventBus, pipe: Connection) -> None:
    """Waits once in the way that it is asked for, and sends how long after the emit the wait returned, in ns."""
    consumers = bus.consumers()
    for consumer in consumers:
        consumer.spin = 0
    most = _wait_set.most_futexes
    while (asked := pipe.recv()) is not None:
        kind, core_id, number = asked
        _wait_set.uses_gates = kind == "gate"
        _wait_set.most_futexes = 1 if kind == "epoll" else most
        pipe.send(None)
        if kind == "drain":
            batch = consumers[core_id].drain(timeout=None)
            returned = time.perf_counter_ns()
        else:
            [ready] = wait(consumers)
            returned = time.perf_counter_ns()
            batch = ready.drain()
        check("the number received", [int(each) for each in batch.sequence], [number])
        pipe.send(returned - int(batch.lsn[0]))


def merged(rounds: int) -> list[Row]:
    """Batches of rings that all have more than a turn takes, merged and one ring after the other."""
    producers, consumers = create_event_bus(_MERGED, _BATCH * _BATCHES)
    batch = EventBatch.from_events(ready_events(_BATCH))
    every = _MERGED * _BATCHES

    def fill() -> None:
        for producer in producers:
            for _ in range(_BATCHES):
                check("events emitted", producer.emit_batch(batch), _BATCH)

    def merging() -> float:
        fill()
        stream = merge(consumers)
        start = time.perf_counter()
        for _ in range(every):
            next(stream)
        return (time.perf_counter() - start) / every

    def alone() -> float:
        fill()
        start = time.perf_counter()
        for consumer in consumers:
            stream = iter(consumer)
            for _ in range(_BATCHES):
                next(stream)
        return (time.perf_counter() - start) / every

    shares = _shares(producers, consumers, batch)
    check("what is left", [len(consumer.drain()) for consumer in consumers], [0] * _MERGED)
    with no_collection():
        took = [(merging(), alone()) for _ in range(rounds)]
    many, one = min(each[0] for each in took), min(each[1] for each in took)
    return [
        Row(
            group="merge",
            what=f"merge over {_MERGED} flooded rings, batches per second, ratio to iterating one",
            value=one / many,
            unit="",
            goal=0.9,
            at_least=True,
            beside=f"{many * 1e6:.1f} µs per batch of {_BATCH}; one ring {one * 1e6:.1f} µs",
        ),
        Row(
            group="merge",
            what="the core that is furthest from its share of the batches",
            value=max(abs(share * _MERGED - 1) for share in shares) * 100,
            unit="%",
            goal=20.0,
            beside=f"{_MERGED} cores, one of which is refilled after each of its batches",
        ),
    ]


def _shares(producers: list[EventProducer], consumers: list[EventConsumer], batch: EventBatch) -> list[float]:
    """Each core's share of the first batches, where all have some and core 0 gets new ones all the time."""
    for producer in producers:
        for _ in range(_BATCHES - 1):
            producer.emit_batch(batch)
    counted: collections.Counter[int] = collections.Counter()
    stream = merge(consumers)
    for _ in range(_MERGED * (_BATCHES // 2)):
        core_id, _batch = next(stream)
        counted[core_id] += 1
        if core_id == 0:
            producers[0].emit_batch(batch)
    for consumer in consumers:
        while len(consumer.drain(_BATCH * _BATCHES)):
            pass
    return [counted[core_id] / counted.total() for core_id in range(_MERGED)]


def idle(seconds: float) -> list[Row]:
    """Processor time of a wait on shared rings whose producers, in another process, emit nothing."""
    rows: list[Row] = []
    for count in (1, _RINGS, 200):
        with _bus(count, 16) as bus:
            context = multiprocessing.get_context("spawn")
            ours, theirs = context.Pipe()
            process = context.Process(target=_hold, args=(bus, theirs), daemon=True)
            process.start()
            check("the producers", ours.recv(), count)
            consumers = bus.consumers()
            start, used = time.perf_counter(), time.process_time()
            check("what is ready", wait(consumers, seconds), [])
            percent = (time.process_time() - used) / (time.perf_counter() - start) * 100
            ours.send(None)
            process.join()
            for consumer in consumers:
                consumer.close()
        rows.append(
            Row(
                group="idle",
                what=f"a wait on {count} shared rings while nothing comes",
                value=percent,
                unit="% of one core",
                goal=1.0,
                beside=f"waited {seconds:.0f} s",
            )
        )
    return rows


def _hold(bus: EventBus, pipe: Connection) -> None:
    producers = [bus.producer(core_id) for core_id in range(bus.num_cores)]
    pipe.send(len(producers))
    pipe.recv()


@contextlib.contextmanager
def _bus(num_cores: int, capacity: int) -> Generator[EventBus, None, None]:
    with EventBus.create(f"benchmark-{os.getpid()}-{secrets.token_hex(4)}", num_cores, capacity) as bus:
        try:
            yield bus
        finally:
            bus.unlink()


def _event(number: int) -> WriteEvent:
    """An event that carries the time."""
    return WriteEvent(
        sequence=number, collection="flights", op=WriteOp.INSERT, row_id="UA1545", lsn=time.perf_counter_ns()
    )


if __name__ == "__main__":
    raise SystemExit(main())
