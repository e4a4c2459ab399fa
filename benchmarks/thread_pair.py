"""From one Python thread to another: the ring, compared with the queues of the standard library."""

from __future__ import annotations

import queue
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable

from nodedb_ring import WriteEvent

from .measure import StartLine, check, no_collection
from .sample import new_ring, ready_events
from .table import Row

__all__ = ["thread_pair"]

_TARGET_MILLIONS = 7.0


def thread_pair(rounds: int, count: int) -> list[Row]:
    """`count` ready events, emitted one by one in the thread that made them and taken in another."""
    expected = count * (count + 1) // 2
    ways: dict[str, Callable[[int], tuple[int, float]]] = {
        "ring": _ring,
        "SimpleQueue": _simple_queue,
        "deque": _deque,
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for name, way in ways.items():
        check(f"the sum of the numbers through {name}", way(count)[0], expected)
    for _ in range(rounds):
        # All in every round, in turn, so that a disturbance affects them all.
        for name, way in ways.items():
            with no_collection():
                total, seconds = way(count)
            check(f"the sum of the numbers through {name}", total, expected)
            rates[name].append(count / seconds / 1e6)
    rows = [
        Row(
            group="threads",
            what="emit one by one, drain(1024) into owned NumPy",
            value=max(rates["ring"]),
            unit="M/s",
            goal=_TARGET_MILLIONS,
            at_least=True,
            beside=f"median of {rounds} rounds {statistics.median(rates['ring']):.2f}",
        )
    ]
    for name in ("SimpleQueue", "deque"):
        ratio = statistics.median(ours / other for ours, other in zip(rates["ring"], rates[name], strict=True))
        what = {"SimpleQueue": "queue.SimpleQueue, put and get", "deque": "collections.deque, append and popleft"}[name]
        beside = f"ring/queue {ratio:.2f}, median of pairs"
        rows.append(Row(group="threads", what=what, value=max(rates[name]), unit="M/s", beside=beside))
    return rows


def _timed(count: int, produce: Callable[[list[WriteEvent]], None], consume: Callable[[], int]) -> tuple[int, float]:
    """Runs both, the producer in its own thread; returns what the consumer returned, and after how many seconds.

    The producer's thread makes the events, too: without the GIL references that another thread made are slower.
    """
    ready = StartLine(2)

    def produce_when_ready() -> None:
        events = ready_events(count)
        ready.wait()
        produce(events)

    thread = threading.Thread(target=produce_when_ready)
    thread.start()
    ready.wait()
    total = consume()
    seconds = ready.seconds()
    thread.join()
    return total, seconds


def _ring(count: int) -> tuple[int, float]:
    producer, consumer = new_ring()

    def produce(events: list[WriteEvent]) -> None:
        emit = producer.emit
        for event in events:
            while not emit(event):
                # The queue is full: the consumer needs the GIL to make room.
                time.sleep(0)
        producer.close()

    def consume() -> int:
        total = 0
        for batch in consumer:
            total += int(batch.sequence.sum())
        return total

    return _timed(count, produce, consume)


def _simple_queue(count: int) -> tuple[int, float]:
    other: queue.SimpleQueue[WriteEvent | None] = queue.SimpleQueue()

    def produce(events: list[WriteEvent]) -> None:
        put = other.put
        for event in events:
            put(event)
        put(None)

    def consume() -> int:
        total = 0
        get = other.get
        while (event := get()) is not None:
            total += event.sequence
        return total

    return _timed(count, produce, consume)


def _deque(count: int) -> tuple[int, float]:
    other: deque[WriteEvent | None] = deque()

    def produce(events: list[WriteEvent]) -> None:
        append = other.append
        for event in events:
            append(event)
        append(None)

    def consume() -> int:
        total = 0
        take = other.popleft
        while True:
            try:
                event = take()
            except IndexError:
                time.sleep(0)
                continue
            if event is None:
                return total
            total += event.sequence

    return _timed(count, produce, consume)
