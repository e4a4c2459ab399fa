"""A capture of a database, and the rows that its events alone make."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any, Final

import msgpack

from nodedb_ring import EventBatch, EventConsumer, WriteOp, create_event_bus
from nodedb_ring.capture.postgres import PostgresCapture

from ...watchdog import start_round
from .server import Database

__all__ = ["Captured", "Replica", "captured", "drain", "maps", "new_slot", "until"]

SECONDS: Final = 50.0
_NUMBERS: Final = itertools.count(1)


def maps(batch: EventBatch) -> list[tuple[str, str, dict[str, Any] | None, dict[str, Any] | None]]:
    """Of each event the op, the row id, and both values."""
    return [(event.op.name, event.row_id, _map(event.old_value), _map(event.new_value)) for event in batch]


def _map(value: bytes | None) -> dict[str, Any] | None:
    return None if value is None else msgpack.unpackb(value, timestamp=0)


class Captured:
    """A database with its capture and its ring."""

    def __init__(self, database: Database, slot: str, *, capacity: int = 4096, arena_bytes: int | None = None) -> None:
        self.database = database
        self.slot = slot
        self.running: PostgresCapture | None = None
        [self.producer], [self.consumer] = create_event_bus(1, capacity=capacity, arena_bytes=arena_bytes)

    def capture(self, **settings: Any) -> PostgresCapture:
        return PostgresCapture(self.database.dsn, self.producer, publication="p", slot=self.slot, **settings)

    def drain(self, count: int) -> EventBatch:
        """So many events, and no more."""
        batch = drain(self.consumer, count)
        assert len(batch) == count, maps(batch)
        return batch


def drain(consumer: EventConsumer, count: int) -> EventBatch:
    """So many events, or what comes in some seconds."""
    until = time.monotonic() + SECONDS
    batches: list[EventBatch] = []
    left = count
    while left > 0 and time.monotonic() < until:
        batch = consumer.drain(left, timeout=0.1)
        if len(batch):
            batches.append(batch)
            left -= len(batch)
    return EventBatch.concat(batches) if batches else EventBatch.from_events([])


@contextmanager
def captured(
    database: Database, *tables: str, capacity: int = 4096, arena_bytes: int | None = None, **settings: Any
) -> Generator[Captured, None, None]:
    """A running capture of a database with some tables, each as it is written behind CREATE TABLE, or a statement."""
    statements = [table if table.startswith(("ALTER", "CREATE")) else f"CREATE TABLE {table}" for table in tables]
    database.execute(*statements, "CREATE PUBLICATION p FOR ALL TABLES")
    made = Captured(database, new_slot(), capacity=capacity, arena_bytes=arena_bytes)
    capture = made.capture(**settings)
    capture.ensure_slot()
    made.running = capture
    with capture:
        yield made


def new_slot() -> str:
    return f"slot_{time.time_ns()}_{next(_NUMBERS)}"


def until(holds: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Waits for something that must come soon. `seconds` are the limit, and not what is left of the test's own time."""
    began = time.monotonic()
    rounds = 0
    while not holds():
        waited = time.monotonic() - began
        assert waited < seconds
        # Only a test has a watchdog: an alarm without one would end the process.
        if waited >= rounds * 20.0 and callable(signal.getsignal(signal.SIGALRM)):
            start_round()
            rounds += 1
        time.sleep(0.01)


class Replica:
    """Rows by table and row id, from events alone."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, dict[str, Any]]] = {}
        self.sequence = 0

    def apply(self, batches: Iterable[EventBatch]) -> None:
        for batch in batches:
            for event in batch:
                assert event.sequence == self.sequence + 1
                self.sequence = event.sequence
                rows = self.tables.setdefault(event.collection, {})
                new = _map(event.new_value)
                if event.op is WriteOp.INSERT:
                    assert event.row_id not in rows
                    assert new is not None
                    rows[event.row_id] = new
                elif event.op is WriteOp.UPDATE:
                    assert new is not None
                    rows[event.row_id] = rows[event.row_id] | new
                elif event.op is WriteOp.DELETE:
                    del rows[event.row_id]
                elif event.op is WriteOp.BULK_DELETE:
                    rows.clear()
